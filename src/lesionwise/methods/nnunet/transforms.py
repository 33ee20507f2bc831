"""What is done to a patch beyond nnU-Net's own augmentation. Imports batchgeneratorsv2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from lesionwise.learning.targets import CentersAndOffsets, Reference
from lesionwise.methods.nnunet.settings import Augmentation, InstanceHeads, LesionEnhancement


class Enhance(BasicTransform):  # type: ignore[misc]
    """Adds one random number to the lesion voxels of some channels."""

    def __init__(self, enhancement: LesionEnhancement, channels: Sequence[int]) -> None:
        super().__init__()
        self.enhancement = enhancement
        self.channels = tuple(channels)

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        if np.random.uniform() < self.enhancement.probability:  # noqa: NPY002 (nnU-Net's generator)
            shift = float(np.random.uniform(*self.enhancement.shift))  # noqa: NPY002
            lesion = data_dict["segmentation"][0] > 0
            for channel in self.channels:
                data_dict["image"][channel][lesion] += shift
        return data_dict


class InstanceTargets(BasicTransform):  # type: ignore[misc]
    """Instance map → [mask, …] for the segmentation, then heatmap and offsets as one tensor.

    Comes after every spatial transform, so offsets point to where centers lie now.

    Args:
        heads: what the network predicts besides the mask.
        spacing_mm: of the patch's axes, in their order.
    """

    def __init__(self, heads: InstanceHeads, spacing_mm: Sequence[float]) -> None:
        super().__init__()
        self.targets = CentersAndOffsets(sigma_mm=heads.sigma_mm)
        i, j, k = spacing_mm
        self.spacing_mm = (float(i), float(j), float(k))

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        instances = data_dict["segmentation"][0].numpy()
        made = self.targets.make(Reference(np.maximum(instances, 0), self.spacing_mm))
        heads = np.concatenate([made["heatmap"], made["offsets"]])
        data_dict["segmentation"] = (data_dict["segmentation"] > 0).to(torch.int16)
        data_dict["heads"] = torch.from_numpy(heads)
        return data_dict


class AppendHeads(BasicTransform):  # type: ignore[misc]
    """Moves the heads to the end of the list of segmentations, which the loader carries on."""

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        data_dict["segmentation"] = [*data_dict["segmentation"], data_dict.pop("heads")]
        return data_dict


def adapt(
    stock: ComposeTransforms,
    augmentation: Augmentation,
    heads: InstanceHeads | None,
    spacing_mm: Sequence[float],
    last_visit: Sequence[int],
) -> ComposeTransforms:
    """nnU-Net's transforms with what a recipe changes.

    Args:
        stock: of training or validation.
        spacing_mm: of the patch's axes.
        last_visit: channels of the last visit.
    """
    transforms = list(stock.transforms)
    if not augmentation.intensity:
        transforms = [t for t in transforms if not isinstance(t, RandomTransform)]
    for place, transform in enumerate(transforms):
        if isinstance(transform, SpatialTransform):
            if augmentation.scaling is not None:
                transform.scaling = augmentation.scaling
            transform.p_elastic_deform = augmentation.elastic
            if heads is not None:
                transform.mode_seg = "nearest"
            if augmentation.enhancement is not None:
                transforms.insert(place, Enhance(augmentation.enhancement, last_visit))
            break
    if heads is not None:
        names = [type(t).__name__ for t in transforms]
        down = names.index("DownsampleSegForDSTransform")
        transforms.insert(down, InstanceTargets(heads, spacing_mm))
        transforms.append(AppendHeads())
    return ComposeTransforms(transforms)
