"""Small lesions weigh more in a voxel-wise loss, by a function of their volume."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from lesionwise.learning.losses import Parts, TensorsByName, center_crop_to
from lesionwise.learning.targets import LesionMask, Reference
from lesionwise.types import FloatArray

VOXEL_WEIGHT = "voxel_weight"


@dataclass(frozen=True)
class SizeWeightedMask:
    """Lesion or not, two logits, and how much each voxel counts.

    A lesion's voxels weigh ``1 + sqrt(reference_mm3 / volume)``, all others 1. So a lesion of
    the reference volume has voxels of weight 2, smaller ones of more; but all voxels of a lesion
    together weigh the more, the larger it is. Lesions are 26-connected components of the patch:
    one that the patch cuts counts as what is seen of it.

    Attributes:
        reference_mm3: the larger, the more all lesions weigh, and the more so the smaller they are.

    Source: Proceedings of MSSEG-2, 2021, the chapter of `rater-consensus`, which asks for these two
    properties and leaves the function to another paper.
    """

    reference_mm3: float = 100.0
    out_channels: int = 2
    initial_logits: tuple[float, ...] = (2.0, -2.0)
    maps: tuple[str, ...] = ("probability",)

    def make(self, reference: Reference) -> dict[str, FloatArray]:
        """{"mask": (1, I, J, K), "voxel_weight": (1, I, J, K)}."""
        voxel_mm3 = float(np.prod(reference.spacing_mm))
        weight = lesion_weights(reference.instances > 0, voxel_mm3, self.reference_mm3)
        return {**LesionMask().make(reference), VOXEL_WEIGHT: weight[None]}

    def activate(self, output: torch.Tensor) -> torch.Tensor:
        """The softmax of the lesion channel, (B, 1, …)."""
        return LesionMask().activate(output)


def lesion_weights(
    mask: NDArray[np.bool_], voxel_mm3: float, reference_mm3: float
) -> NDArray[np.float32]:
    """(I, J, K): ``1 + sqrt(reference / volume)`` in each 26-connected lesion, 1 elsewhere.

    >>> import numpy as np
    >>> mask = np.zeros((4, 4, 4), bool); mask[0, 0, 0] = True; mask[2:, 2:, 2:] = True
    >>> lesion_weights(mask, 1.0, 8.0)[2, 2, 2]
    np.float32(2.0)
    """
    labels, count = cc3d.connected_components(mask, connectivity=26, return_N=True)
    volumes_mm3 = np.bincount(labels.ravel(), minlength=count + 1) * voxel_mm3
    weights = np.ones(count + 1, dtype=np.float32)
    weights[1:] += np.sqrt(reference_mm3 / volumes_mm3[1:])
    return np.asarray(weights[labels])


@dataclass(frozen=True)
class VoxelWeightedCrossEntropy:
    """The mean over voxels of weight · -log p of the true class.

    Targets: ``mask`` and ``voxel_weight`` (B, 1, …). The divisor is the number of voxels.
    """

    def __call__(self, output: torch.Tensor, targets: TensorsByName) -> Parts:
        size = output.shape[2:]
        mask = center_crop_to(targets["mask"], size)[:, 0].long()
        weight = center_crop_to(targets[VOXEL_WEIGHT], size)[:, 0]
        entropy = functional.cross_entropy(output[:, :2].float(), mask, reduction="none")
        return {"total": (weight * entropy).mean()}
