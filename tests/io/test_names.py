import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionwise.io.names import (
    Entities,
    derivative_name,
    derivative_path,
    natural,
    parse_name,
)


def test_a_full_name_is_read():
    found = parse_name("a/b/sub-01_ses-M12_acq-3D_ce-gd_run-2_echo-1_space-orig_FLAIR.nii.gz")
    assert found == Entities(
        sub="01", ses="M12", acq="3D", ce="gd", run="2", space="orig", suffix="FLAIR",
        extension=".nii.gz", other=(("echo", "1"),),
    )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "scan1.nii.gz",
        "sub_01_FLAIR.nii.gz",
        "ses-01_FLAIR.nii.gz",
        "sub-01_sub-02_FLAIR.nii.gz",
        "sub-_FLAIR.nii.gz",
        "sub-01_my_FLAIR.nii.gz",
        "sub-0 1_FLAIR.nii.gz",
    ],
)
def test_other_names_have_no_entities(name):
    assert parse_name(name) is None


def test_a_name_without_suffix_or_session():
    found = parse_name("sub-01_desc-new.nii")
    assert (found.sub, found.desc, found.suffix, found.extension) == ("01", "new", "", ".nii")


value = st.text("abXYZ0189", min_size=1, max_size=4)


@given(
    st.dictionaries(
        st.sampled_from(["ses", "acq", "ce", "run", "echo", "space", "seg", "label", "desc"]), value
    ),
    value,
)
def test_names_survive_reading_and_writing(stated, subject):
    other = tuple((key, stated.pop(key)) for key in ("echo",) if key in stated)
    entities = Entities(sub=subject, **stated, other=other, suffix="mask", extension=".nii.gz")
    assert parse_name(entities.name) == entities


def test_entities_are_written_in_the_order_of_bids():
    entities = Entities(sub="1", desc="x", label="L", space="orig", run="1", ses="a", suffix="mask")
    assert entities.name == "sub-1_ses-a_run-1_space-orig_label-L_desc-x_mask"


SCAN = parse_name("sub-01_ses-M12_FLAIR.nii")


def test_names_of_results():
    assert derivative_name(SCAN, "mask", label="L") == (
        "sub-01_ses-M12_space-orig_label-L_mask.nii.gz"
    )
    assert derivative_name(SCAN, "probseg", label="L") == (
        "sub-01_ses-M12_space-orig_label-L_probseg.nii.gz"
    )
    assert derivative_name(SCAN, "dseg", ".tsv", seg="acls") == (
        "sub-01_ses-M12_space-orig_seg-acls_dseg.tsv"
    )
    assert derivative_name(SCAN, "mask", desc="brain") == (
        "sub-01_ses-M12_space-orig_desc-brain_mask.nii.gz"
    )


def test_results_of_two_runs_do_not_collide():
    one, two = (parse_name(f"sub-01_run-{run}_FLAIR.nii.gz") for run in "12")
    assert derivative_name(one, "mask") != derivative_name(two, "mask")


def test_what_a_source_was_made_for_is_not_passed_on():
    source = parse_name("sub-01_space-MNI152_label-WM_desc-preproc_FLAIR.nii.gz")
    assert derivative_name(source, "mask") == "sub-01_space-MNI152_mask.nii.gz"


def test_an_empty_value_removes_an_entity():
    assert derivative_name(SCAN, "mask", space="", ses="") == "sub-01_mask.nii.gz"


def test_entities_without_a_field_can_be_stated():
    assert derivative_name(SCAN, "xfm", ".txt", mode="image").endswith("_mode-image_xfm.txt")


def test_values_are_letters_and_digits():
    with pytest.raises(ValueError, match="seg-my_method"):
        derivative_name(SCAN, "dseg", seg="my_method")


def test_paths_of_results():
    assert derivative_path("out", SCAN, "mask", label="L").as_posix() == (
        "out/sub-01/ses-M12/anat/sub-01_ses-M12_space-orig_label-L_mask.nii.gz"
    )
    plain = Entities(sub="scan1")
    assert derivative_path("out", plain, "mask").as_posix() == (
        "out/sub-scan1/anat/sub-scan1_space-orig_mask.nii.gz"
    )


@pytest.mark.parametrize("signs", ["a1²3", "a" + "9" * 5000, "٣", "", "\udce9"])
def test_any_text_has_its_place_in_natural_order(signs):
    assert sorted(["a10", signs, "a9"], key=natural).index("a9") < 2


def test_a_space_with_signs_that_bids_does_not_allow_gives_a_result_all_the_same():
    source = parse_name("sub-01_space-MNI.v2_FLAIR.nii.gz")
    other = parse_name("sub-01_space-MNI.v3_FLAIR.nii.gz")
    name = derivative_name(source, "mask")
    assert parse_name(name).space.startswith("MNI+v2+")
    assert name != derivative_name(other, "mask")


def test_natural_order():
    assert sorted(["M12", "M2", "M0", "baseline"], key=natural) == ["M0", "M2", "M12", "baseline"]
