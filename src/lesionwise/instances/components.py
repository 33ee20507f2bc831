"""Lesions as connected components, and which lesions touch one another."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components as graph_components

from lesionwise.instances.table import bounding_box
from lesionwise.instances.voxels import Indices, check_connectivity, label_voxels, list_voxels
from lesionwise.types import BoolArray, Instances, LabelArray, LesionMaps

DEFAULT_CONNECTIVITY = 26
"""The project's one default: voxels that share a face, an edge or a corner are connected.

A thin lesion that runs obliquely through the voxels meets itself at edges and corners only;
with faces alone it falls into fragments, which a size filter then removes. The price is that two
lesions in contact at a corner count as one component, which is what separating confluent
lesions is for. Rules of others that fix 6 (the challenge's lesion detection, tier 0 of the
confluent units) say so where they are applied.
"""


def connected_components(
    mask: BoolArray, connectivity: int = DEFAULT_CONNECTIVITY
) -> NDArray[np.int32]:
    """Label the connected regions of a mask.

    Args:
        mask: (I, J, K) bool, in any memory order.
        connectivity: 6 (faces), 18 (and edges) or 26 (and corners).

    Returns:
        (I, J, K) int32: 0 outside the mask, 1 … n inside, in C order of each region's first
        voxel. An empty mask gives all 0.

    Raises:
        ValueError: If the mask is not bool and three-dimensional, or the connectivity unknown.

    Example:
        >>> connected_components(np.array([[[1, 0, 1, 1]]], dtype=bool)).tolist()
        [[[1, 0, 2, 2]]]
    """
    check_connectivity(connectivity)
    _check_mask(mask)
    labels = np.zeros(mask.shape, dtype=np.int32)
    box = bounding_box(mask)
    if box is not None:
        # A frame of background: cc3d 4.1 fails on a single row of voxels such as 1, 0, 1.
        framed = np.ascontiguousarray(np.pad(mask[box], 1))
        found = cc3d.connected_components(framed, connectivity=connectivity)  # type: ignore[call-overload]
        labels[box] = found[1:-1, 1:-1, 1:-1]
    return labels


@dataclass(frozen=True)
class ConnectedComponents:
    """Each connected region of the mask is one lesion.

    Attributes:
        connectivity: 6, 18 or 26.
    """

    connectivity: int = DEFAULT_CONNECTIVITY

    def __call__(self, maps: LesionMaps, mask: BoolArray) -> Instances:
        """Label the mask; of the maps only the grid is used."""
        return Instances(connected_components(mask, self.connectivity), maps.grid)


def confluent_units(labels: LabelArray, connectivity: int = DEFAULT_CONNECTIVITY) -> list[int]:
    """Labels of the lesions that lie in one connected region with another lesion, ascending.

    Args:
        labels: (I, J, K) integer, 0 background.
        connectivity: of the region: 6, 18 or 26.

    Returns:
        Ascending labels; empty for no lesions.

    Source: ConfLUNet, equation 3, with the default of its authors' code for the regions, 6.
    Departure from the letter of the equation, as in that code: it calls a lesion confluent if its
    IoU with any connected region lies strictly between 0 and 1, which also holds for a lesion in
    several pieces that touches no other lesion. Such a lesion is not confluent here, since the
    unit is meant to say that lesions have to be separated, and here there is nothing to separate.

    Example:
        >>> confluent_units(np.array([[[1, 1, 2, 0, 3, 0, 3]]]))
        [1, 2]
    """
    label, component = _labels_by_component(labels, connectivity)
    shared = np.bincount(component) > 1 if len(component) else np.empty(0, dtype=np.bool_)
    return [int(n) for n in np.unique(label[shared[component]])]


def confluent_groups(
    labels: LabelArray, connectivity: int = DEFAULT_CONNECTIVITY
) -> dict[int, int]:
    """The confluent lesion each label is a unit of, named after the lowest label in it.

    Args:
        labels: (I, J, K) integer, 0 background.
        connectivity: as in ``confluent_units``.

    Returns:
        One entry a label, in ascending order: 0 for a lesion that lies with no other in one
        region, else the lowest label of its group. A lesion in several pieces joins the
        groups of all its pieces.

    Example:
        >>> confluent_groups(np.array([[[1, 2, 0, 3]]]))
        {1: 1, 2: 1, 3: 0}
    """
    label, component = _labels_by_component(labels, connectivity)
    found, row = np.unique(label, return_inverse=True)
    regions = int(component.max()) + 1 if len(component) else 0
    total = len(found) + regions
    graph = coo_array(
        (np.ones(len(row), dtype=np.bool_), (row, len(found) + component)), shape=(total, total)
    )
    _, group = graph_components(graph, directed=False)
    group = group[: len(found)]
    members = np.bincount(group, minlength=1)
    # Labels ascend, so the first row of a group carries its lowest label.
    groups, first = np.unique(group, return_index=True)
    lowest = dict(zip(groups.tolist(), found[first].tolist(), strict=True))
    return {
        int(name): int(lowest[of]) if members[of] > 1 else 0
        for name, of in zip(found.tolist(), group.tolist(), strict=True)
    }


def _labels_by_component(
    labels: LabelArray, connectivity: int
) -> tuple[NDArray[np.int64], Indices]:
    """Each pair of a label and a region it has voxels in, once."""
    index = list_voxels(labels)
    region = label_voxels(index, labels.shape, connectivity)
    pairs = np.stack([labels[tuple(index.T)].astype(np.int64), region])
    label, component = np.unique(pairs, axis=1)
    return label, component


def _check_mask(mask: BoolArray) -> None:
    if mask.ndim != 3 or mask.dtype != np.bool_:
        raise ValueError(f"a mask is (I, J, K) bool, got {mask.dtype} of shape {mask.shape}")
