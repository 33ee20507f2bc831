"""Lesions by automated confluent splitting (ACLS): the curvature of the probability map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from lesionwise.instances.components import DEFAULT_CONNECTIVITY
from lesionwise.instances.filters import split_values
from lesionwise.instances.voxels import (
    Indices,
    in_order_of_first,
    label_voxels,
    list_voxels,
    nearest_rows,
)
from lesionwise.types import BoolArray, FloatArray, Instances, LesionMaps

TRUNCATE = 4.0
"""The Gaussian ends at this many standard deviations."""

MIN_CURVATURE = 1e-7
"""An eigenvalue counts as negative below minus this.

Where a probability is saturated its true curvature is 0 and the computed one is rounding, of
about 1e-17 in float64 and up to 1e-8 from a float32 map; the sign of that must decide nothing.
In the reference vectors the weakest center has 2.5e-6.
"""


def acls_centers(probability: FloatArray, mask: BoolArray, sigma_vox: float) -> NDArray[np.int64]:
    """Voxels where the smoothed probability curves downward in every direction.

    The probability inside the mask, 0 outside it, is smoothed by a Gaussian that ends at
    4 sigma, with 0 beyond the volume. Its Hessian comes from central differences taken twice
    (one-sided at the edge of the volume). Center voxels are those whose three eigenvalues all
    lie below -1e-7; a few lie outside the mask. Computed in float64, in boxes around the
    regions of the mask, wide enough that the result is that of the whole volume.

    Args:
        probability: (I, J, K) float in [0, 1]; read in the mask only.
        mask: (I, J, K) bool.
        sigma_vox: standard deviation of the Gaussian along every axis, in voxels.

    Returns:
        (n, 3) int64 indices in C order; n may be 0, and is 0 in a volume one voxel thick.

    Raises:
        ValueError: If shapes disagree, sigma is not positive, or the probability in the mask
            is not finite.

    Source: Wynen et al. (ConfLUNet), section 2 (three negative eigenvalues). Sigma and the
    differences are those of the authors' code, which tests against 0.

    Example:
        >>> mask = np.zeros((9, 9, 9), dtype=bool)
        >>> mask[3:6, 3:6, 3:6] = True
        >>> [4, 4, 4] in acls_centers(mask.astype(np.float32), mask, sigma_vox=1.0).tolist()
        True
    """
    index = _check(probability, mask, sigma_vox)
    if len(index) == 0 or min(mask.shape) == 1:
        return np.empty((0, 3), dtype=np.int64)
    reach = int(TRUNCATE * sigma_vox + 0.5)
    flat = []
    for lesion in _regions(index, mask.shape):
        # The map is 0 further than its reach from the mask, and its Hessian two voxels on.
        low, high = _box(lesion, mask.shape, reach + 2)
        flat.append(_centers_in_box(probability, mask, sigma_vox, low, high, reach))
    found = np.unique(np.concatenate(flat))
    return np.stack(np.unravel_index(found, mask.shape), axis=1).astype(np.int64)


@dataclass(frozen=True)
class Acls:
    """Center voxels by curvature, their connected clusters, and the rest to the nearest cluster.

    Every voxel of the mask gets a label and no other voxel does. A voxel of the mask joins the
    cluster of the nearest center voxel (Euclidean, in voxels; ties: the center voxel that is
    first in C order). In the end each label is one connected piece, numbered 1 … n in C order of
    the lesions' first voxels: so a region of the mask without a center becomes a lesion of its
    own, and without any center the regions of the mask are the lesions.

    A map that holds one single value in the mask, such as a plain mask, has no curvature
    inside. It is replaced by the square root of the distance to the nearest voxel outside
    the mask (in voxels, scaled to 1 at most), which curves downward from every summit.

    Attributes:
        sigma_vox: standard deviation of the smoothing, in voxels.
        connectivity: of the clusters of center voxels: 6, 18 or 26.
        piece_connectivity: of a lesion's pieces; None leaves pieces of one cluster together.
        keep_outside: True keeps center voxels that lie outside the mask in their lesions, as
            the authors' code does.

    Source: Wynen et al. (ConfLUNet), section 2, after Dworkin et al. 2018. The authors' code keeps
    center voxels outside the mask, always splits pieces with connectivity 6, and raises an error
    where a mask has no center.
    """

    sigma_vox: float = 1.0
    connectivity: int = DEFAULT_CONNECTIVITY
    piece_connectivity: int | None = DEFAULT_CONNECTIVITY
    keep_outside: bool = False

    def __call__(self, maps: LesionMaps, mask: BoolArray) -> Instances:
        """Separate the lesions of the mask.

        Raises:
            ValueError: As ``acls_centers``.
        """
        index = _check(maps.probability, mask, self.sigma_vox)
        labels = np.zeros(mask.shape, dtype=np.int32)
        if len(index) == 0:
            return Instances(labels, maps.grid)
        probability = maps.probability
        inside = probability[tuple(index.T)]
        if inside.min() == inside.max():
            probability = summits_of_mask(mask)
        centers = acls_centers(probability, mask, self.sigma_vox)
        lesion = np.ones(len(index), dtype=np.int64)
        if len(centers):
            cluster = label_voxels(centers, mask.shape, self.connectivity) + 1
            lesion = cluster[nearest_rows(index, centers)[0]]
            if self.keep_outside:
                outside = ~mask[tuple(centers.T)]
                index = np.concatenate([index, centers[outside]])
                lesion = np.concatenate([lesion, cluster[outside]])
                order = np.argsort(np.ravel_multi_index(tuple(index.T), mask.shape))
                index, lesion = index[order], lesion[order]
        if self.piece_connectivity is not None or len(centers) == 0:
            connectivity = self.piece_connectivity or DEFAULT_CONNECTIVITY
            lesion = split_values(index, mask.shape, lesion, connectivity)
        labels[tuple(index.T)] = in_order_of_first(lesion) + 1
        return Instances(labels, maps.grid)


def summits_of_mask(mask: BoolArray) -> NDArray[np.float32]:
    """A map that stands in for the probability of a plain mask, highest deep inside lesions.

    The square root of the distance, in voxels, to the nearest voxel outside the mask, divided
    by its maximum: (I, J, K) float32 in [0, 1], 0 outside the mask. Beyond the volume is not
    outside; a mask that fills the volume is 1 everywhere.

    Example:
        >>> mask = np.zeros((7, 7, 7), dtype=bool)
        >>> mask[1:6, 1:6, 1:6] = True
        >>> summits = summits_of_mask(mask)
        >>> bool(summits[3, 3, 3] == summits.max())
        True
    """
    depth = np.zeros(mask.shape, dtype=np.float32)
    for lesion in _regions(list_voxels(mask), mask.shape):
        # The nearest voxel outside touches the region, so one voxel of margin is enough.
        low, high = _box(lesion, mask.shape, 1)
        inside = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        if inside.all():
            return np.ones(mask.shape, dtype=np.float32)
        distance = distance_transform_edt(inside)
        depth[tuple(lesion.T)] = np.sqrt(distance[tuple((lesion - low).T)])
    depth /= max(float(depth.max(initial=0)), 1.0)
    return depth


def _check(probability: FloatArray, mask: BoolArray, sigma_vox: float) -> Indices:
    """The voxels of the mask."""
    if probability.shape != mask.shape or mask.ndim != 3:
        raise ValueError(f"mask {mask.shape} does not fit the probability {probability.shape}")
    if not (np.isfinite(sigma_vox) and sigma_vox > 0):
        raise ValueError(f"sigma_vox must be positive, got {sigma_vox}")
    index = list_voxels(mask)
    if not np.isfinite(probability[tuple(index.T)]).all():
        raise ValueError("the probability in the mask is not finite everywhere")
    return index


def _regions(index: Indices, shape: tuple[int, ...]) -> list[Indices]:
    """The voxels of each 26-connected region."""
    region = label_voxels(index, shape, 26)
    by_region = index[np.argsort(region, kind="stable")]
    return np.split(by_region, np.cumsum(np.bincount(region))[:-1]) if len(index) else []


def _box(index: Indices, shape: tuple[int, ...], margin: int) -> tuple[Indices, Indices]:
    """Least index and greatest plus one of a box around voxels, cut at the volume's edge."""
    low = np.maximum(index.min(axis=0) - margin, 0)
    high = np.minimum(index.max(axis=0) + margin + 1, shape)
    return low, high


def _centers_in_box(
    probability: FloatArray,
    mask: BoolArray,
    sigma_vox: float,
    low: Indices,
    high: Indices,
    reach: int,
) -> NDArray[np.int64]:
    """Flat positions of the center voxels in a box of the volume."""
    shape = np.array(mask.shape)
    # Two differences need two more voxels on each side, and smoothing needs its reach.
    outer_low = np.maximum(low - 2 - reach, 0)
    outer_high = np.minimum(high + 2 + reach, shape)
    outer = tuple(slice(a, b) for a, b in zip(outer_low, outer_high, strict=True))
    image = np.where(mask[outer], probability[outer], 0).astype(np.float64)
    smooth = gaussian_filter(image, sigma_vox, mode="constant", truncate=TRUNCATE)
    gradient = np.gradient(smooth)
    box = tuple(slice(a, b) for a, b in zip(low - outer_low, high - outer_low, strict=True))
    down = np.ones(tuple(high - low), dtype=np.bool_)
    for axis in range(3):
        down &= np.gradient(gradient[axis], axis=axis)[box] < -MIN_CURVATURE
    at = list_voxels(down)
    hessian = np.empty((len(at), 3, 3))
    place = tuple((at + (low - outer_low)).T)
    for a in range(3):
        for b in range(a, 3):
            hessian[:, a, b] = hessian[:, b, a] = np.gradient(gradient[a], axis=b)[place]
    greatest = np.linalg.eigvalsh(hessian)[:, -1] if len(at) else np.empty(0)
    centers = at[greatest < -MIN_CURVATURE] + low
    flat: Indices = np.ravel_multi_index(tuple(centers.T), mask.shape)
    return flat
