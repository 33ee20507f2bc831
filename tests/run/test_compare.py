"""Two visits: what is followed, written and refused."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from heads import LESIONS, bright_model, head, pair_model, save

from lesionwise import defaults
from lesionwise.change.rules import STATES
from lesionwise.io.bids import find_scans
from lesionwise.preprocess.alignment import Alignment
from lesionwise.preprocess.registration import RegisterToFirst
from lesionwise.report.folder import rebuild_pages
from lesionwise.run.compare import compare
from lesionwise.run.find_lesions import FindOptions
from lesionwise.run.quality_checks import alignment_notes
from lesionwise.types import InputError, Instances


@pytest.fixture
def compared(tmp_path, model):
    """Lesions a and b, then b and c, the head 4 mm further along j."""
    before = save(tmp_path / "sub-1_ses-1_FLAIR.nii.gz", head("ab"))
    after = save(tmp_path / "sub-1_ses-2_FLAIR.nii.gz", head("bc", shift=(0, 2, 0)))
    return tmp_path / "out", compare([before, after], tmp_path / "out")


def test_what_is_new_and_what_disappeared_is_found_across_a_movement(compared):
    out, done = compared
    row = done.summary.set_index("session").loc["ses-2"]
    assert (row["new"], row["disappeared"], row["stable"]) == (1, 1, 1)
    assert np.allclose(done.to_common[1][:3, 3], [0, 4, 0], atol=0.5)
    tracks = pd.read_csv(out / "tracks.tsv", sep="\t")
    assert set(tracks["session"]) == {"ses-1", "ses-2"}
    lesions = pd.read_csv(out / "lesions.tsv", sep="\t").set_index("session")
    assert sorted(lesions.loc["ses-2", "state"]) == ["new", "stable"]
    assert set(lesions["track"]) == {1, 2, 3}
    assert done.page.exists()
    visits = pd.read_csv(out / "visits.tsv", sep="\t").set_index("session")
    states = [state for state in STATES if state not in ("baseline", "disappeared")]
    assert visits.loc["ses-2", states].sum() == visits.loc["ses-2", "lesions"] == 2
    before = [name for name in visits if name.startswith("previous_")]
    assert visits.loc["ses-2", before].sum() == visits.loc["ses-1", "lesions"] == 2
    assert not any("alike" in reason for note in done.quality for reason in note.reasons)


def test_the_new_lesion_is_marked_on_the_followups_own_grid(compared):
    out, _ = compared
    path = next(out.rglob("sub-1_ses-2_space-orig_desc-new_mask.nii.gz"))
    i, j, k = LESIONS["c"]
    expected = np.zeros(head().shape, bool)
    expected[i : i + 4, j + 2 : j + 6, k : k + 4] = True
    assert np.array_equal(np.asarray(nib.load(path).dataobj) > 0, expected)
    assert next(out.rglob("*space-baseline_desc-change_dseg.nii.gz")).exists()


def test_each_lesion_has_a_state_though_the_baseline_does_not_show_its_place(tmp_path, model):
    low = np.diag([2.0, 2, 2, 1])
    low[2, 3] = 2 * 34  # b ends with the slice below
    before = save(tmp_path / "sub-1_ses-1_FLAIR.nii.gz", head("a")[..., 34:], low)
    after = save(tmp_path / "sub-1_ses-2_FLAIR.nii.gz", head("abc"))
    options = FindOptions(extract_brain=False, also=defaults.SEPARATIONS)
    compare([before, after], tmp_path / "out", options=options)
    tracks = pd.read_csv(tmp_path / "out" / "tracks.tsv", sep="\t", keep_default_na=False)
    lesions = pd.read_csv(tmp_path / "out" / "lesions.tsv", sep="\t")
    visits = pd.read_csv(tmp_path / "out" / "visits.tsv", sep="\t").set_index("session")
    states = [state for state in STATES if state not in ("baseline", "disappeared")]
    assert visits.loc["ses-2", states].sum() == visits.loc["ses-2", "lesions"] == 3
    assert visits.loc["ses-2", ["stable", "new", "equivocal"]].tolist() == [1, 1, 1]
    assert lesions["state"].notna().all()
    (hidden,) = tracks[tracks["state"] == "equivocal"].itertuples()
    assert hidden.note == "the other visit does not show this place"
    change = nib.load(next((tmp_path / "out").rglob("*space-baseline_desc-change_dseg.nii.gz")))
    codes, voxels = np.unique(np.asarray(change.dataobj), return_counts=True)
    assert codes.tolist() == [
        0,
        *sorted(STATES.index(s) + 1 for s in ("stable", "new", "equivocal")),
    ]
    assert (voxels[1:] == 64).all()


def test_the_dictionary_of_the_tracks_names_every_form(compared):
    out, _ = compared
    about = json.loads((out / "tracks.json").read_text())
    assert set(about["form"]["Levels"]) == {"in parts", "merged", "rearranged"}
    assert "no partner" in about["label"]["Description"]
    assert "this visit" in about["distance_mm"]["Description"]


def test_known_lesions_are_scored(tmp_path, model):
    scans = [save(tmp_path / f"{n}.nii.gz", head("ab")) for n in "xy"]
    image = nib.load(scans[0])
    from lesionwise.io.nifti import read_volume

    volume = read_volume(scans[0])
    labels = np.zeros(image.shape, np.int32)
    for number, name in enumerate("ab", start=1):
        i, j, k = LESIONS[name]
        labels[i : i + 4, j : j + 4, k : k + 4] = number
    truth = [Instances(labels, volume.grid)] * 2
    done = compare(scans, tmp_path / "out", truth=truth)
    assert done.scores is not None
    assert (done.scores[["DSC", "lesion F1", "PQ"]] == 1).all(axis=None)
    page = done.page.read_bytes()
    assert page.count(b'data-method="truth"') == 4
    done.page.unlink()
    assert rebuild_pages(tmp_path / "out").pages == (done.page,)
    assert done.page.read_bytes() == page


def test_a_mirrored_followup_is_refused(tmp_path, model):
    before = save(tmp_path / "sub-1_ses-1_FLAIR.nii.gz", head("ab"))
    after = save(tmp_path / "sub-1_ses-2_FLAIR.nii.gz", head("ab")[::-1].copy())
    with pytest.raises(InputError, match=r"ses-2_FLAIR.*left and right are exchanged"):
        compare([before, after], tmp_path / "out")


def test_visits_that_hardly_look_alike_are_graded_poor_with_the_reason(tmp_path):
    for visit in "123":
        save(tmp_path / f"sub-1_ses-{visit}_FLAIR.nii.gz", head(""))
    scans = find_scans([tmp_path])
    alike = Alignment(0.9, 0.4, np.nan)
    apart = Alignment(0.3, 0.2, 0.35, "the visits hardly look alike (0.30 …)")
    (note,) = alignment_notes(scans, [alike, apart])
    assert (note.about, note.grade, note.reasons) == ("1 to 3", "poor", (apart.reason,))
    assert note.measures["mirrored"] == 0.35


def test_visits_of_different_subjects_are_refused(tmp_path, model):
    scans = [save(tmp_path / f"sub-{n}_ses-{n}_FLAIR.nii.gz", head()) for n in "12"]
    with pytest.raises(InputError, match="different subjects"):
        compare(scans, tmp_path / "out")


def test_one_visit_is_not_enough(tmp_path, model):
    with pytest.raises(InputError, match="two or more"):
        compare([save(tmp_path / "a.nii.gz", head())], tmp_path / "out")
    with pytest.raises(InputError, match=r"a\.nii\.gz: given twice"):
        compare([tmp_path / "a.nii.gz"] * 2, tmp_path / "out")


def test_the_same_lesions_for_two_visits_are_refused(tmp_path):
    scans = [save(tmp_path / f"sub-1_ses-{n}_FLAIR.nii.gz", head()) for n in "12"]
    found = save(tmp_path / "sub-1_mask.nii.gz", head())
    with pytest.raises(InputError, match=r"sub-1_mask\.nii\.gz: given twice"):
        compare(scans, tmp_path / "out", lesions=[found, found])


def test_a_model_of_two_visits_may_say_what_is_new(tmp_path):
    scans = [
        save(tmp_path / "sub-1_ses-1_FLAIR.nii.gz", head("ab")),
        save(tmp_path / "sub-1_ses-2_FLAIR.nii.gz", head("bc")),
    ]
    two = pair_model(RegisterToFirst())
    done = compare(scans, tmp_path / "out", model=bright_model(), new_lesions=two)
    assert done.summary["new by brighter"].tolist()[1:] == [1]
    sidecar = next((tmp_path / "out").rglob("sub-1_ses-2_space-orig_desc-new_mask.json"))
    assert '"brighter"' in sidecar.read_text()


def test_a_model_of_one_visit_cannot_say_what_is_new(tmp_path, model):
    scans = [save(tmp_path / f"{n}.nii.gz", head()) for n in "xy"]
    with pytest.raises(InputError, match="takes one visit"):
        compare(scans, tmp_path / "out", new_lesions=bright_model())
