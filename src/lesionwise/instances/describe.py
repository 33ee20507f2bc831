"""One row of measurements for every lesion."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lesionwise.instances.components import confluent_groups
from lesionwise.instances.table import lesion_table
from lesionwise.instances.voxels import list_voxels
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
        voxel axes of ``instances``; of a file as ``io.nifti`` reads it, these are the axes nearest
        to left-right, back-front and down-up), mean_intensity, confidence, confluent_group: 0 for
        a lesion that touches no other, and otherwise the lowest label of the lesions it forms one
        connected region with.

    Example:
        >>> from lesionwise.types import Grid
        >>> labels = np.zeros((8, 8, 8), dtype=np.int32)
        >>> labels[1:4, 1:4, 1:4] = 7
        >>> lesions = Instances(labels, Grid((8, 8, 8), np.diag([1.0, 1.0, 2.0, 1.0])))
        >>> describe_lesions(lesions)[["label", "volume_mm3"]].values.tolist()
        [[7.0, 54.0]]
    """
    table = lesion_table(instances.labels, instances.grid)
    at = tuple(list_voxels(instances.labels).T)
    row = np.searchsorted(table.label, instances.labels[at])

    def mean_over_lesions(values: FloatArray | None) -> FloatArray:
        if values is None:
            return np.full(len(table), np.nan)
        total = np.bincount(row, values[at].astype(np.float64), len(table))
        return np.asarray(total / table.voxels)

    groups = confluent_groups(instances.labels)
    return pd.DataFrame(
        {
            "label": table.label,
            "voxels": table.voxels,
            "volume_mm3": table.volume_mm3,
            **{f"center_{axis}_mm": table.center_mm[:, n] for n, axis in enumerate("xyz")},
            **{f"extent_{axis}_mm": table.extent_mm[:, n] for n, axis in enumerate("ijk")},
            "mean_intensity": mean_over_lesions(image),
            "confidence": mean_over_lesions(probability),
            "confluent_group": [groups.get(label, 0) for label in table.label.tolist()],
        }
    )
