"""Which prediction meets which reference."""

from pathlib import Path

import pytest

from lesionwise.run.pairing import (
    bare_name,
    case_of,
    listed_files,
    method_names,
    pair_files,
)
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
    assert not pairs.errors


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
    assert list(pairs.errors) == ["sub-1_ses-1"]
    assert "no reference" in pairs.errors["sub-1_ses-1"]


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
    assert "sub-1_seg-a_dseg.nii, sub-1_seg-b_dseg.nii" in pairs.errors["sub-1"]


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
    assert "several references: a.nii, a.nii.gz" in pairs.errors["a"]


def test_a_missing_prediction_is_one_line_that_names_it(folders):
    pairs = pair_files(*folders(["a.nii", "b.nii"], ["a.nii"]))
    assert pairs.errors["b"].startswith("b: ")
    assert pairs.errors["b"].endswith("has no prediction for b.nii")


def test_linked_folders_and_files_are_read_and_circles_end(folders, tmp_path):
    reference, prediction = folders(["sub-1_mask.nii", "sub-2_mask.nii"], ["sub-1_mask.nii"])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "sub-2_mask.nii").touch()
    (prediction / "linked").symlink_to(elsewhere)
    (prediction / "circle").symlink_to(prediction)
    pairs = pair_files(reference, prediction)
    assert list(pairs.files) == ["sub-1", "sub-2"]
    assert not pairs.errors


def test_hidden_files_are_skipped(folders):
    pairs = pair_files(*folders(["a.nii"], ["a.nii", ".half-a.nii", ".trash/a.nii"]))
    assert not pairs.errors


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
    assert case_of(Path("mysub-1_mask.nii")) is None
    assert case_of(Path("acq-x_sub-1_run-2_ses-b_mask.nii")).name == "sub-1_ses-b_acq-x_run-2"


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("sub-01_seg", "sub-01"),
        ("sub-01_ses-02_space-orig_seg-acls_dseg", "sub-01_ses-02"),
        ("sub-01_ses-02_FLAIR_lesion_mask", "sub-01_ses-02"),
        ("pred_sub-01", "sub-01"),
        ("sub-MS_001_mask", "sub-MS_001"),
        ("sub-MS-002_ses-1_label-L_mask", "sub-MS-002_ses-1"),
        ("sub-MS_001", "sub-MS_001"),
        ("siteA_sub-01_mask", "sub-01_siteA"),
    ],
)
def test_the_case_that_a_name_states(name, case):
    assert case_of(Path(f"{name}.nii.gz")).name == case


@pytest.mark.parametrize(
    ("reference", "prediction"),
    [
        ("sub-01_ses-01_run-1_label-L_mask", "sub-01_ses-01_run-2_label-L_mask"),
        ("sub-01_ses-01_acq-2D_mask", "sub-01_ses-01_acq-3D_mask"),
        ("sub-01_ses-01_rec-norm_mask", "sub-01_ses-01_rec-raw_mask"),
        ("sub-01_ce-gad_mask", "sub-01_ce-none_mask"),
        ("sub-01_ses-01_mask", "sub-01_ses-02_mask"),
        ("sub-01_mask", "sub-01_ses-02_mask"),
        ("sub-MS_001_mask", "sub-MS_002_mask"),
        ("sub-MS-001_mask", "sub-MS-002_mask"),
        ("sub-MS_A_mask", "sub-MS_B_mask"),
        ("siteA_sub-01_mask", "siteB_sub-01_mask"),
        ("sub-01_echo-1_mask", "sub-01_echo-2_mask"),
    ],
)
def test_names_that_contradict_each_other_never_pair_and_both_are_listed(
    folders, reference, prediction
):
    more = "sub-99_mask.nii.gz"
    pairs = pair_files(*folders([f"{reference}.nii.gz", more], [f"{prediction}.nii.gz", more]))
    assert list(pairs.files) == ["sub-99"]
    assert any(f"no prediction for {reference}" in fault for fault in pairs.errors.values())
    assert any(f"no reference for {prediction}" in fault for fault in pairs.errors.values())


def test_a_pair_that_nothing_fits_is_refused_with_the_names_of_both(folders):
    with pytest.raises(InputError) as error:
        pair_files(*folders(["sub-1_run-1_mask.nii"], ["sub-1_run-2_mask.nii"]))
    assert "sub-1_run-1_mask.nii (there is sub-1_run-2_mask.nii)" in str(error.value)
    assert "no reference for sub-1_run-2_mask.nii" in str(error.value)
    assert "\n" not in str(error.value)


def test_each_run_and_acquisition_meets_its_own(folders):
    names_ = [f"sub-1_acq-{acq}_run-{run}_mask.nii" for acq in ("2D", "3D") for run in (1, 2)]
    pairs = pair_files(*folders(names_, names_))
    assert all(a.name == b.name for a, b in pairs.files.values())
    assert len(pairs.files) == 4
    assert not pairs.errors


def test_run_numbers_may_be_padded(folders):
    pairs = pair_files(*folders(["sub-1_run-1_mask.nii"], ["sub-1_run-01_mask.nii"]))
    assert list(pairs.files) == ["sub-1_run-1"]
    assert not pairs.notes


def test_what_only_one_side_states_pairs_with_a_note_if_nothing_else_could_be_meant(folders):
    pairs = pair_files(
        *folders(["sub-1_ses-1_label-L_mask.nii"], ["sub-1_ses-1_acq-3D_space-orig_mask.nii"])
    )
    assert list(pairs.files) == ["sub-1_ses-1"]
    assert "only one of the two says acq-3D" in pairs.notes["sub-1_ses-1"]


@pytest.mark.parametrize("stated", [("rec-a", "ce-GD"), ("acq-3D", "run-1"), ("dir-AP", "echo-1")])
def test_two_names_that_each_state_more_of_the_scan_are_two_scans(folders, stated):
    names_ = [f"sub-1_ses-1_{entity}_mask.nii" for entity in stated]
    with pytest.raises(InputError, match="nothing in it pairs"):
        pair_files(*folders(names_[:1], names_[1:]))


def test_a_rater_on_one_side_and_an_acquisition_on_the_other_pair_with_a_note(folders):
    pairs = pair_files(*folders(["sub-1_rater-b_mask.nii"], ["sub-1_acq-3D_mask.nii"]))
    assert "only one of the two says acq-3D and rater-b" in pairs.notes["sub-1_rater-b"]


def test_what_only_one_side_states_does_not_pair_if_two_could_be_meant(folders):
    pairs = pair_files(
        *folders(
            ["sub-1_mask.nii", "sub-2_mask.nii"],
            ["sub-1_acq-2D_mask.nii", "sub-1_acq-3D_mask.nii", "sub-2_mask.nii"],
        )
    )
    assert list(pairs.files) == ["sub-2"]
    assert set(pairs.errors) == {"sub-1", "sub-1_acq-2D", "sub-1_acq-3D"}


def test_folders_may_state_subject_and_session(folders):
    pairs = pair_files(
        *folders(["sub-1_ses-2_mask.nii"], ["sub-1/ses-2/space-flair_seg-lst.nii.gz"])
    )
    assert list(pairs.files) == ["sub-1_ses-2"]
    assert pairs.subjects == {"sub-1_ses-2": "sub-1"}


def test_the_subject_of_a_folder_keeps_its_signs(folders):
    pairs = pair_files(*folders(["sub-MS_001/mask.nii"], ["sub-MS_001/mask.nii"]))
    assert pairs.subjects == {"sub-MS_001": "sub-MS_001"}


def test_a_file_in_the_folder_of_another_subject_is_listed_and_not_paired(folders):
    pairs = pair_files(
        *folders(["sub-1_mask.nii", "sub-2_mask.nii"], ["sub-1_mask.nii", "sub-3/sub-2_mask.nii"])
    )
    assert list(pairs.files) == ["sub-1"]
    assert "the folder says sub-3" in pairs.errors["sub-3/sub-2_mask.nii"]


def test_two_given_files_are_a_pair_but_a_contradiction_is_said(folders):
    reference, prediction = folders(["sub-1_run-1_mask.nii"], ["sub-1_run-2_mask.nii"])
    pairs = pair_files(reference / "sub-1_run-1_mask.nii", prediction / "sub-1_run-2_mask.nii")
    assert list(pairs.files) == ["sub-1_run-1"]
    assert "is named sub-1_run-2" in pairs.notes["sub-1_run-1"]


def test_nnunet_case_names_pair_as_they_are(folders):
    names_ = [f"MSLES_{number:03d}.nii.gz" for number in range(3)]
    pairs = pair_files(*folders(names_, names_))
    assert list(pairs.files) == ["MSLES_000", "MSLES_001", "MSLES_002"]


def test_of_several_instance_maps_of_lesionwise_the_main_one_is_taken(folders):
    stem = "sub-1_space-orig"
    files = [f"{stem}_seg-{name}_dseg.nii.gz" for name in ("acls", "cc", "offsets")]
    reference, prediction = folders(["sub-1_mask.nii"], [*files, f"{stem}_label-L_mask.nii.gz"])
    (prediction / f"{stem}_label-L_mask.json").write_text('{"Methods": ["cc", "acls"]}')
    assert names(pair_files(reference, prediction))["sub-1"][1] == files[1]


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


def test_a_link_to_a_folder_above_leads_nowhere(folders):
    reference, prediction = folders(["sub-1_mask.nii"], ["sub-1_mask.nii"])
    (reference / "up").symlink_to(reference.parent)
    pairs = pair_files(reference, prediction)
    assert pairs.files == {"sub-1": (reference / "sub-1_mask.nii", prediction / "sub-1_mask.nii")}


def test_consensus_masks_of_evaluations_are_no_input_unless_named(folders):
    own = ["scores/consensus/a.nii", "consensus/b.nii"]
    reference, prediction = folders(["a.nii"], ["a.nii", *own])
    (prediction / "scores" / "evaluate.json").touch()
    assert listed_files(prediction) == [prediction / "a.nii", prediction / "consensus/b.nii"]
    assert listed_files(prediction / "scores") == [prediction / own[0]]
    assert listed_files(prediction / "scores/consensus") == [prediction / own[0]]
    assert listed_files(prediction / "**/a.nii") == [prediction / "a.nii"]
    assert not pair_files(reference, prediction, output=prediction).errors
    with pytest.raises(InputError, match="but the consensus of an evaluation"):
        listed_files(prediction / "scor*/consensus/*")
