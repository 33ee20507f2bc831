"""Samples cut around candidates: places that a first, sensitive step proposes.

A candidate is a label of what ``propose`` returns for a study. It is true where it shares a voxel
with the reference. Crops follow the candidates' extent (``PaddedBoxes``), or have one size
(``CenteredBoxes``). Crops of unequal size cannot be stacked: ``UnequalCrops`` puts them side by
side into one batch, and the objective has to know it (``learning.objective.MeanOverCrops``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from torch.utils.data import Dataset

from lesionwise.instances.components import connected_components
from lesionwise.instances.reference import reference_of
from lesionwise.learning.positions import in_turn
from lesionwise.learning.samples import (
    Augmentation,
    NumberedSamples,
    SampleRequest,
    Tensors,
    TrainingVolume,
    TransformedVolume,
    studies_of,
)
from lesionwise.learning.targets import CANDIDATE
from lesionwise.types import BoolArray, InputError, LabelArray, Shape, Study, TrainingData, scan_of

Propose: TypeAlias = Callable[[Study], LabelArray]
"""Candidates of a prepared study: labels 1 … n on the grid of its last visit, 0 = none."""

Slices: TypeAlias = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Box:
    """A part of a volume.

    Attributes:
        start: first voxel along i, j, k; negative where it reaches beyond the volume.
        size: along i, j, k.
    """

    start: Shape
    size: Shape

    @property
    def center_vox(self) -> NDArray[np.float64]:
        """(3,) its middle, half a voxel beside one where a side is even."""
        return np.array(self.start) + (np.array(self.size) - 1) / 2


class Boxes(Protocol):
    """The crops of candidates."""

    def of(self, extent: Slices, shape: tuple[int, ...], size_vox: Shape) -> Box:
        """The crop of one candidate.

        Args:
            extent: the candidate's bounding box.
            shape: of the volume.
            size_vox: of the samples.
        """


@dataclass(frozen=True)
class PaddedBoxes:
    """A candidate's bounding box, larger by ``padding_vox`` on each side, within the volume."""

    padding_vox: int = 2

    def of(self, extent: Slices, shape: tuple[int, ...], size_vox: Shape) -> Box:
        low = [max(0, s.start - self.padding_vox) for s in extent]
        high = [min(n, s.stop + self.padding_vox) for s, n in zip(extent, shape, strict=True)]
        return Box((low[0], low[1], low[2]), _size(low, high))


@dataclass(frozen=True)
class CenteredBoxes:
    """A box of ``size_vox`` around the middle of a candidate's bounding box.

    It may reach beyond the volume, where scans count as 0. With an even difference of sizes the
    middles agree; otherwise the box begins half a voxel early.
    """

    def of(self, extent: Slices, shape: tuple[int, ...], size_vox: Shape) -> Box:
        starts = [(s.start + s.stop - n) // 2 for s, n in zip(extent, size_vox, strict=True)]
        return Box((starts[0], starts[1], starts[2]), size_vox)


def _size(low: Sequence[int], high: Sequence[int]) -> Shape:
    i, j, k = (b - a for a, b in zip(low, high, strict=True))
    return i, j, k


def boxes_of(labels: LabelArray, boxes: Boxes, size_vox: Shape) -> list[tuple[int, Slices, Box]]:
    """Number, bounding box and crop of every candidate, by rising number.

    Example:
        >>> labels = np.zeros((9, 9, 9), dtype=np.int32)
        >>> labels[4:6, 4:6, 4:6] = 1
        >>> ((number, extent, box),) = boxes_of(labels, PaddedBoxes(padding_vox=1), (8, 8, 8))
        >>> number, box
        (1, Box(start=(3, 3, 3), size=(4, 4, 4)))
    """
    found = []
    for number, extent in enumerate(ndimage.find_objects(labels), start=1):
        if extent is not None:
            found.append((number, extent, boxes.of(extent, labels.shape, size_vox)))
    return found


@dataclass(frozen=True)
class MeanAbove:
    """Marks candidates over which the mean of a scan of the last visit exceeds a limit.

    Attributes:
        scan: its name, such as a distance map.
        above: exclusive.
    """

    scan: str
    above: float

    def __call__(self, study: Study, labels: LabelArray) -> BoolArray:
        """(n,) for the labels 1 … n; a label that is nowhere is not marked.

        Raises:
            InputError: If the last visit lacks the scan.
        """
        scan = scan_of(study, study.followup, self.scan)
        flat = labels.ravel()
        values = np.asarray(scan.array, dtype=np.float64).ravel()
        count = np.bincount(flat)
        sums = np.bincount(flat, weights=values)
        return np.asarray((sums > self.above * count)[1:] & (count[1:] > 0))


@dataclass(frozen=True)
class ReferenceLesions:
    """The lesions of the reference as candidates, so that true ones are not lacking.

    Attributes:
        task: name of the reference.
    """

    task: str = "new"

    def __call__(self, study: Study) -> NDArray[np.int32]:
        """(I, J, K) labels 1 … n: connected components of the reference."""
        return connected_components(np.asarray(reference_of(study, self.task) > 0))


@dataclass(frozen=True)
class AsManyFalse:
    """Every true crop once in an epoch, as many false ones, and some more of marked places.

    Of each kind every crop comes once before any comes again, over the ends of epochs. A kind that
    is not there is left out.

    Attributes:
        extra_fraction: further crops, as a fraction of the true and false ones together.
        marked_fraction: of the further crops, how many are marked; the others are false ones that
            are not marked.
        true_fraction: of the further marked crops, how many are true.
    """

    extra_fraction: float = 0.0
    marked_fraction: float = 0.0
    true_fraction: float = 0.0

    def _kinds(self, true: BoolArray, marked: BoolArray) -> list[tuple[NDArray[np.int64], int]]:
        """The members of each kind, and how many of them an epoch has."""
        count = int(true.sum())
        extra = round(2 * count * self.extra_fraction)
        low = round(extra * self.marked_fraction)
        low_true = round(low * self.true_fraction)
        kinds = (
            (true, count),
            (~true, count),
            (true & marked, low_true),
            (~true & marked, low - low_true),
            (~true & ~marked, extra - low),
        )
        return [(np.flatnonzero(kind), wanted) for kind, wanted in kinds if kind.any()]

    def kept(self, true: BoolArray, marked: BoolArray) -> int:
        """How many crops an epoch has."""
        return sum(wanted for _, wanted in self._kinds(true, marked))

    def order(self, true: BoolArray, marked: BoolArray, epoch: int, seed: int) -> NDArray[np.int64]:
        """Numbers of the crops of an epoch, in order.

        Args:
            true, marked: (n,) of all crops.
            epoch: counted from 0.
            seed: of the training.
        """
        found = np.concatenate(
            [
                in_turn(members, epoch * wanted, wanted, seed)
                for members, wanted in self._kinds(true, marked)
            ]
        )
        return found[np.random.default_rng([seed, epoch]).permutation(found.size)]


@dataclass(frozen=True, eq=False)
class Candidate:
    """One candidate of a volume.

    Attributes:
        volume: its number.
        extent: bounding box.
        inside: its voxels in that.
        box: its crop.
    """

    volume: int
    extent: Slices
    inside: BoolArray
    box: Box


@dataclass(frozen=True)
class CandidateCrops:
    """Crops around candidates, true and false.

    The targets find whether a crop's own candidate is true as the label ``candidate``, 1 or 0 in
    every voxel of the volume.

    Attributes:
        propose: gives the candidates of a study.
        boxes: their crops.
        size_vox: of a crop, or the largest one: a larger one is cut to it around a random voxel of
            its candidate, one in the reference where it has such.
        batch_size: crops per step.
        per_epoch: an epoch is this many crops; 0 takes as many as the balance has.
        balance: how true and false crops take turns.
        marks: which candidates the balance takes for marked; None marks none.
        more: further candidates of training studies; None gives none.
        augmentation: of the crops.
    """

    propose: Propose
    boxes: Boxes
    size_vox: Shape
    batch_size: int = 1
    per_epoch: int = 0
    balance: AsManyFalse = field(default_factory=AsManyFalse)
    marks: Callable[[Study, LabelArray], BoolArray] | None = None
    more: Propose | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)

    def open(self, data: TrainingData, request: SampleRequest) -> CropSource:
        """The crops; refuses studies in which no candidate is true."""
        source = CropSource(studies_of(data, None, request.validation), self, request)
        if not source.true.any():
            raise InputError(
                "no candidate of these studies touches a lesion to find: there is nothing to learn"
            )
        return source


class CropSource(Dataset[Tensors]):
    """Numbered crops around the candidates of studies."""

    def __init__(
        self, studies: Sequence[Study], samples: CandidateCrops, request: SampleRequest
    ) -> None:
        self.samples, self.request = samples, request
        self.volumes = request.volumes(studies)
        self.candidates: list[Candidate] = []
        true: list[bool] = []
        marked: list[bool] = []
        for number, study in enumerate(studies):
            instances = self.volumes[number].instances
            for propose in (samples.propose, samples.more):
                if propose is None:
                    continue
                labels = propose(study)
                marks = np.zeros(int(labels.max(initial=0)), dtype=np.bool_)
                if samples.marks is not None:
                    marks = samples.marks(study, labels)
                for label, extent, box in boxes_of(labels, samples.boxes, samples.size_vox):
                    inside = labels[extent] == label
                    self.candidates.append(Candidate(number, extent, inside, box))
                    true.append(bool(instances[extent][inside].any()))
                    marked.append(bool(marks[label - 1]))
        self.true = np.array(true, dtype=np.bool_)
        self.marked = np.array(marked, dtype=np.bool_)
        self.kept = samples.balance.kept(self.true, self.marked)
        self._epoch: tuple[int, NDArray[np.int64]] | None = None

    @property
    def per_epoch(self) -> int:
        return self.samples.per_epoch or self.kept

    def __getitem__(self, number: int) -> Tensors:
        # a round of the balance, which is an epoch where no other length is set
        turn, index = divmod(number, self.kept)
        if self._epoch is None or self._epoch[0] != turn:
            order = self.samples.balance.order(self.true, self.marked, turn, self.request.seed)
            self._epoch = (turn, order)
        member = int(self._epoch[1][index])
        candidate = self.candidates[member]
        volume = self.volumes[candidate.volume]
        rng = self.request.rng(number)
        box = self._limited(candidate, volume, rng)
        is_true = np.broadcast_to(self.true[member], volume.shape)
        view = TransformedVolume(
            volume.images,
            volume.instances,
            {CANDIDATE: is_true},
            np.empty((0, 3)),
            volume.brain,
            volume.spacing_mm,
            volume.names,
        )
        augmentation = self.request.allowed(self.samples.augmentation)
        return self.request.patch(view, lambda _: box.start, box.size, augmentation, rng)

    def _limited(self, candidate: Candidate, volume: TrainingVolume, rng: Generator) -> Box:
        """The candidate's crop, or a part of it no larger than the samples' size."""
        box, limit = candidate.box, self.samples.size_vox
        if all(n <= most for n, most in zip(box.size, limit, strict=True)):
            return box
        in_reference = candidate.inside & (volume.instances[candidate.extent] > 0)
        inside = in_reference if in_reference.any() else candidate.inside
        voxels = np.argwhere(inside)
        at = voxels[int(rng.integers(len(voxels)))] + [s.start for s in candidate.extent]
        size = [min(n, most) for n, most in zip(box.size, limit, strict=True)]
        start = [
            int(np.clip(at[axis] - size[axis] // 2, first, first + n - size[axis]))
            for axis, (first, n) in enumerate(zip(box.start, box.size, strict=True))
        ]
        return Box((start[0], start[1], start[2]), (size[0], size[1], size[2]))


@dataclass(frozen=True)
class UnequalCrops:
    """Crops of unequal size, many in one step of the optimizer.

    Each sample is a whole batch: its crops by the names ``crop-0``, ``crop-1`` …

    Attributes:
        crops: where they come from.
        crops_per_batch: crops in a step.
        per_epoch: an epoch is this many steps; 0 takes as many as show an epoch of the crops.
    """

    crops: CandidateCrops
    crops_per_batch: int = 32
    per_epoch: int = 0

    batch_size = 1
    """A sample is a batch already."""

    @property
    def size_vox(self) -> Shape:
        return self.crops.size_vox

    def open(self, data: TrainingData, request: SampleRequest) -> UnequalSource:
        """The batches; refuses studies in which no candidate is true."""
        return UnequalSource(self.crops.open(data, request), self.crops_per_batch, self.per_epoch)


class UnequalSource(Dataset[Tensors]):
    """Numbered batches of crops of unequal size."""

    def __init__(self, crops: NumberedSamples, crops_per_batch: int, per_epoch: int) -> None:
        self.crops, self.crops_per_batch = crops, crops_per_batch
        self._per_epoch = per_epoch

    @property
    def per_epoch(self) -> int:
        return self._per_epoch or -(-self.crops.per_epoch // self.crops_per_batch)

    def __getitem__(self, number: int) -> Tensors:
        first = number * self.crops_per_batch
        return {f"crop-{n}": self.crops[first + n] for n in range(self.crops_per_batch)}
