"""Whole volumes: normalization after augmentation, patches cut last."""

import numpy as np
import pytest
import torch

from lesionwise.learning.dataset import Case, PatchDataset, in_order
from lesionwise.learning.intensity_transforms import Brightness, Compose
from lesionwise.learning.normalization import ClipToRange, WholeVolume
from lesionwise.learning.samplers import PatchSampling, WeightedSampling
from lesionwise.learning.spatial_transforms import RandomAffine, SpatialAugmentation
from lesionwise.learning.targets import LesionMask
from lesionwise.types import Grid, Study, Visit, Volume


def study(shape=(12, 10, 8), spacing=(1.0, 1.0, 2.0)):
    rng = np.random.default_rng(0)
    grid = Grid(shape, np.diag([*spacing, 1.0]))
    brain = np.zeros(shape, bool)
    brain[2:-2, 2:-2, 1:-1] = True
    new = np.zeros(shape, np.int32)
    new[4:7, 3:5, 2:4] = 1
    visits = tuple(
        Visit(
            {"flair": Volume((brain * rng.uniform(50, 100, shape)).astype(np.float32), grid)},
            brain=Volume(brain, grid),
        )
        for _ in range(2)
    )
    return Study("a", visits, {"new": Volume(new, grid)})


def test_percentiles_go_to_the_ends_of_the_range():
    image = np.arange(1001.0)
    seen = ClipToRange(low=10, high=90, onto=(-1, 1))(image)
    assert seen[0] == seen[100] == -1
    assert seen[900] == seen[1000] == 1
    assert seen[500] == pytest.approx(0, abs=1e-6)


def test_a_constant_image_becomes_the_middle_of_the_range():
    assert (ClipToRange()(np.full((2, 2, 2), 7.0)) == 0).all()


def test_axes_in_another_order_keep_what_belongs_together():
    case = Case(study(), ("flair",), "new")
    turned = in_order(case, (2, 0, 1))
    assert turned.shape == (8, 12, 10)
    assert turned.spacing_mm == (2.0, 1.0, 1.0)
    np.testing.assert_allclose(turned.centers_vox, case.centers_vox[:, [2, 0, 1]])
    assert turned.instances.sum() == case.instances.sum()
    assert turned.brain is not None
    assert turned.brain.shape == turned.shape


def dataset(spatial=None, intensity=None, sampling=None, whole=None, size=(6, 6, 6)):
    return PatchDataset(
        [study()], ("flair",), LesionMask(), size, sampling or PatchSampling(),
        spatial, intensity, 0, finds="new", whole=whole,
    )  # fmt: skip


def test_a_patch_of_a_whole_volume_is_normalized_as_prediction_normalizes():
    normalize = ClipToRange(low=0.0, high=100.0)
    patches = dataset(whole=WholeVolume(normalize))
    expected = np.stack([normalize(image) for image in patches.cases[0].images])
    patch = patches[3]["image"].numpy()
    places = np.lib.stride_tricks.sliding_window_view(expected[0], (6, 6, 6)).reshape(-1, 6, 6, 6)
    assert np.isclose(places, patch[0], atol=1e-5).all(axis=(1, 2, 3)).any()


def test_a_factor_before_normalization_is_normalized_away():
    whole = WholeVolume(ClipToRange(low=0.0, high=100.0))
    plain = dataset(whole=whole, size=(12, 10, 8))[5]["image"]
    brighter = Compose((Brightness((3.0, 3.0)),))
    changed = dataset(intensity=brighter, whole=whole, size=(12, 10, 8))[5]["image"]
    torch.testing.assert_close(changed, plain)


def test_lesions_move_with_the_image():
    bright = study()
    for visit in bright.visits:
        visit.scans["flair"].array[bright.changes["new"].array > 0] = 1000
    patches = PatchDataset(
        [bright], ("flair",), LesionMask(), (8, 8, 8), WeightedSampling(),
        SpatialAugmentation(axes="permute", affine=None, elastic=None), None, 0, finds="new",
        whole=WholeVolume(ClipToRange(low=0.0, high=100.0)),
    )  # fmt: skip
    for number in range(20):
        patch = patches[number]
        inside = patch["mask"][0] > 0
        assert inside.any()
        assert ((patch["image"][1] > 0.9) == inside).all()


@pytest.mark.parametrize("whole", [None, WholeVolume(ClipToRange())])
def test_a_numbered_patch_is_always_the_same(whole):
    make = dataset(
        SpatialAugmentation(axes="permute"),
        Compose((Brightness((0.5, 2.0)),)),
        WeightedSampling(),
        whole,
    )
    torch.testing.assert_close(make[7]["image"], make[7]["image"])
    assert make[7]["image"].shape == (2, 6, 6, 6)


def test_a_copy_for_another_process_cuts_the_same_patches():
    import pickle

    from lesionwise.learning.dataset import PreparedStudies

    patches = dataset(SpatialAugmentation(affine=RandomAffine(0.5, shear=0.1), elastic=None))
    state = patches.__getstate__()
    assert "cases" not in state
    twin = PatchDataset.__new__(PatchDataset)
    twin.__setstate__(state)
    torch.testing.assert_close(twin[2]["image"], patches[2]["image"])
    assert pickle.loads(pickle.dumps(PreparedStudies(()))) == PreparedStudies(())
