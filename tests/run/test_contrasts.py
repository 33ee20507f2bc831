"""Models of several scans per visit are applied, not only trained."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from heads import bright_model, head, pair_model

from lesionwise.io.nifti import write_volume
from lesionwise.run.contrasts import further_scans
from lesionwise.run.predict_pairs import predict_pairs
from lesionwise.run.segment import segment
from lesionwise.types import Grid, InputError, Volume

GRID = Grid(head().shape, np.diag([2.0, 2.0, 2.0, 1.0]))


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "sub-a" / "anat"
    for suffix, gain in (("FLAIR", 1.0), ("T1w", 0.5)):
        write_volume(
            folder / f"sub-a_{suffix}.nii.gz", Volume((head() * gain).astype(np.float32), GRID)
        )
    return folder


def model_of_two():
    """A model that also takes a T1w scan, and says what it saw."""
    model = bright_model()
    seen = []

    def predict(prepared):
        seen.append(sorted(prepared.followup.scans))
        return model.predictor(prepared)

    recipe = replace(model.recipe, scans=("flair", "t1w"))
    return replace(model, recipe=recipe, predictor=predict), seen


def test_the_other_contrast_is_found_by_its_bids_name(scans):
    flair = scans / "sub-a_FLAIR.nii.gz"
    assert further_scans(flair, ("flair", "t1w")) == {"t1w": scans / "sub-a_T1w.nii.gz"}
    assert further_scans(flair, ("flair",)) == {}


def test_a_missing_contrast_is_asked_for_by_name(scans):
    with pytest.raises(InputError, match=r"sub-a_FLAIR\.nii\.gz: .*t2w scan too \(--scan t2w=FILE"):
        further_scans(scans / "sub-a_FLAIR.nii.gz", ("flair", "t2w"))


def test_a_scan_that_the_model_does_not_take_is_refused(scans):
    flair = scans / "sub-a_FLAIR.nii.gz"
    with pytest.raises(InputError, match=r"--scan t1w: .* one scan alone"):
        further_scans(flair, ("flair",), {"t1w": flair})


def test_a_model_of_two_scans_is_applied(scans, tmp_path):
    model, seen = model_of_two()
    done = segment([scans / "sub-a_FLAIR.nii.gz"], tmp_path / "out", model=model)
    assert done.failures == {}
    assert seen == [["flair", "t1w"]]


def test_a_named_file_takes_the_place_of_the_one_beside(scans, tmp_path):
    model, seen = model_of_two()
    elsewhere = tmp_path / "other.nii.gz"
    (scans / "sub-a_T1w.nii.gz").rename(elsewhere)
    done = segment(
        [scans / "sub-a_FLAIR.nii.gz"], tmp_path / "out", model=model, further={"t1w": elsewhere}
    )
    assert done.failures == {}
    assert seen == [["flair", "t1w"]]


def test_a_pair_whose_second_contrast_changed_is_done_again(tmp_path):
    model = pair_model()
    for session in "12":
        for suffix in ("FLAIR", "T1w"):
            path = tmp_path / f"sub-a_ses-{session}_{suffix}.nii.gz"
            write_volume(path, Volume(head("ab"[: int(session)]), GRID))
    flairs = sorted(tmp_path.glob("*_FLAIR.nii.gz"))

    def written(used):
        predict_pairs(flairs, tmp_path / "out", model=used)
        (path,) = (tmp_path / "out").rglob("*desc-new_mask.json")
        return path.stat().st_mtime_ns, json.loads(path.read_text())["Settings"]

    assert "further_scans" not in written(model)[1]  # one contrast, recorded as ever
    shutil.rmtree(tmp_path / "out")
    both = replace(model, recipe=replace(model.recipe, scans=("flair", "t1w")))
    before = written(both)
    assert written(both) == before
    write_volume(tmp_path / "sub-a_ses-1_T1w.nii.gz", Volume(head("c"), GRID))
    after = written(both)
    assert after[0] > before[0]
    assert after[1]["scans"] == before[1]["scans"]
    assert after[1]["further_scans"][0] != before[1]["further_scans"][0]
    assert after[1]["further_scans"][1] == before[1]["further_scans"][1]
