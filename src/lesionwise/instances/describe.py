"""One row of measurements for every lesion."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lesionwise.instances.components import confluent_groups
from lesionwise.instances.filters import lesion_sizes
from lesionwise.types import FloatArray, Instances


def describe_lesions(
    instances: Instances, image: FloatArray | None = None, probability: FloatArray | None = None
) -> pd.DataFrame:
    """Measure each lesion: one row a label, in ascending order of labels.

    Only lesion voxels are visited, each once.

    Args:
        instances: n lesions; n may be 0.
        image: (I, J, K), any unit; gives ``mean_intensity``, NaN without it.
        probability: (I, J, K) in [0, 1]; gives ``confidence``, the mean probability over
            the lesion's voxels, NaN without it. It is a mean network output, not a
            calibrated probability that the lesion exists.

    Returns:
        n rows with label, voxels, volume_mm3, center_x_mm, center_y_mm, center_z_mm (center
        of mass in world mm), extent_i_mm, extent_j_mm, extent_k_mm (bounding box along the
        voxel axes), mean_intensity, confidence, confluent_group: 0 for a lesion that touches no
        other, and otherwise the lowest label of the lesions it forms one connected region with.
    """
    labels, grid = instances.labels, instances.grid
    flat = np.flatnonzero(labels)
    voxel_labels = labels.reshape(-1)[flat]
    found, row, voxels = np.unique(voxel_labels, return_inverse=True, return_counts=True)
    index = np.stack(np.unravel_index(flat, labels.shape), axis=1)
    total = np.stack([np.bincount(row, index[:, axis], len(found)) for axis in range(3)], axis=1)
    center = grid.world_mm(total / np.maximum(voxels, 1)[:, None])
    extent_mm = lesion_sizes(labels).extent_vox * np.array(grid.spacing_mm)

    def mean_over_lesions(values: FloatArray | None) -> FloatArray:
        if values is None:
            return np.full(len(found), np.nan)
        total = np.bincount(row, values.reshape(-1)[flat].astype(np.float64), len(found))
        return np.asarray(total / np.maximum(voxels, 1))

    groups = confluent_groups(labels)
    return pd.DataFrame(
        {
            "label": found.astype(np.int64),
            "voxels": voxels,
            "volume_mm3": voxels * grid.voxel_volume_mm3,
            "center_x_mm": center[:, 0],
            "center_y_mm": center[:, 1],
            "center_z_mm": center[:, 2],
            "extent_i_mm": extent_mm[:, 0],
            "extent_j_mm": extent_mm[:, 1],
            "extent_k_mm": extent_mm[:, 2],
            "mean_intensity": mean_over_lesions(image),
            "confidence": mean_over_lesions(probability),
            "confluent_group": [groups.get(int(label), 0) for label in found],
        }
    )
