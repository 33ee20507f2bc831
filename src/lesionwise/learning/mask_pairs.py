"""Pairs of masks: a reference and a worse one, with how well they agree.

A network that estimates an agreement that has no gradient (such as a lesion-wise F1) learns from
them, and can then stand frozen inside a loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cc3d
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from torch.utils.data import Dataset

from lesionwise.instances.reference import NO_LESION
from lesionwise.learning.samplers import PatchSampling, Sampling
from lesionwise.learning.samples import SampleRequest, Tensors, studies_of
from lesionwise.learning.spatial_transforms import crop
from lesionwise.types import Auxiliary, BoolArray, InputError, Shape, Study, TrainingData

CANDIDATES = 12
"""Worse masks that are made for one sample; the one nearest to the wanted score is taken."""


def any_overlap_f1(reference: BoolArray, predicted: BoolArray) -> float:
    """Lesion-wise F1 where any common voxel is a match: of 26-connected components.

    Recall is the share of reference components that the prediction touches, precision the share of
    predicted components that touch the reference. Two empty masks score 1, one empty mask 0.

    >>> import numpy as np
    >>> a = np.zeros((5, 5, 5), bool); a[0, 0, 0] = a[4, 4, 4] = True
    >>> b = np.zeros((5, 5, 5), bool); b[0, 0, 0] = True
    >>> round(any_overlap_f1(a, b), 3)
    0.667
    """
    if not reference.any() and not predicted.any():
        return 1.0
    found, existing = _touched(reference, predicted)
    right, claimed = _touched(predicted, reference)
    if not existing or not claimed or not found:
        return 0.0
    recall, precision = found / existing, right / claimed
    return 2 * precision * recall / (precision + recall)


def _touched(mask: BoolArray, other: BoolArray) -> tuple[int, int]:
    """How many components of a mask share a voxel with another, and how many it has."""
    labels, count = cc3d.connected_components(mask, connectivity=26, return_N=True)
    touched = np.unique(labels[other])
    return int((touched > 0).sum()), int(count)


@dataclass(frozen=True)
class MaskPairs:
    """Patches of reference masks with worse ones, balanced over their agreement.

    The wanted score runs evenly through [0, 1] over the samples. For each sample several worse
    masks are made: components are dropped, grown or shrunk by a voxel, and false ones are put
    where the mirrored reference lies. The one whose score is nearest to the wanted is softened by a
    Gaussian and a change of intensity, as a network's map is soft. Where no reference lies in the
    patch, the only scores are 0 and 1.

    A sample is ``image`` (2, I, J, K): the reference and the softened mask, and ``score`` (1,).

    Attributes:
        size_vox, batch_size, per_epoch, sampling, auxiliary: as of ``Patches``.
        blur_vox: smallest and largest standard deviation of the Gaussian.
        gain: smallest and largest factor on the softened mask, which is cut at 1.
    """

    size_vox: Shape
    batch_size: int = 4
    per_epoch: int = 500
    sampling: Sampling = field(default_factory=lambda: PatchSampling(0.9))
    blur_vox: tuple[float, float] = (0.3, 1.2)
    gain: tuple[float, float] = (0.8, 1.3)
    auxiliary: Auxiliary | None = None

    def open(self, data: TrainingData, request: SampleRequest) -> PairSource:
        """The pairs; refuses studies in which no lesion lies."""
        studies = studies_of(data, self.auxiliary, request.validation)
        # In validation nothing else makes the pairs differ from those of the training.
        own = replace(request, seed=request.seed + (1_000_003 if request.validation else 0))
        source = PairSource(studies, self, own)
        if not request.validation and not any(volume.instances.any() for volume in source.volumes):
            raise InputError(NO_LESION)
        return source


class PairSource(Dataset[Tensors]):
    """Numbered pairs of masks."""

    def __init__(
        self, studies: Sequence[Study], samples: MaskPairs, request: SampleRequest
    ) -> None:
        self.samples, self.request = samples, request
        self.volumes = request.volumes(studies)

    @property
    def per_epoch(self) -> int:
        return self.samples.per_epoch

    def __getitem__(self, number: int) -> Tensors:
        samples, rng = self.samples, self.request.rng(number)
        volume = self.volumes[int(rng.integers(len(self.volumes)))]
        start = samples.sampling.start(volume, samples.size_vox, rng)
        reference = np.asarray(crop(volume.instances, start, samples.size_vox) > 0)
        # Stratified over the epoch: one wanted score in each of per_epoch equal parts of [0, 1].
        wanted = (number % samples.per_epoch + rng.random()) / samples.per_epoch
        worse, score = nearest_in_score(reference, wanted, rng)
        soft = softened(worse, samples.blur_vox, samples.gain, rng)
        return {
            "image": torch.from_numpy(np.stack([reference.astype(np.float32), soft])),
            "score": torch.tensor([score], dtype=torch.float32),
        }


def nearest_in_score(
    reference: BoolArray, wanted: float, rng: Generator
) -> tuple[BoolArray, float]:
    """A worse mask whose ``any_overlap_f1`` is near to ``wanted``, and that score.

    Of several made with random severities the nearest is taken; the first of equals.

    Example:
        >>> reference = np.zeros((20, 20, 20), dtype=np.bool_)
        >>> reference[2:5, 2:5, 2:5] = reference[12:15, 4:7, 4:7] = True
        >>> worse, score = nearest_in_score(reference, 0.0, np.random.default_rng(0))
        >>> score == any_overlap_f1(reference, worse), score < 1
        (True, True)
    """
    best, best_score = reference, any_overlap_f1(reference, reference)
    for severity in np.linspace(0, 1, CANDIDATES):
        made = worse_mask(reference, float(severity), rng)
        score = any_overlap_f1(reference, made)
        if abs(score - wanted) < abs(best_score - wanted):
            best, best_score = made, score
    return best, best_score


def worse_mask(reference: BoolArray, severity: float, rng: Generator) -> BoolArray:
    """A mask with some components dropped, grown or shrunk, and some false ones added.

    Args:
        reference: (I, J, K).
        severity: 0 drops nothing and adds nothing, 1 drops all and adds as many.
        rng: drawn from.

    Example:
        >>> reference = np.zeros((20, 20, 20), dtype=np.bool_)
        >>> reference[5:10, 5:10, 5:10] = True
        >>> made = worse_mask(reference, 0.0, np.random.default_rng(0))  # grown, shrunk or the same
        >>> bool(made[6:9, 6:9, 6:9].all()), bool(made[12:].any())
        (True, False)
    """
    labels, count = cc3d.connected_components(reference, connectivity=26, return_N=True)
    kept = np.zeros(count + 1, dtype=bool)
    kept[1:] = rng.random(count) >= severity * rng.random()
    made = np.asarray(kept[labels])
    change = rng.integers(-1, 2)
    if change > 0:
        made = ndimage.binary_dilation(made)
    elif change < 0:
        made = ndimage.binary_erosion(made)
    axes = tuple(axis for axis in range(3) if rng.random() < 0.5) or (0,)
    false = np.flip(labels, axes)
    added = np.zeros(count + 1, dtype=bool)
    added[1:] = rng.random(count) < severity * rng.random()
    return np.asarray(made | (added[false] & ~ndimage.binary_dilation(reference)))


def softened(
    mask: BoolArray,
    blur_vox: tuple[float, float],
    gain: tuple[float, float],
    rng: Generator,
) -> NDArray[np.float32]:
    """A mask as a network's map would show it: blurred, brighter or dimmer, in [0, 1].

    Example:
        >>> mask = np.zeros((9, 9, 9), dtype=np.bool_)
        >>> mask[3:6, 3:6, 3:6] = True
        >>> soft = softened(mask, (1.0, 1.0), (1.0, 1.0), np.random.default_rng(0))
        >>> bool(soft[4, 4, 4] > soft[3, 3, 3] > soft[2, 2, 2] > 0)
        True
    """
    blurred = ndimage.gaussian_filter(mask.astype(np.float32), rng.uniform(*blur_vox))
    scaled: NDArray[np.float32] = np.clip(blurred * np.float32(rng.uniform(*gain)), 0, 1)
    return scaled
