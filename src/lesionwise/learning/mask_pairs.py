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

FALSE_AT_MOST = 10
"""False components of one worse mask: with one lesion found of one, 10 make an F1 of 1/6."""
NEAR = 0.02
"""Scores that differ by no more from the nearest one are as good for a pair."""
TRIES = 20
"""Shapes and places that are tried for one false component."""
RADII_VOX = (1.0, 3.5)
"""Smallest and largest semi-axis of an ellipsoid."""
TOUCHING = np.ones((3, 3, 3), dtype=np.bool_)
"""Voxels that make one component with the middle one."""


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

    The wanted score runs evenly through [0, 1] over the samples. Of the numbers of found lesions
    and false components whose F1 is near to it one pair is drawn, and a mask with as many is made
    (``worse_mask``). It is softened by a Gaussian and a change of intensity, as a network's map is
    soft. The reference stays as it is, which limits the scores: of one lesion they are 1, 2/3, 1/2,
    2/5 and so on, and 0; of a patch without a lesion 1 and 0, by the wanted score.

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

    The score is measured on the mask: it differs from the planned one where grown components merge,
    shrunk ones fall apart, or the patch has no room for all false ones.

    Example:
        >>> reference = np.zeros((20, 20, 20), dtype=np.bool_)
        >>> reference[2:5, 2:5, 2:5] = True
        >>> worse, score = nearest_in_score(reference, 0.5, np.random.default_rng(0))
        >>> score == any_overlap_f1(reference, worse), score
        (True, 0.5)
        >>> nothing = np.zeros((20, 20, 20), dtype=np.bool_)
        >>> [nearest_in_score(nothing, w, np.random.default_rng(0))[1] for w in (0.4, 0.6)]
        [0.0, 1.0]
    """
    _, existing = cc3d.connected_components(reference, connectivity=26, return_N=True)
    found, false = _counts(int(existing), wanted, rng)
    made = worse_mask(reference, found, false, rng)
    return made, any_overlap_f1(reference, made)


def _counts(existing: int, wanted: float, rng: Generator) -> tuple[int, int]:
    """Numbers of found and of false components with an F1 near to ``wanted``.

    Few false ones are likelier than many, by 1 / (1 + number).
    """
    found, false = np.indices((existing + 1, FALSE_AT_MOST + 1))
    if existing:
        scores = 2 * found / (existing + found + false)
        off = np.abs(scores - wanted)
        near = off <= off.min() + NEAR
    else:
        near = (false > 0) == (wanted < 0.5)
    likely = near / (1 + false)
    drawn = int(rng.choice(likely.size, p=(likely / likely.sum()).ravel()))
    return int(found.flat[drawn]), int(false.flat[drawn])


def worse_mask(reference: BoolArray, found: int, false: int, rng: Generator) -> BoolArray:
    """A mask that finds some components, perhaps grown or shrunk, and has some false ones.

    Which are found is drawn, and whether they are as they were or have one voxel more or less all
    around. One that shrinking would remove stays as it was.

    Args:
        reference: (I, J, K).
        found: components that are kept; more than there are keeps all.
        false: components that are added, as ``with_false_components`` adds them.
        rng: drawn from.

    Example:
        >>> reference = np.zeros((20, 20, 20), dtype=np.bool_)
        >>> reference[5:10, 5:10, 5:10] = True
        >>> made = worse_mask(reference, 1, 2, np.random.default_rng(0))
        >>> bool(made[6:9, 6:9, 6:9].all()), any_overlap_f1(reference, made)
        (True, 0.5)
    """
    labels, count = cc3d.connected_components(reference, connectivity=26, return_N=True)
    kept = np.zeros(count + 1, dtype=bool)
    kept[1 + rng.permutation(count)[:found]] = True
    made = np.asarray(kept[labels])
    change = rng.integers(-1, 2)
    if change > 0:
        made = ndimage.binary_dilation(made)
    elif change < 0:
        smaller = ndimage.binary_erosion(made)
        kept[labels[smaller]] = False
        made = smaller | kept[labels]
    return with_false_components(made, reference, false, rng)


def with_false_components(
    mask: BoolArray, reference: BoolArray, number: int, rng: Generator
) -> BoolArray:
    """The mask and ``number`` components more, which touch neither it nor the reference.

    Each is, equally likely, a component of the reference, flipped and moved, or an ellipsoid of one
    to three voxels around its middle; where there is no reference, an ellipsoid. Where the patch
    has no room, there are fewer.

    Example:
        >>> nothing = np.zeros((20, 20, 20), dtype=np.bool_)
        >>> made = with_false_components(nothing, nothing, 3, np.random.default_rng(0))
        >>> int(cc3d.connected_components(made, connectivity=26, return_N=True)[1])
        3
    """
    labels = cc3d.connected_components(reference, connectivity=26)
    boxes = [] if not number else ndimage.find_objects(labels)
    shapes = [np.asarray(labels[box] == n) for n, box in enumerate(boxes, 1)]
    made = mask.copy()
    occupied = np.pad(mask | reference, 1)  # a border, for neighbors of components at the edge
    for _ in range(number):
        for _ in range(TRIES):
            shape = _shape(shapes, mask.shape, rng)
            start = rng.integers(0, np.array(mask.shape) - shape.shape + 1)
            around = ndimage.binary_dilation(np.pad(shape, 1), TOUCHING)
            within = _box(start, around.shape)
            if not (occupied[within] & around).any():
                occupied[within] |= np.pad(shape, 1)
                made[_box(start, shape.shape)] |= shape
                break
    return made


def _box(start: NDArray[np.int64], size: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(first, first + n) for first, n in zip(start, size, strict=True))


def _shape(shapes: Sequence[BoolArray], size: tuple[int, ...], rng: Generator) -> BoolArray:
    """One of the shapes, flipped, or an ellipsoid; no larger than ``size``."""
    if shapes and rng.random() < 0.5:
        axes = tuple(axis for axis in range(3) if rng.random() < 0.5)
        return np.flip(shapes[int(rng.integers(len(shapes)))], axes)
    radii = rng.uniform(*RADII_VOX, size=3)
    half = np.minimum(radii.astype(int), (np.array(size) - 1) // 2)
    grid = np.ogrid[tuple(slice(-n, n + 1) for n in half)]
    return np.asarray(sum((x / r) ** 2 for x, r in zip(grid, radii, strict=True)) <= 1)


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
