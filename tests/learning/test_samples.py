"""Samples depend on their number and the seed alone."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine import pair_of, unlabelled, visit_of

from lesionwise.io.prepared import prepared_studies, write_prepared
from lesionwise.learning.intensity_transforms import Brightness, Compose, OnChannels
from lesionwise.learning.losses import CrossEntropy
from lesionwise.learning.normalization import ClipToRange
from lesionwise.learning.objective import BySource, Supervised
from lesionwise.learning.positions import (
    EverySlice,
    InMiddleSlice,
    NonzeroPatches,
    PositivePatches,
)
from lesionwise.learning.samplers import PatchSampling, SlicesWithLesion, WeightedSampling
from lesionwise.learning.samples import (
    Augmentation,
    CombinedSamples,
    ListedPatches,
    Patches,
    Reading,
    SampleRequest,
    TrainingVolume,
    UnlabelledPatches,
    transposed,
)
from lesionwise.learning.spatial_transforms import SpatialAugmentation
from lesionwise.learning.targets import CentersAndOffsets, LesionMask
from lesionwise.types import Auxiliary, Grid, InputError, Study, TrainingData, Visit, Volume

OBJECTIVE = Supervised(CentersAndOffsets(), CrossEntropy())
MASKS = Supervised(LesionMask(), CrossEntropy())
ONE = Reading(("flair",))
TWO = Reading(("flair",), "new")
SOME = Patches((8, 8, 8), sampling=PatchSampling(0.5), augmentation=Augmentation(
    SpatialAugmentation(), Compose((Brightness((0.5, 2.0), probability=0.5),))
))  # fmt: skip


def opened(samples=SOME, reading=ONE, study=None, seed=0, objective=OBJECTIVE, **more):
    data = TrainingData([study or visit_of()], **more)
    return samples.open(data, SampleRequest(reading, objective, seed))


def test_a_patch_depends_on_seed_and_number_alone():
    first, second = opened(), opened()
    second[3], second[1]
    for name, tensor in first[7].items():
        torch.testing.assert_close(tensor, second[7][name], rtol=0, atol=0)
    assert not torch.equal(first[7]["image"], first[8]["image"])
    assert not torch.equal(first[7]["image"], opened(seed=1)[7]["image"])


def test_a_patch_has_the_shapes_the_losses_take():
    patch = opened()[0]
    assert patch["image"].shape == (1, 8, 8, 8)
    assert patch["mask"].shape == patch["heatmap"].shape == (1, 8, 8, 8)
    assert patch["offsets"].shape == (3, 8, 8, 8)
    assert patch["spacing_mm"].tolist() == [1.0, 1.0, 1.0]
    assert {t.dtype for t in patch.values()} == {torch.float32}


def test_a_patch_may_be_larger_than_the_volume():
    assert opened(replace(SOME, size_vox=(32,) * 3))[0]["image"].shape == (1, 32, 32, 32)


def test_axes_in_another_order_keep_what_belongs_together():
    study = pair_of()
    grid = Grid((16, 16, 16), np.diag([1.0, 2.0, 3.0, 1.0]))
    scans = tuple(
        replace(v, scans={"flair": Volume(v.scans["flair"].array, grid)}) for v in study.visits
    )
    volume = TrainingVolume(replace(study, visits=scans), ("flair",), "new")
    turned = transposed(volume, (2, 0, 1))
    assert turned.spacing_mm == (3.0, 1.0, 2.0)
    np.testing.assert_allclose(turned.centers_vox, volume.centers_vox[:, [2, 0, 1]])
    assert turned.instances.sum() == volume.instances.sum()


def whole(normalize, size=(6, 6, 6), **more):
    reading = replace(TWO, normalize=normalize)
    return opened(Patches(size, **more), reading, pair_of(), objective=MASKS)


def test_a_patch_of_a_whole_volume_is_normalized_as_prediction_normalizes():
    normalize = ClipToRange(low=0.0, high=100.0)
    patches = whole(normalize)
    expected = np.stack([normalize(image) for image in patches.volumes[0].images])
    patch = patches[3]["image"].numpy()
    windows = np.lib.stride_tricks.sliding_window_view(expected[0], (6, 6, 6))
    found = np.isclose(windows.reshape(-1, 6, 6, 6), patch[0], atol=1e-5)
    assert found.all(axis=(1, 2, 3)).any()


def test_a_gain_before_normalization_is_normalized_away():
    normalize = ClipToRange(low=0.0, high=100.0)
    gain = Augmentation(intensity=Compose((Brightness((3.0, 3.0)),)))
    plain = whole(normalize, (16, 16, 16))[5]["image"]
    gained = whole(normalize, (16, 16, 16), augmentation=gain)[5]["image"]
    torch.testing.assert_close(gained, plain)


def test_lesions_move_with_the_image():
    study = pair_of()
    for visit in study.visits:
        visit.scans["flair"].array[study.changes["new"].array > 0] = 1000
    moved = Augmentation(SpatialAugmentation(axes="permute", affine=None, elastic=None))
    samples = Patches((8, 8, 8), sampling=WeightedSampling(), augmentation=moved)
    patches = opened(samples, TWO, study, objective=MASKS)
    seen = 0
    for number in range(20):
        patch = patches[number]
        inside = patch["mask"][0] > 0
        seen += bool(inside.any())
        assert ((patch["image"][1] > 100) == inside).all()
    assert seen > 10


@pytest.mark.parametrize(
    "samples", [SOME, ListedPatches(EverySlice(), (16, 16, 1)), CombinedSamples((("a", SOME),))]
)
def test_a_copy_for_another_process_gives_the_same_samples(samples, tmp_path):
    objective = (
        BySource((("a", 1.0, OBJECTIVE),)) if isinstance(samples, CombinedSamples) else OBJECTIVE
    )
    write_prepared(visit_of(), tmp_path / "s")
    data = TrainingData(prepared_studies((tmp_path / "s",)))
    source = samples.open(data, SampleRequest(ONE, objective, 0))
    twin = pickle.loads(pickle.dumps(source))
    ours, theirs = source[2], twin[2]
    if isinstance(samples, CombinedSamples):
        ours, theirs = ours["a"], theirs["a"]
    torch.testing.assert_close(ours["image"], theirs["image"], rtol=0, atol=0)


def test_without_a_lesion_there_is_nothing_to_learn():
    study = visit_of()
    study.followup.labels["instances"].array[:] = 0
    for samples in (SOME, ListedPatches(EverySlice(), (16, 16, 1))):
        with pytest.raises(InputError, match="have no lesion"):
            opened(samples, study=study)


def test_every_slice_comes_once_an_epoch():
    source = opened(ListedPatches(EverySlice(), (16, 16, 1)), objective=MASKS)
    assert source.per_epoch == 16
    seen = [source[n]["image"][0, :, :, 0] for n in range(16)]
    scan = source.volumes[0].images[0]
    found = {k for image in seen for k in range(16) if np.array_equal(scan[:, :, k], image)}
    assert found == set(range(16))
    assert not all(torch.equal(source[n]["image"], source[16 + n]["image"]) for n in range(16))


def test_slices_of_every_plane_lie_in_their_plane():
    study = visit_of()
    samples = Patches((16, 16, 1), planes=(0, 1, 2))
    source = opened(samples, study=study, objective=MASKS)
    scan = study.followup.scans["flair"].array
    planes = set()
    for number in range(40):
        image = source[number]["image"][0, :, :, 0].numpy()
        for axis in range(3):
            if any(np.array_equal(scan.take(k, axis), image) for k in range(16)):
                planes.add(axis)
    assert planes == {0, 1, 2}


def test_positive_slices_hold_a_lesion():
    samples = ListedPatches(EverySlice(), (16, 16, 1), balance=PositivePatches())
    source = opened(samples, objective=MASKS)
    assert source.per_epoch == 9  # slices 3 to 7 and 9 to 12
    assert all(source[n]["mask"].any() for n in range(9))


def test_slices_with_lesions_come_once_as_they_are_and_once_flipped():
    flip = SpatialAugmentation(flip=1.0, affine=None, elastic=None, flip_axes=(0,))
    samples = ListedPatches(
        EverySlice(),
        (16, 16, 3),
        balance=PositivePatches(empty_fraction=0.5, times=2),
        augmentation=Augmentation(again=flip),
        has_lesion=InMiddleSlice(),
    )
    study = visit_of()
    scan = study.followup.scans["flair"].array
    source = opened(samples, study=study, objective=MASKS)
    assert source.per_epoch == 2 * 9 + 4  # slices 3 to 7 and 9 to 12, and half of seven others
    with_lesion = {*range(3, 8), *range(9, 13)}
    for epoch in (0, 1):
        seen = []
        for number in range(source.per_epoch):
            image = source[epoch * source.per_epoch + number]["image"][0, :, :, 1].numpy()
            for flipped, shown in ((False, scan), (True, scan[::-1])):
                seen += [(k, flipped) for k in range(16) if np.array_equal(shown[:, :, k], image)]
        assert len(seen) == source.per_epoch
        lesions = sorted(each for each in seen if each[0] in with_lesion)
        assert lesions == sorted((k, flip) for k in with_lesion for flip in (False, True))
        assert not any(flipped for k, flipped in seen if k not in with_lesion)


def test_validation_samples_are_not_augmented():
    strong = Augmentation(intensity=Compose((Brightness((5.0, 5.0)),)))
    samples = Patches((16, 16, 16), augmentation=strong)
    data = TrainingData([visit_of()], [visit_of(1)])
    source = samples.open(data, SampleRequest(ONE, MASKS, 0, validation=True))
    scan = data.validation[0].followup.scans["flair"].array
    np.testing.assert_array_equal(source[0]["image"][0], scan)


def test_transforms_reach_the_named_channels_alone():
    only = Augmentation(
        intensity=OnChannels(scans=("flair@followup",), effects=(Brightness((3.0, 3.0)),))
    )
    both = opened(Patches((16, 16, 16)), TWO, pair_of(), objective=MASKS)[0]["image"]
    changed = opened(Patches((16, 16, 16), augmentation=only), TWO, pair_of(), objective=MASKS)
    image = changed[0]["image"]
    torch.testing.assert_close(image[0], both[0])
    torch.testing.assert_close(image[1], 3 * both[1])


def test_further_references_are_cut_with_the_patch():
    class Seen:
        targets = None

        def make(self, sample):
            first = (sample.instances > 0)[None].astype(np.float32)
            return {"mask": first, "rater": sample.labels["rater-1"][None].astype(np.float32)}

    study = visit_of()
    visit = study.followup
    soft = Volume(
        (visit.labels["instances"].array > 0) * np.float32(0.5), visit.scans["flair"].grid
    )
    study = Study("a", (replace(visit, labels={**visit.labels, "rater-1": soft}),))
    samples = replace(SOME, references=("rater-1",), augmentation=Augmentation(
        SpatialAugmentation(affine=None, elastic=None)
    ))  # fmt: skip
    source = opened(samples, study=study, objective=Seen())
    for number in range(6):
        patch = source[number]
        torch.testing.assert_close(patch["rater"], 0.5 * patch["mask"])


def test_unlabelled_patches_need_no_reference():
    samples = UnlabelledPatches((8, 8, 8), auxiliary=Auxiliary("more", visits=2, labelled=False))
    source = opened(samples, TWO, auxiliary={"more": [unlabelled(pair_of(3))]}, objective=MASKS)
    patch = source[0]
    assert patch["image"].shape == (2, 8, 8, 8)
    assert not patch["mask"].any()
    with pytest.raises(InputError, match="--auxiliary more=DATA"):
        opened(samples, TWO)


def test_sources_together_have_a_sample_each():
    samples = CombinedSamples((("ours", SOME), ("more", UnlabelledPatches((4, 4, 4)))))
    objective = BySource((("ours", 1.0, OBJECTIVE), ("more", 1.0, MASKS)))
    sample = opened(samples, objective=objective)[0]
    assert sample["ours"]["image"].shape == (1, 8, 8, 8)
    assert sample["more"]["image"].shape == (1, 4, 4, 4)


def test_patches_that_are_not_kept_are_no_samples():
    empty = pair_of()
    half = np.arange(16) >= 8
    visits = tuple(
        replace(v, scans={"flair": Volume(v.scans["flair"].array * half, v.scans["flair"].grid)})
        for v in empty.visits
    )
    study = replace(empty, visits=visits)
    listed = ListedPatches(EverySlice(), (16, 16, 1))
    every = opened(listed, TWO, study, objective=MASKS)
    kept = opened(replace(listed, keeps=NonzeroPatches()), TWO, study, objective=MASKS)
    assert (every.per_epoch, kept.per_epoch) == (16, 8)
    assert all(kept[n]["image"].any() for n in range(8))


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_lesion_voxels_follow_the_order_of_axes(order):
    volume = TrainingVolume(pair_of(), ("flair",), "new")
    seen = transposed(volume, order)
    expected = np.argwhere(seen.instances)
    found = seen.lesion_voxels
    assert sorted(map(tuple, found)) == sorted(map(tuple, expected))


def test_a_stack_drawn_from_any_plane_shows_a_lesion_in_its_middle():
    samples = Patches((16, 16, 3), planes=(0, 1, 2), sampling=SlicesWithLesion())
    source = opened(samples, TWO, pair_of(), objective=MASKS)
    assert all(source[n]["mask"][0, :, :, 1].any() for n in range(20))


@pytest.mark.parametrize(("lesions", "dtype"), [(2, np.uint8), (300, np.uint16)])
def test_labels_that_are_kept_take_as_few_bytes_as_their_number_needs(lesions, dtype):
    labels = np.zeros(900, dtype=np.int32)
    labels[:lesions] = np.arange(1, lesions + 1)
    grid = Grid((9, 10, 10), np.eye(4))
    visit = Visit(
        {"flair": Volume(np.ones(grid.shape, np.float32), grid)},
        {"instances": Volume(labels.reshape(grid.shape), grid)},
    )
    kept = TrainingVolume(Study("a", (visit,)), ("flair",)).instances
    assert kept.dtype == dtype
    np.testing.assert_array_equal(kept.ravel(), labels)
