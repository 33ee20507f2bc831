"""Whole volumes: 48 orientations, normalization after augmentation, patches cut last."""

import numpy as np
import pytest
import torch

from lesionwise.learning.augment import view
from lesionwise.learning.dataset import Case, PatchDataset, in_order
from lesionwise.learning.effects import Effects, Gain
from lesionwise.learning.samplers import PatchSampling, WeightedSampling
from lesionwise.learning.targets import LesionMask
from lesionwise.learning.volumes import (
    AffineAugmentation,
    ClipToRange,
    Orientations,
    WholeVolume,
)
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


def test_all_48_orientations_occur_and_are_nothing_else():
    where = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(1500):
        turn = Orientations(moved=0.0)
        order = turn.order(rng)
        motion = turn.draw((3, 3, 3), (1, 1, 1), rng)
        assert motion.only_flips
        image, _ = view(
            [where.transpose(order)], np.zeros((3, 3, 3), int), (0, 0, 0), (3,) * 3, motion
        )
        seen.add(image.tobytes())
        assert image[0, 1, 1, 1] == 13
    assert len(seen) == 48


def test_half_the_motions_of_b13_are_as_likely_as_it_says():
    rng = np.random.default_rng(1)
    drawn = [
        Orientations(moved=0.75, elastic=0.2).draw((4, 4, 4), (1, 1, 1), rng) for _ in range(2000)
    ]
    bent = np.mean([m.bend is not None for m in drawn])
    still = np.mean([m.only_flips for m in drawn])
    assert bent == pytest.approx(0.15, abs=0.03)
    assert still == pytest.approx(0.25, abs=0.03)


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


def test_a_gain_before_normalization_is_normalized_away():
    whole = WholeVolume(ClipToRange(low=0.0, high=100.0))
    plain = dataset(whole=whole, size=(12, 10, 8))[5]["image"]
    gain = Effects((Gain((3.0, 3.0)),))
    gained = dataset(intensity=gain, whole=whole, size=(12, 10, 8))[5]["image"]
    torch.testing.assert_close(gained, plain)


def test_lesions_move_with_the_image():
    bright = study()
    for visit in bright.visits:
        visit.scans["flair"].array[bright.changes["new"].array > 0] = 1000
    patches = PatchDataset(
        [bright], ("flair",), LesionMask(), (8, 8, 8), WeightedSampling(),
        Orientations(moved=0.0), None, 0, finds="new",
        whole=WholeVolume(ClipToRange(low=0.0, high=100.0)),
    )  # fmt: skip
    for number in range(20):
        patch = patches[number]
        inside = patch["mask"][0] > 0
        assert inside.any()
        assert ((patch["image"][1] > 0.9) == inside).all()


@pytest.mark.parametrize("whole", [None, WholeVolume(ClipToRange())])
def test_a_numbered_patch_is_always_the_same(whole):
    make = dataset(Orientations(), Effects((Gain((0.5, 2.0)),)), WeightedSampling(), whole)
    torch.testing.assert_close(make[7]["image"], make[7]["image"])
    assert make[7]["image"].shape == (2, 6, 6, 6)


def test_a_copy_for_another_process_cuts_the_same_patches():
    import pickle

    from lesionwise.learning.dataset import PreparedStudies

    patches = dataset(AffineAugmentation(shear=0.1))
    state = patches.__getstate__()
    assert "cases" not in state
    twin = PatchDataset.__new__(PatchDataset)
    twin.__setstate__(state)
    torch.testing.assert_close(twin[2]["image"], patches[2]["image"])
    assert pickle.loads(pickle.dumps(PreparedStudies(()))) == PreparedStudies(())


def test_shear_shifts_one_axis_along_another():
    rng = np.random.default_rng(0)
    motion = AffineAugmentation(flip=0, probability=1, rotation_deg=0, shear=0.2).draw(
        (5, 5, 5), (1.0, 1.0, 1.0), rng
    )
    assert np.allclose(np.diag(motion.matrix), 1)
    assert 0 < np.abs(motion.matrix - np.eye(3)).max() <= 0.2
