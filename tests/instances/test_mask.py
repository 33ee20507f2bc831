"""The mask of a probability map."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lesionwise.instances.components import connected_components
from lesionwise.instances.mask import lesion_mask
from lesionwise.types import InputError

MAPS = arrays(np.float32, (4, 5, 6), elements=st.floats(0, 1, width=32))


def test_a_region_stays_where_its_peak_reaches_the_limit() -> None:
    probability = np.zeros((3, 3, 9), dtype=np.float32)
    probability[1, 1, :3] = 0.6, 0.9, 0.6
    probability[1, 1, 5:8] = 0.6, 0.89, 0.6
    mask = lesion_mask(probability, 0.5, min_peak=float(np.float32(0.9)))
    assert np.flatnonzero(mask[1, 1]).tolist() == [0, 1, 2]


def test_a_voxel_of_exactly_the_threshold_is_no_lesion() -> None:
    probability = np.full((1, 1, 2), 0.5)
    probability[0, 0, 1] = np.nextafter(0.5, 1)
    assert lesion_mask(probability, 0.5).tolist() == [[[False, True]]]


def test_regions_that_meet_at_a_corner_share_their_peak_only_with_26_neighbors() -> None:
    probability = np.zeros((2, 2, 2))
    probability[0, 0, 0], probability[1, 1, 1] = 0.95, 0.6
    assert lesion_mask(probability, 0.5, 0.9).sum() == 2
    assert lesion_mask(probability, 0.5, 0.9, connectivity=6).sum() == 1


def test_an_empty_map_gives_an_empty_mask() -> None:
    assert not lesion_mask(np.zeros((2, 2, 2)), 0.5, 0.9).any()


@given(MAPS, st.floats(0.1, 0.9), st.floats(0, 1))
def test_every_region_that_stays_is_whole_and_has_its_peak(
    probability: np.ndarray, threshold: float, min_peak: float
) -> None:
    labels = connected_components(probability > threshold)
    mask = lesion_mask(probability, threshold, min_peak)
    for label in range(1, labels.max() + 1):
        region = labels == label
        assert mask[region].all() == (probability[region].max() >= min_peak)
        assert mask[region].any() == mask[region].all()
    assert not mask[labels == 0].any()


@pytest.mark.parametrize("limits", [(1.5, 0), (-0.1, 0), (0.5, 2), (0.5, float("nan"))])
def test_limits_outside_0_to_1_are_refused(limits: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="from 0 to 1"):
        lesion_mask(np.zeros((1, 1, 1)), *limits)
