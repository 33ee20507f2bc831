"""Which prediction meets which reference."""

from pathlib import Path

import pytest

from lesionwise.run.pairing import bare_name, bids_case, method_names, pair_files
from lesionwise.types import InputError


@pytest.fixture
def folders(tmp_path):
    """Make files below two folders by name; the content plays no part in pairing."""

    def make(references, predictions):
        for side, names in (("ref", references), ("pred", predictions)):
            (tmp_path / side).mkdir()
            for name in names:
                path = tmp_path / side / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        return tmp_path / "ref", tmp_path / "pred"

    return make


def names(pairs):
    return {case: (a.name, b.name) for case, (a, b) in pairs.files.items()}


def test_equal_names_meet_whatever_their_extension(folders):
    pairs = pair_files(*folders(["a.nii.gz", "b.nii"], ["a.nii", "b.nii.gz"]))
    assert names(pairs) == {"a": ("a.nii.gz", "a.nii"), "b": ("b.nii", "b.nii.gz")}
    assert not pairs.faults


def test_words_that_say_what_a_file_is_do_not_keep_names_apart(folders):
    pairs = pair_files(*folders(["case01_gt.nii.gz"], ["pred_case01.nii.gz"]))
    assert list(pairs.files) == ["case01"]


def test_a_folder_per_case_meets_a_file_per_case(folders):
    pairs = pair_files(*folders(["p1/mask.nii.gz", "p2/mask.nii.gz"], ["p1.nii", "p2.nii"]))
    assert list(pairs.files) == ["p1", "p2"]


def test_words_stay_where_files_would_share_a_name(folders):
    pairs = pair_files(*folders(["x.nii", "x_mask.nii"], ["x.nii", "x_mask.nii"]))
    assert names(pairs) == {"x": ("x.nii", "x.nii"), "x_mask": ("x_mask.nii", "x_mask.nii")}


def test_bids_names_meet_by_subject_and_session(folders):
    pairs = pair_files(
        *folders(
            ["sub-1/ses-2/anat/sub-1_ses-2_label-L_mask.nii.gz"],
            ["sub-1_ses-2_seg-acls_dseg.nii.gz", "sub-1_ses-1_seg-acls_dseg.nii.gz"],
        )
    )
    assert list(pairs.files) == ["sub-1_ses-2"]
    assert list(pairs.faults) == ["sub-1_ses-1"]
    assert "no reference" in pairs.faults["sub-1_ses-1"]


def test_scans_and_other_labels_beside_a_lesion_mask_are_left_alone(folders):
    others = ["FLAIR", "probseg", "desc-brain_mask", "label-GM_mask", "desc-new_label-L_mask"]
    files = [f"sub-1_{rest}.nii.gz" for rest in [*others, "label-L_mask"]]
    pairs = pair_files(*folders(["sub-1_label-L_mask.nii.gz"], files))
    assert names(pairs)["sub-1"][1] == "sub-1_label-L_mask.nii.gz"


def test_the_kind_asked_for_chooses_between_mask_and_instances(folders):
    files = ["sub-1_label-L_mask.nii.gz", "sub-1_seg-cc_dseg.nii.gz"]
    reference, prediction = folders(files, files)
    by_kind = {
        kind: names(pair_files(reference, prediction, kind))["sub-1"][0]
        for kind in ("auto", "mask", "instances")
    }
    assert by_kind == {"auto": files[1], "mask": files[0], "instances": files[1]}


def test_two_files_that_could_be_meant_are_a_fault(folders):
    pairs = pair_files(
        *folders(
            ["sub-1_mask.nii", "sub-2_mask.nii"],
            ["sub-1_seg-a_dseg.nii", "sub-1_seg-b_dseg.nii", "sub-2_mask.nii"],
        )
    )
    assert list(pairs.files) == ["sub-2"]
    assert "sub-1_seg-a_dseg.nii, sub-1_seg-b_dseg.nii" in pairs.faults["sub-1"]


def test_a_pattern_chooses_among_them(folders):
    reference, prediction = folders(
        ["sub-1_mask.nii"], ["deep/sub-1_seg-a_dseg.nii", "deep/sub-1_seg-b_dseg.nii"]
    )
    pairs = pair_files(reference, prediction / "*seg-b*")
    assert names(pairs)["sub-1"][1] == "sub-1_seg-b_dseg.nii"


@pytest.mark.parametrize("pattern", ["**/*seg-b*", "*/*seg-b*", "d??p/*seg-b*", "d*/sub-1_seg-b*"])
def test_a_pattern_may_name_folders(folders, pattern):
    reference, prediction = folders(
        ["sub-1_mask.nii"],
        ["deep/sub-1_seg-a_dseg.nii", "deep/sub-1_seg-b_dseg.nii", "deep/er/sub-1_seg-a_dseg.nii"],
    )
    pairs = pair_files(reference, prediction / pattern)
    assert names(pairs)["sub-1"][1] == "sub-1_seg-b_dseg.nii"


def test_methods_are_named_without_the_signs_of_patterns(tmp_path):
    given = [tmp_path / "first" / "**" / "*new*", tmp_path / "second" / "**" / "*new*"]
    assert list(method_names(given)) == ["first/new", "second/new"]


def test_the_same_case_twice_is_a_fault(folders):
    pairs = pair_files(*folders(["a.nii", "a.nii.gz", "b.nii"], ["a.nii", "b.nii"]))
    assert list(pairs.files) == ["b"]
    assert "several references: a.nii, a.nii.gz" in pairs.faults["a"]


def test_a_missing_prediction_is_one_line_that_names_it(folders):
    pairs = pair_files(*folders(["a.nii", "b.nii"], ["a.nii"]))
    assert pairs.faults["b"].startswith("b: ")
    assert pairs.faults["b"].endswith("has no prediction for b.nii")


def test_hidden_files_are_skipped(folders):
    pairs = pair_files(*folders(["a.nii"], ["a.nii", ".half-a.nii", ".trash/a.nii"]))
    assert not pairs.faults


@pytest.mark.parametrize(
    ("references", "predictions", "fault"),
    [
        (["a.nii"], [], "holds no .nii"),
        (["a.nii"], ["b.nii"], "nothing in it pairs"),
    ],
)
def test_folders_that_cannot_be_paired_are_refused(folders, references, predictions, fault):
    with pytest.raises(InputError, match=fault):
        pair_files(*folders(references, predictions))


def test_a_file_and_a_folder_are_refused(folders):
    reference, prediction = folders(["a.nii"], ["a.nii"])
    with pytest.raises(InputError, match="is a file"):
        pair_files(reference / "a.nii", prediction)


def test_a_missing_path_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        pair_files(tmp_path / "gone", tmp_path)


def test_two_files_make_one_case_named_by_the_reference(folders):
    reference, prediction = folders(["sub-3_ses-1_mask.nii"], ["anything.nii"])
    pairs = pair_files(reference / "sub-3_ses-1_mask.nii", prediction / "anything.nii")
    assert list(pairs.files) == ["sub-3_ses-1"]


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("case01.nii.gz", "case01"),
        ("case01_lesion_mask.nii", "case01"),
        ("gt-case.01.nii.gz", "case.01"),
        ("mask.nii.gz", ""),
        ("masked_01.nii", "masked_01"),
    ],
)
def test_bare_names(name, bare):
    assert bare_name(Path(name)) == bare


def test_entities_are_not_found_inside_words():
    assert bids_case(Path("mysub-1_mask.nii")) == ""
    assert bids_case(Path("acq-x_sub-1_run-2_ses-b_mask.nii")) == "sub-1_ses-b"


def test_methods_are_named_by_what_tells_them_apart():
    assert list(method_names([Path("/r/a"), Path("/r/b.nii.gz")])) == ["a", "b"]
    assert list(method_names([Path("/r/a/out"), Path("/r/b/out")])) == ["a/out", "b/out"]
    assert list(method_names([Path("/r/*seg-acls*"), Path("/r/*seg-cc*")])) == [
        "seg-acls",
        "seg-cc",
    ]


def test_the_same_prediction_twice_is_refused():
    with pytest.raises(InputError, match="given twice"):
        method_names([Path("/r/a"), Path("/r/a")])
