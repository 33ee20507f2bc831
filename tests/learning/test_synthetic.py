import cc3d
import numpy as np
import pytest
import torch
from engine import pair_of, unlabelled, visit_of
from torch import nn

from lesionwise.learning.intensity_transforms import Compose, Shift
from lesionwise.learning.losses import Dice
from lesionwise.learning.objective import Supervised
from lesionwise.learning.samplers import PatchSampling
from lesionwise.learning.samples import Augmentation, Reading, SampleRequest, TrainingVolumes
from lesionwise.learning.spatial_transforms import SpatialAugmentation
from lesionwise.learning.synthetic import (
    AwayFromLesions,
    OnSyntheticPairs,
    PatchesToFill,
    Refill,
    SyntheticPairs,
    added_lesions,
    ellipsoids,
    fates,
    painted_pair,
)
from lesionwise.learning.targets import LesionMask
from lesionwise.types import Auxiliary, InputError, TrainingData

READING = Reading(("flair@followup",), "lesions")
OBJECTIVE = OnSyntheticPairs(Supervised(LesionMask(), Dice()))
DATA = TrainingData([visit_of(seed, side=24) for seed in range(3)])


def rng(seed=0):
    return np.random.default_rng(seed)


def lesions():
    """Nine lesions, far apart."""
    mask = np.zeros((24, 24, 24), dtype=bool)
    for i in (2, 10, 18):
        for j in (2, 10, 18):
            mask[i : i + 3, j : j + 3, 8:11] = True
    return mask


# --- fates ---


def test_each_lesion_stays_or_goes_whole():
    mask = lesions()
    remove, seen = fates(mask, rng(3))
    labels = cc3d.connected_components(mask, connectivity=26)
    for visit in range(2):
        np.testing.assert_array_equal(remove[visit] | seen[visit], mask)
        assert not (remove[visit] & seen[visit]).any()
        for label in range(1, 10):
            assert len(set(seen[visit][labels == label].tolist())) == 1


def test_all_four_fates_are_equally_likely():
    mask = lesions()
    counts = np.zeros((2, 2))
    for seed in range(200):
        _, (first, second) = fates(mask, rng(seed))
        for i in (2, 10, 18):
            for j in (2, 10, 18):
                counts[int(first[i, j, 8]), int(second[i, j, 8])] += 1
    assert counts.sum() == 1800
    assert counts.min() > 0.8 * 450


def test_without_lesions_nothing_happens():
    empty = np.zeros((4, 4, 4), dtype=bool)
    remove, seen = fates(empty, rng())
    assert not remove.any()
    assert not seen.any()
    assert added_lesions(np.ones((4, 4, 4), np.float32), empty, PAIRS, rng()) == []


# --- added lesions ---

PAIRS = SyntheticPairs((16, 16, 16), added=3, reach_vox=12, per_epoch=10)


def test_added_lesions_lie_in_tissue_apart_from_all_others():
    mask = np.zeros((32, 32, 32), dtype=bool)
    mask[14:17, 14:17, 14:17] = True
    scan = np.full(mask.shape, 0.2, dtype=np.float32)
    scan[:, :, :12] = -2.5  # fluid
    scan[:, :12] = 0  # outside the brain
    counted = 0
    for seed in range(40):
        taken = mask.copy()
        for added in added_lesions(scan, mask, PAIRS, rng(seed)):
            counted += 1
            assert added.sum() == 27
            assert not added[:, :, :12].any()
            assert not added[:, :12].any()
            apart = cc3d.connected_components(taken | added, connectivity=26)
            assert apart.max() == cc3d.connected_components(taken, connectivity=26).max() + 1
            taken |= added
    assert counted > 20


# --- the samples of the two networks ---


def test_the_generator_is_shown_noise_for_lesions_and_where_they_were():
    samples = PatchesToFill("lesions", (16, 16, 16), sampling=PatchSampling(1.0))
    sample = samples.open(DATA, SampleRequest(READING, Refill(), 0))[0]
    image, original, region = sample["image"], sample["original"][0], sample["region"][0]
    assert image.shape == (2, 16, 16, 16)
    assert bool((image[1] == region).all())
    assert bool(region.any())
    assert bool((image[0] == original)[region == 0].all())
    assert not bool((image[0] == original)[region > 0].any())
    assert float(original[region > 0].mean()) > 1.5  # a lesion; the noise has a mean of 0
    assert abs(float(image[0][region > 0].mean())) < 0.5


def test_the_inpainter_is_shown_noise_where_no_lesion_is():
    samples = PatchesToFill("healthy", (16, 16, 16), sampling=PatchSampling(1.0))
    source = samples.open(DATA, SampleRequest(READING, Refill(), 0))
    for number in range(8):
        sample = source[number]
        assert sample["image"].shape == (1, 16, 16, 16)
        noisy = sample["image"][0] != sample["original"][0]
        assert bool((noisy == (sample["region"][0] > 0)).all())
        assert float(sample["original"][0][noisy].mean()) < 0.5


def test_intensities_are_altered_in_the_input_alone():
    brighter = Augmentation(intensity=Compose((Shift((3.0, 3.0), relative=False),)))
    samples = PatchesToFill("lesions", (16, 16, 16), augmentation=brighter)
    plain = PatchesToFill("lesions", (16, 16, 16))
    one = samples.open(DATA, SampleRequest(READING, Refill(), 5))[1]
    other = plain.open(DATA, SampleRequest(READING, Refill(), 5))[1]
    torch.testing.assert_close(one["original"], other["original"])
    rest = one["region"][0] == 0
    torch.testing.assert_close(one["image"][0][rest], one["original"][0][rest] + 3)


def test_patches_away_from_lesions_hold_none_where_there_is_room():
    volume = TrainingVolumes(list(DATA.training), READING.scans, "lesions")[0]
    for seed in range(20):
        i, j, k = AwayFromLesions().start(volume, (6, 6, 6), rng(seed))
        assert not volume.instances[i : i + 6, j : j + 6, k : k + 6].any()
    i, j, k = AwayFromLesions().start(volume, (24, 24, 24), rng())
    assert (i, j, k) == (0, 0, 0)  # no room: the patch with the fewest


def test_ellipsoids_stay_inside():
    inside = np.zeros((20, 20, 20), dtype=bool)
    inside[4:16, 4:16, 4:16] = True
    found = ellipsoids(inside, 5, (2.0, 5.0), rng())
    assert found.any()
    assert not (found & ~inside).any()
    assert not ellipsoids(np.zeros_like(inside), 5, (2.0, 5.0), rng()).any()


def test_errors_in_the_noise_count_besides_those_of_the_whole():
    original = torch.zeros(1, 1, 2, 2, 2)
    region = torch.zeros_like(original)
    region[..., 0, 0] = 1  # two of eight voxels
    batch = {"image": region, "original": original, "region": region}
    losses = Refill(region=2.0)(nn.Identity(), {}, batch)
    assert float(losses["whole"]) == 0.25
    assert float(losses["region"]) == 1
    assert float(losses["total"]) == 2.25


# --- pairs ---


def opened(**changed):
    return SyntheticPairs((20, 20, 20), per_epoch=10, **changed).open(
        DATA, SampleRequest(Reading(("flair",), "new"), OBJECTIVE, 0)
    )


def test_what_is_new_lies_in_the_second_visit_alone():
    source = opened(added=2)
    news = 0
    for number in range(20):
        sample = source[number]
        new = sample["mask"][0] > 0
        remove, add = sample["remove"] > 0, sample["add"] > 0
        expected = (remove[0] & ~remove[1]) | (add[1] & ~add[0])
        assert bool((new == expected).all())
        assert not bool((remove[0] & add[0]).any())
        news += int(new.any())
    assert 5 < news < 20


def test_a_sample_is_the_same_whenever_it_is_asked_for():
    one, other = opened()[4], opened()[4]
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name])


def test_both_copies_come_from_one_place_and_are_altered_each_by_itself():
    plain = opened(augmentation=Augmentation(spatial=SpatialAugmentation()))[3]["image"]
    assert torch.equal(plain[0], plain[1])
    shift = Augmentation(intensity=Compose((Shift((0.0, 1.0), relative=False),)))
    altered = opened(augmentation=shift)[3]["image"]
    assert not torch.equal(altered[0], altered[1])


def test_the_last_visit_of_a_pair_is_taken_for_a_single_scan():
    pair = pair_of()
    last = visit_of(side=16).followup
    pair = type(pair)(pair.subject, (pair.baseline, last), pair.changes)
    samples = SyntheticPairs((16, 16, 16))
    source = samples.open(
        TrainingData([pair]), SampleRequest(Reading(("flair",), "new"), OBJECTIVE, 0)
    )
    assert torch.equal(source[0]["image"][0], torch.from_numpy(last.scans["flair"].array))


def test_studies_without_outlined_lesions_are_refused_with_what_is_missing():
    samples = SyntheticPairs((8, 8, 8), auxiliary=Auxiliary("lesions", required=False))
    data = TrainingData([unlabelled(visit_of())])
    with pytest.raises(InputError, match=r"no lesion mask .*--auxiliary lesions=DATA"):
        samples.open(data, SampleRequest(Reading(("flair",), "new"), OBJECTIVE, 0))


# --- painting ---


def sevens(patches):
    assert patches.shape[1] == 1
    return torch.full_like(patches, 7.0)


def nines(patches):
    assert patches.shape[1] == 2
    return torch.full_like(patches[:, :1], 9.0)


def test_lesions_are_painted_over_and_in_with_their_rim_and_nothing_else_changes():
    shape = (1, 2, 12, 12, 12)
    batch = {
        "image": torch.ones(shape), "remove": torch.zeros(shape), "add": torch.zeros(shape),
        "noise": torch.randn(1, 1, 12, 12, 12),
    }  # fmt: skip
    batch["remove"][0, 0, 2, 2, 2] = 1
    batch["add"][0, 1, 8, 8, 8] = 1
    batch["image"][:, :, 8, 8, 9] = 0  # outside the brain
    first, second = painted_pair(sevens, nines, batch)[0]
    assert int((first == 7).sum()) == 7  # the voxel and six neighbors
    assert int((first == 1).sum()) == 12**3 - 8
    assert int((second == 9).sum()) == 6  # one neighbor lies outside
    assert float(second[8, 8, 9]) == 0
    assert int((second == 1).sum()) == 12**3 - 7


def test_the_networks_see_noise_where_they_are_to_paint():
    shape = (1, 2, 6, 6, 6)
    batch = {
        "image": torch.ones(shape), "remove": torch.zeros(shape), "add": torch.zeros(shape),
        "noise": torch.full((1, 1, 6, 6, 6), 5.0),
    }  # fmt: skip
    batch["remove"][0, 0, 2, 2, 2] = 1
    batch["add"][0, 0, 4, 4, 4] = 1
    shown = []

    def paint(patches):
        shown.append(patches)
        return torch.zeros_like(patches[:, :1])

    painted_pair(paint, paint, batch)
    assert [int((p[:, 0] == 5).sum()) for p in shown] == [7, 1]
    assert torch.equal(shown[1][:, 1:], batch["add"][:, :1])


def test_no_gradient_reaches_the_networks_that_paint_but_the_one_that_finds():
    finder, painter, adder = nn.Conv3d(2, 2, 1), nn.Conv3d(1, 1, 1), nn.Conv3d(2, 1, 1)
    source = opened(added=2)
    batch = {name: value[None] for name, value in source[0].items()}
    losses = OBJECTIVE(finder, {"inpainter": painter, "generator": adder}, batch)
    losses["total"].backward()
    assert finder.weight.grad is not None
    assert painter.weight.grad is None
    assert adder.weight.grad is None
