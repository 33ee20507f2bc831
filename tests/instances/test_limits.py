"""Limits that are NaN, infinite or negative are refused wherever one is taken."""

import math

import numpy as np
import pytest

from lesionwise.instances.confluent import Acls
from lesionwise.instances.filters import DropSmall
from lesionwise.instances.limits import check_limits
from lesionwise.instances.matching import match, relate
from lesionwise.instances.offsets import OffsetVoting
from lesionwise.instances.table import overlap_table
from lesionwise.metrics.challenge import ChallengeRules
from lesionwise.metrics.slices import classify, slice_table
from lesionwise.metrics.surface import distances_between_edges, hausdorff_mm, surface_dice
from lesionwise.types import Grid, InputError, Instances, LesionMaps

ONE = np.ones((2, 2, 2), dtype=np.int32)
GRID = Grid(ONE.shape, np.eye(4))
TABLE = overlap_table(ONE, ONE)
DISTANCES = distances_between_edges(ONE > 0, ONE > 0, (1.0, 1.0, 1.0))
SLICES = slice_table(Instances(ONE, GRID), Instances(ONE, GRID))
MAPS = LesionMaps(ONE.astype(np.float32), GRID)

TAKERS = {
    "min_volume_mm3": lambda limit: DropSmall(min_volume_mm3=limit),
    "min_extent_mm": lambda limit: DropSmall(min_extent_mm=limit),
    "center_threshold": lambda limit: OffsetVoting(center_threshold=limit),
    "reach_vox": lambda limit: OffsetVoting(reach_vox=limit),
    "fragment_mm3": lambda limit: OffsetVoting(fragment_mm3=limit),
    "sigma_vox": lambda limit: Acls(sigma_vox=limit)(MAPS, ONE > 0),
    "threshold": lambda limit: match(TABLE, threshold=limit),
    "min_overlap_fraction": lambda limit: relate(TABLE, limit),
    "alpha": lambda limit: ChallengeRules(alpha=limit),
    "percentile": lambda limit: hausdorff_mm(DISTANCES, limit),
    "tolerance_mm": lambda limit: surface_dice(DISTANCES, limit),
    "threshold of slices": lambda limit: classify(SLICES, limit),
}


@pytest.mark.parametrize("limit", [math.nan, math.inf, -math.inf, -1.0])
@pytest.mark.parametrize("taker", TAKERS)
def test_a_limit_that_is_none_is_refused_by_its_name(taker, limit):
    with pytest.raises(ValueError, match=taker.split(" ")[0]):
        TAKERS[taker](limit)


def test_none_and_zero_are_limits():
    check_limits(a=None, b=0, c=0.0)


def test_the_largest_value_is_named():
    with pytest.raises(InputError, match=r"share: 1.5 is not a finite number from 0 to 1"):
        check_limits(most=1, share=1.5)
