"""A network that is asked about candidates alone."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from engine import METHOD, PAIRS, dice, pair_of
from torch import nn

from lesionwise.change.candidates import BrighterAtFollowup, MapComponents
from lesionwise.learning.candidate_crops import (
    AsManyFalse,
    Box,
    CandidateCrops,
    CenteredBoxes,
    PaddedBoxes,
    UnequalCrops,
)
from lesionwise.learning.losses import CrossEntropy
from lesionwise.learning.objective import MeanOverCrops, Supervised
from lesionwise.learning.targets import CandidateClass, LesionMask
from lesionwise.methods.candidate_network import (
    CandidateNetwork,
    NearestCenter,
    ScoreOfCandidate,
)
from lesionwise.networks.blocks import Head
from lesionwise.types import Grid, RunContext, TrainingData, all_methods

RISEN = BrighterAtFollowup(above=1.0, min_vox=2)
CROPS = CandidateCrops(RISEN, PaddedBoxes(2), size_vox=(16, 16, 16))


class Small(nn.Module):
    """Two convolutions without pooling."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(2, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU())
        self.head = Head(8, 2)

    def forward(self, image):
        return self.head(self.body(image))


class Judge(Small):
    """One pair of logits for a crop."""

    def forward(self, image):
        return self.head(self.body(image).amax(dim=(2, 3, 4), keepdim=True))


SEGMENTS = CandidateNetwork(
    replace(
        PAIRS,
        network=Small,
        samples=UnequalCrops(CROPS, crops_per_batch=4, per_epoch=20),
        objective=MeanOverCrops(Supervised(LesionMask(), CrossEntropy())),
    )
)
JUDGES = CandidateNetwork(
    replace(
        PAIRS,
        network=Judge,
        samples=CandidateCrops(
            MapComponents("flair", above=1.0, min_vox=20),
            CenteredBoxes(),
            size_vox=(8, 8, 8),
            batch_size=4,
            per_epoch=40,
        ),
        objective=Supervised(CandidateClass(), CrossEntropy()),
    ),
    merge=ScoreOfCandidate(),
)


def truth(study):
    return study.changes["new"].array > 0


@pytest.mark.parametrize("method", [SEGMENTS, JUDGES], ids=["segments", "judges"])
def test_it_finds_again_what_it_learned(method, tmp_path):
    run = RunContext(tmp_path)
    method.fit(TrainingData([pair_of(0), pair_of(1)], [pair_of(2)]), run)
    predictor = method.load(run)
    for number in (0, 1):
        maps = predictor(pair_of(number))
        assert maps.probability.dtype == np.float32
        assert dice(maps.probability > 0.5, truth(pair_of(number))) > 0.9


def test_a_study_without_candidates_has_no_lesions(tmp_path):
    run = RunContext(tmp_path)
    few = replace(SEGMENTS.network, optimization=replace(PAIRS.optimization, epochs=1))
    method = replace(SEGMENTS, network=few)
    method.fit(TrainingData([pair_of(0)]), run)
    study = pair_of(1)
    still = replace(study, visits=(study.baseline, study.baseline))
    assert not method.load(run)(still).probability.any()


def test_the_network_is_its_member():
    assert all_methods(SEGMENTS) == (SEGMENTS, SEGMENTS.network)
    assert not SEGMENTS.uses_validation


def test_other_samples_are_refused():
    with pytest.raises(ValueError, match="crops around candidates"):
        CandidateNetwork(METHOD)


LABELS = np.zeros((9, 4, 4), dtype=np.int32)


def filled(box, value):
    return np.full(box.size, value, dtype=np.float32)


def test_where_crops_overlap_the_nearer_center_counts():
    small, large = Box((0, 0, 0), (4, 4, 4)), Box((2, 0, 0), (7, 4, 4))
    crops = [(1, large, filled(large, 0.2)), (2, small, filled(small, 0.9))]
    merged = NearestCenter()(crops, LABELS, Grid(LABELS.shape, np.eye(4)))
    # centers at i = 5 and i = 1.5: the border lies at 3.25
    np.testing.assert_allclose(merged[:, 0, 0], [0.9] * 4 + [0.2] * 5)


def test_distances_are_in_mm_and_the_first_of_two_equal_ones_counts():
    one, other = Box((0, 0, 0), (3, 1, 1)), Box((0, 0, 0), (1, 3, 1))
    crops = [(1, one, filled(one, 0.1)), (2, other, filled(other, 0.8))]
    square = NearestCenter()(crops, LABELS, Grid(LABELS.shape, np.eye(4)))
    assert square[0, 0, 0] == np.float32(0.1)
    wide = NearestCenter()(crops, LABELS, Grid(LABELS.shape, np.diag([3.0, 1.0, 1.0, 1.0])))
    assert wide[0, 0, 0] == np.float32(0.8)


def test_an_oblique_grid_measures_as_a_straight_one():
    rng = np.random.default_rng(0)
    boxes = [Box((0, 0, 0), (5, 3, 4)), Box((2, 1, 0), (6, 3, 3)), Box((4, 0, 1), (5, 4, 3))]
    crops = [(n, b, rng.random(b.size).astype("f4")) for n, b in enumerate(boxes, start=1)]
    turned = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = turned @ np.diag([1.0, 2.0, 3.0])
    straight = Grid(LABELS.shape, np.diag([1.0, 2.0, 3.0, 1.0]))
    merged = NearestCenter()(crops, LABELS, straight)
    np.testing.assert_array_equal(
        NearestCenter()(crops, LABELS, Grid(LABELS.shape, affine)), merged
    )


def test_a_crop_beyond_the_volume_gives_what_lies_within():
    box = Box((-1, 0, 0), (3, 4, 4))
    values = np.arange(48, dtype=np.float32).reshape(box.size)
    merged = NearestCenter()([(1, box, values)], LABELS, Grid(LABELS.shape, np.eye(4)))
    np.testing.assert_array_equal(merged[:2], values[1:])
    assert not merged[2:].any()


def test_a_judged_candidate_has_its_score_everywhere():
    labels = LABELS.copy()
    labels[0, 0, 0], labels[5:7, 1, 1] = 1, 2
    crops = [
        (n, Box((0, 0, 0), (1, 1, 1)), filled(Box((0, 0, 0), (1, 1, 1)), n / 4)) for n in (1, 2)
    ]
    scores = ScoreOfCandidate()(crops, labels, Grid(labels.shape, np.eye(4)))
    np.testing.assert_array_equal(scores, labels / 4)


def test_fields_can_be_reduced_like_those_of_any_method():
    assert isinstance(SEGMENTS.network.samples, UnequalCrops)
    assert SEGMENTS.crops == CROPS
    assert SEGMENTS.crops.balance == AsManyFalse()
    assert partial(Small)().head.out_channels == 2
