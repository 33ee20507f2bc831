"""The lesion mask of a probability map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lesionwise.instances.components import DEFAULT_CONNECTIVITY, connected_components
from lesionwise.instances.limits import check_limits
from lesionwise.types import BoolArray


def lesion_mask(
    probability: NDArray[np.floating],
    threshold: float,
    min_peak: float = 0.0,
    connectivity: int = DEFAULT_CONNECTIVITY,
) -> BoolArray:
    """Voxels whose probability exceeds a threshold, in regions that the network is sure about.

    A connected region of ``probability > threshold`` stays where its highest probability is at
    least ``min_peak`` (hysteresis thresholding). So a low threshold draws the border of a lesion
    and a high peak decides whether it is one.

    Args:
        probability: (I, J, K) float, 0 to 1; a voxel that is not a number is no lesion.
        threshold: a voxel of exactly the threshold is no lesion.
        min_peak: 0 keeps every region; a peak of exactly ``min_peak`` keeps its region.
        connectivity: of the regions, 6, 18 or 26.

    Returns:
        (I, J, K) bool; all False where nothing exceeds the threshold.

    Raises:
        InputError: If a limit does not lie between 0 and 1.
        ValueError: If the connectivity is unknown.

    >>> lesion_mask(np.array([[[0.6, 0.95, 0.1, 0.6]]]), 0.5, min_peak=0.9)
    array([[[ True,  True, False, False]]])
    """
    check_limits(most=1, threshold=threshold, min_peak=min_peak)
    mask = np.asarray(probability > threshold)
    if min_peak <= threshold or not mask.any():
        return mask
    labels = connected_components(mask, connectivity)
    inside = labels[mask]
    peaks = np.zeros(int(inside.max()) + 1, dtype=probability.dtype)
    np.maximum.at(peaks, inside, probability[mask])
    mask[mask] = (peaks >= min_peak)[inside]
    return mask
