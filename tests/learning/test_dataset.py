"""Prepared studies on disk, and patches that depend on their number alone."""

import numpy as np
import pytest
import torch

from lesionwise.learning.dataset import (
    PatchDataset,
    PreparedStudies,
    channel_names,
    channels,
    instances_of_visit,
    read_prepared,
    write_prepared,
)
from lesionwise.learning.intensity_transforms import other_scanners
from lesionwise.learning.samplers import PatchSampling
from lesionwise.learning.spatial_transforms import SpatialAugmentation
from lesionwise.learning.targets import CentersAndOffsets
from lesionwise.types import Grid, InputError, Study, Visit, Volume


def _study(shape=(20, 18, 16), label="instances"):
    rng = np.random.default_rng(0)
    grid = Grid(shape, np.diag([1.0, 1.0, 2.0, 1.0]))
    labels = np.zeros(shape, dtype=np.int32)
    labels[4:7, 4:7, 4:7] = 300
    labels[12:15, 4:7, 4:7] = 2
    array = labels > 0 if label == "lesions" else labels
    visit = Visit(
        scans={"flair": Volume(rng.standard_normal(shape).astype(np.float32), grid)},
        labels={label: Volume(array, grid)},
        brain=Volume(np.ones(shape, dtype=bool), grid),
        session="01",
    )
    return Study("a", (visit,))


def _patches(study, seed=0, size=(8, 8, 8)):
    return PatchDataset(
        [study], ("flair",), CentersAndOffsets(), size, PatchSampling(0.5),
        SpatialAugmentation(), other_scanners(), seed,
    )  # fmt: skip


def test_a_study_comes_back_as_it_was_kept(tmp_path):
    study = _study()
    write_prepared(study, tmp_path / "a")
    read = read_prepared(tmp_path / "a")
    assert read.subject == "a"
    assert read.followup.session == "01"
    volume = study.followup.scans["flair"]
    np.testing.assert_allclose(read.followup.scans["flair"].array, volume.array, atol=2e-3)
    assert read.followup.scans["flair"].grid.matches(volume.grid)
    np.testing.assert_array_equal(
        read.followup.labels["instances"].array, study.followup.labels["instances"].array
    )
    assert read.followup.brain is not None
    assert read.followup.brain.array.dtype == bool


def test_keeping_a_study_again_replaces_it(tmp_path):
    write_prepared(_study(label="lesions"), tmp_path / "a")
    write_prepared(_study(), tmp_path / "a")
    assert set(read_prepared(tmp_path / "a").followup.labels) == {"instances"}
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_an_incomplete_folder_is_named(tmp_path):
    write_prepared(_study(), tmp_path / "a")
    (tmp_path / "a" / "visit-0_scan-flair.npy").unlink()
    with pytest.raises(InputError, match="not a prepared study"):
        read_prepared(tmp_path / "a")


def test_prepared_studies_are_read_one_by_one(tmp_path):
    write_prepared(_study(), tmp_path / "a")
    studies = PreparedStudies((tmp_path / "a", tmp_path / "missing"))
    assert studies[0].subject == "a"
    assert len(studies[:1]) == 1
    with pytest.raises(InputError):
        studies[1]


def test_a_mask_without_instances_gives_its_components():
    instances = instances_of_visit(_study(label="lesions").followup)
    assert sorted(np.unique(instances)) == [0, 1, 2]


def test_a_visit_without_a_mask_is_a_fault():
    study = _study(label="tissue")
    with pytest.raises(InputError, match="no lesion mask"):
        instances_of_visit(study.followup)


def test_channels_are_every_visit_then_every_scan():
    visit = _study().followup
    other = Visit(scans={"flair": visit.scans["flair"], "t1w": visit.scans["flair"]})
    with pytest.raises(InputError, match="sub-a: no t1w scan"):
        channels(Study("a", (visit, other)), ("flair", "t1w"))
    assert len(channels(Study("a", (other, other)), ("flair", "t1w"))) == 4


def test_a_patch_depends_on_seed_and_number_alone():
    study = _study()
    first, second = _patches(study), _patches(study)
    second[3], second[1]
    for name, tensor in first[7].items():
        torch.testing.assert_close(tensor, second[7][name], rtol=0, atol=0)
    assert not torch.equal(first[7]["image"], first[8]["image"])
    assert not torch.equal(first[7]["image"], _patches(study, seed=1)[7]["image"])


def test_a_patch_has_the_shapes_the_losses_take():
    patch = _patches(_study())[0]
    assert patch["image"].shape == (1, 8, 8, 8)
    assert patch["mask"].shape == patch["heatmap"].shape == (1, 8, 8, 8)
    assert patch["offsets"].shape == (3, 8, 8, 8)
    assert {t.dtype for t in patch.values()} == {torch.float32}


def test_a_patch_may_be_larger_than_the_volume():
    assert _patches(_study(), size=(32, 32, 32))[0]["image"].shape == (1, 32, 32, 32)


def test_channels_are_named_by_scan_and_visit():
    assert channel_names(("flair", "t1w"), 1) == ("flair@followup", "t1w@followup")
    assert channel_names(("flair",), 2) == ("flair@baseline", "flair@followup")
    assert channel_names(("flair",), 3) == ("flair@baseline", "flair@2", "flair@followup")
