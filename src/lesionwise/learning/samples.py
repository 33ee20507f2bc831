"""Where the batches of a training come from.

``Samples`` is one of the three things in which trainings differ (the others are the objective and
the parts beside the network). It opens studies and gives numbered samples: sample n is the same
whenever and wherever it is asked for, so a resumed training sees what an uninterrupted one would
have seen, with any number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Protocol, overload, runtime_checkable

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch.utils.data import Dataset

from lesionwise.instances.reference import NO_LESION, hard_labels, reference_of
from lesionwise.learning.channels import channel_names, channels
from lesionwise.learning.intensity_transforms import IntensityTransform, LesionContrast
from lesionwise.learning.normalization import Normalizer
from lesionwise.learning.positions import (
    Balance,
    EveryPatch,
    HasLesion,
    PatchFilter,
    PatchPosition,
    PatchPositions,
    axes_with_last,
    comes_again,
)
from lesionwise.learning.samplers import PatchSampling, Sampling
from lesionwise.learning.spatial_transforms import (
    Box,
    SpatialAugmentation,
    SpatialTransform,
    VolumeAugmentation,
    crop,
    resample_patch,
)
from lesionwise.learning.targets import centers_of_mass
from lesionwise.types import (
    Auxiliary,
    BoolArray,
    FloatArray,
    InputError,
    LabelArray,
    Shape,
    Study,
    TrainingData,
)

INSTANCES = "instances"
Tensors = dict[str, Any]
"""Tensors by name; of several sources, such dicts by the name of the source."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One patch before its targets are made.

    Attributes:
        image: (C, I, J, K) float32.
        instances: (I, J, K) int32, what is to be found; 0 = background.
        labels: further references by name, (I, J, K), int32 or float32.
        spacing_mm: along i, j, k.
    """

    image: NDArray[np.float32]
    instances: NDArray[np.int32]
    labels: Mapping[str, NDArray[Any]]
    spacing_mm: tuple[float, float, float]


class MakesTargets(Protocol):
    """What turns a sample into the arrays that a loss compares with: an objective."""

    def make(self, sample: Sample) -> Mapping[str, FloatArray]: ...


@runtime_checkable
class MakesTargetsBySource(Protocol):
    """An objective of several sources, such as ``learning.objective.BySource``."""

    def of(self, source: str) -> MakesTargets: ...


@dataclass(frozen=True)
class Reading:
    """What of a study is read.

    Attributes:
        scans: the channels, as ``learning.channels`` names them.
        task: name of the reference, as ``instances.reference`` takes it.
        normalize: of each channel of a whole volume, after its augmentation and in prediction.
    """

    scans: tuple[str, ...]
    task: str = "lesions"
    normalize: Normalizer | None = None


@dataclass(frozen=True)
class SampleRequest:
    """What of the studies samples are asked for; small, since it goes to every process.

    Attributes:
        reading: what of a study is read.
        objective: makes the targets of each sample.
        seed: of every random choice.
        validation: samples of the validation studies, without augmentation, instead of the
            training studies.
    """

    reading: Reading
    objective: MakesTargets
    seed: int
    validation: bool = False

    def rng(self, number: int) -> Generator:
        """Random numbers of one sample, the same whenever it is asked for."""
        return np.random.default_rng([self.seed, number])

    def allowed(self, augmentation: Augmentation) -> Augmentation:
        """The augmentation, or none in validation."""
        return Augmentation() if self.validation else augmentation

    def volumes(
        self, studies: Sequence[Study], references: tuple[str, ...] = ()
    ) -> TrainingVolumes:
        """Studies as volumes, with the reference that is learned and further ones."""
        return TrainingVolumes(studies, self.reading.scans, self.reading.task, references)

    def patch(
        self,
        volume: TrainingVolume | TransformedVolume,
        start: Callable[[TrainingVolume | TransformedVolume], Shape],
        size_vox: Shape,
        augmentation: Augmentation,
        rng: Generator,
    ) -> Tensors:
        """One patch with its targets, as ``cut`` cuts it."""
        sample = cut(volume, start, size_vox, augmentation, self.reading.normalize, rng)
        return tensors(sample, self.objective)

    def random_patch(
        self,
        volume: TrainingVolume,
        sampling: Sampling,
        size_vox: Shape,
        augmentation: Augmentation,
        rng: Generator,
        planes: tuple[int, ...] = (2,),
    ) -> Tensors:
        """One patch with its targets: axes are drawn first, then the position, then the rest."""
        augmentation = self.allowed(augmentation)
        order = (0, 1, 2)
        if augmentation.spatial is not None:
            order = augmentation.spatial.axis_permutation(rng)
        if planes != (2,):  # the plane decides which axis comes last, not the augmentation
            order = axes_with_last(int(rng.choice(planes)))

        def start(volume: TrainingVolume | TransformedVolume) -> Shape:
            return sampling.start(volume, size_vox, rng)

        return self.patch(transposed(volume, order), start, size_vox, augmentation, rng)


class NumberedSamples(Protocol):
    """Opened samples."""

    @property
    def per_epoch(self) -> int:
        """How many samples are an epoch."""

    def __getitem__(self, number: int) -> Tensors:
        """Sample ``number``, counted over all epochs from 0."""


class Samples(Protocol):
    """Where batches come from.

    Attributes:
        batch_size: samples per step.
        size_vox: of a patch; the window of prediction too, where that names none.
    """

    @property
    def batch_size(self) -> int: ...

    @property
    def size_vox(self) -> Shape: ...

    def open(self, data: TrainingData, request: SampleRequest) -> NumberedSamples:
        """The samples that are asked for, of the studies of ``data``.

        Raises:
            InputError: If there is nothing to learn from.
        """


class TrainingVolume:
    """One study as a training sees it: channels, instances, lesion centers."""

    def __init__(
        self,
        study: Study,
        scans: tuple[str, ...],
        task: str | None = "lesions",
        references: tuple[str, ...] = (),
    ) -> None:
        self.images: list[NDArray[Any]] = channels(study, scans)
        self.names = channel_names(len(study.visits), scans)
        self._study = study
        self._task = task
        self._references = references
        scan = scans[0].partition("@")[0]
        holder = study.followup if scan in study.followup.scans else study.baseline
        self.spacing_mm = holder.scans[scan].grid.spacing_mm
        self.shape: tuple[int, ...] = self.images[0].shape

    @property
    def brain(self) -> BoolArray | None:
        brain = self._study.followup.brain
        return None if brain is None else brain.array

    @cached_property
    def instances(self) -> LabelArray:
        if self._task is None:
            return np.broadcast_to(np.int32(0), self.shape)
        labels = hard_labels(reference_of(self._study, self._task))
        if isinstance(labels, np.memmap):
            return labels
        # kept for the whole training: one byte a voxel, not four, for up to 255 lesions
        return labels.astype(np.min_scalar_type(int(labels.max(initial=0))), copy=False)

    @cached_property
    def labels(self) -> dict[str, NDArray[Any]]:
        return {name: reference_of(self._study, name) for name in self._references}

    @cached_property
    def centers_vox(self) -> NDArray[np.float64]:
        return centers_of_mass(self.instances)[1]

    @cached_property
    def lesion_voxels(self) -> NDArray[np.int64]:
        return np.argwhere(self.instances)


class TrainingVolumes(Sequence[TrainingVolume]):
    """Studies as volumes; in another process each maps its own arrays from the files."""

    def __init__(
        self,
        studies: Sequence[Study],
        scans: tuple[str, ...],
        task: str | None,
        references: tuple[str, ...] = (),
    ) -> None:
        self._made = (studies, scans, task, references)
        self._volumes = [TrainingVolume(study, scans, task, references) for study in studies]

    def __len__(self) -> int:
        return len(self._volumes)

    @overload
    def __getitem__(self, index: int) -> TrainingVolume: ...
    @overload
    def __getitem__(self, index: slice) -> list[TrainingVolume]: ...
    def __getitem__(self, index: int | slice) -> TrainingVolume | list[TrainingVolume]:
        return self._volumes[index]

    def __reduce__(self) -> tuple[Any, ...]:
        return TrainingVolumes, self._made


@dataclass(frozen=True, eq=False)
class TransformedVolume:
    """A volume with its axes in another order, or augmented as a whole.

    ``transposed_from`` is that volume and the order of its axes; its lesion voxels are found once.
    """

    images: Sequence[NDArray[Any]]
    instances: LabelArray
    labels: Mapping[str, NDArray[Any]]
    centers_vox: NDArray[np.float64]
    brain: BoolArray | None
    spacing_mm: tuple[float, float, float]
    names: tuple[str, ...]
    transposed_from: tuple[TrainingVolume, tuple[int, int, int]] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.images[0].shape

    @property
    def lesion_voxels(self) -> NDArray[np.int64]:
        if self.transposed_from is None:
            return np.argwhere(self.instances)
        volume, axes = self.transposed_from
        return volume.lesion_voxels[:, list(axes)]


def transposed(
    volume: TrainingVolume, axes: tuple[int, int, int]
) -> TrainingVolume | TransformedVolume:
    """The volume with its axes in that order; its arrays are shared, not copied.

    Example:
        >>> from lesionwise.types import Grid, Visit, Volume
        >>> grid = Grid((2, 3, 4), np.diag([1.0, 1.0, 3.0, 1.0]))
        >>> visit = Visit(
        ...     {"flair": Volume(np.zeros(grid.shape), grid)},
        ...     {"lesions": Volume(np.zeros(grid.shape, dtype=np.bool_), grid)},
        ... )
        >>> turned = transposed(TrainingVolume(Study("01", (visit,)), ("flair",)), (1, 2, 0))
        >>> turned.shape, turned.spacing_mm
        ((3, 4, 2), (1.0, 3.0, 1.0))
    """
    if axes == (0, 1, 2):
        return volume
    i, j, k = (volume.spacing_mm[axis] for axis in axes)
    return TransformedVolume(
        [image.transpose(axes) for image in volume.images],
        volume.instances.transpose(axes),
        {name: array.transpose(axes) for name, array in volume.labels.items()},
        volume.centers_vox[:, list(axes)],
        None if volume.brain is None else volume.brain.transpose(axes),
        (i, j, k),
        volume.names,
        (volume, axes),
    )


@dataclass(frozen=True)
class Augmentation:
    """What is done to patches at random.

    Attributes:
        spatial: geometry, of the patch or of the volume that it is cut from; None keeps it.
        intensity: of the channels; None keeps them.
        lesion_contrast: how often and how far lesions are dimmed, before the intensity transforms.
        whole_volume: transform the volume before the patch is cut, not the patch.
        again: instead of ``spatial``, where ``ListedPatches`` show a patch once more in an epoch;
            None takes ``spatial`` then too.
    """

    spatial: SpatialAugmentation | VolumeAugmentation | None = None
    intensity: IntensityTransform | None = None
    lesion_contrast: LesionContrast = field(default_factory=LesionContrast)
    whole_volume: bool = False
    again: SpatialAugmentation | VolumeAugmentation | None = None


@dataclass(frozen=True)
class Patches:
    """Random patches of labeled studies; every study is equally likely.

    Attributes:
        size_vox: along i, j, k; multiples of what the network's pooling asks for. (512, 512, 1) is
            one slice, (128, 128, 3) a stack of three.
        batch_size: patches per step.
        per_epoch: an epoch is this many patches.
        sampling: where patches lie.
        augmentation: what is done to them.
        planes: normals of the slices, for patches of slices: the axis that is moved last, drawn for
            each patch.
        references: further labels by name that the targets need, such as raters.
        auxiliary: the set to learn from instead of the training studies.
    """

    size_vox: Shape
    batch_size: int = 2
    per_epoch: int = 500
    sampling: Sampling = field(default_factory=PatchSampling)
    augmentation: Augmentation = field(default_factory=Augmentation)
    planes: tuple[Literal[0, 1, 2], ...] = (2,)
    references: tuple[str, ...] = ()
    auxiliary: Auxiliary | None = None

    def open(self, data: TrainingData, request: SampleRequest) -> PatchSource:
        """The patches; refuses studies in which no lesion lies."""
        studies = studies_of(data, self.auxiliary, request.validation, self.references)
        if not request.validation and not with_lesion(studies, request.reading.task):
            raise InputError(NO_LESION)
        return PatchSource(request.volumes(studies, self.references), self, request)


@dataclass(frozen=True)
class UnlabelledPatches:
    """Random patches of studies without any reference, for training without labels.

    Attributes:
        size_vox, batch_size, per_epoch, sampling, augmentation, planes: as of ``Patches``;
            without lesions a sampling around them places patches anywhere.
        auxiliary: the set to learn from; None takes the training studies, their labels unseen.
    """

    size_vox: Shape
    batch_size: int = 2
    per_epoch: int = 500
    sampling: Sampling = field(default_factory=PatchSampling)
    augmentation: Augmentation = field(default_factory=Augmentation)
    planes: tuple[Literal[0, 1, 2], ...] = (2,)
    auxiliary: Auxiliary | None = None
    references: tuple[str, ...] = field(default=(), init=False)

    def open(self, data: TrainingData, request: SampleRequest) -> PatchSource:
        """The patches; their instances are empty."""
        volumes = TrainingVolumes(
            studies_of(data, self.auxiliary, request.validation),
            request.reading.scans,
            None,
            self.references,
        )
        return PatchSource(volumes, self, request)


class PatchSource(Dataset[Tensors]):
    """Numbered random patches of studies."""

    def __init__(
        self,
        volumes: TrainingVolumes,
        samples: Patches | UnlabelledPatches,
        request: SampleRequest,
    ) -> None:
        self.volumes, self.samples, self.request = volumes, samples, request

    @property
    def per_epoch(self) -> int:
        return self.samples.per_epoch

    def __getitem__(self, number: int) -> Tensors:
        samples, rng = self.samples, self.request.rng(number)
        volume = self.volumes[int(rng.integers(len(self.volumes)))]
        return self.request.random_patch(
            volume, samples.sampling, samples.size_vox, samples.augmentation, rng, samples.planes
        )


@dataclass(frozen=True)
class ListedPatches:
    """Every patch of a list, in an order that balances them.

    Attributes:
        positions: which patches a study has: all its slices, a regular grid.
        size_vox, batch_size, augmentation, references, auxiliary: as of ``Patches``.
        balance: how patches with and without lesions take turns, and what an epoch is.
        keeps: which of them are learned from; None keeps all.
        has_lesion: which count as patches with a lesion; None counts a lesion voxel anywhere.
    """

    positions: PatchPositions
    size_vox: Shape
    batch_size: int = 2
    balance: Balance = field(default_factory=EveryPatch)
    augmentation: Augmentation = field(default_factory=Augmentation)
    references: tuple[str, ...] = ()
    auxiliary: Auxiliary | None = None
    keeps: PatchFilter | None = None
    has_lesion: HasLesion | None = None

    def open(self, data: TrainingData, request: SampleRequest) -> ListSource:
        """The patches; refuses studies in which no lesion lies."""
        studies = studies_of(data, self.auxiliary, request.validation, self.references)
        source = ListSource(studies, self, request)
        if not request.validation and not source.positive.any():
            raise InputError(NO_LESION)
        return source


class ListSource(Dataset[Tensors]):
    """Numbered patches of a list."""

    def __init__(
        self, studies: Sequence[Study], samples: ListedPatches, request: SampleRequest
    ) -> None:
        self.samples, self.request = samples, request
        self.volumes = request.volumes(studies, samples.references)
        self.positions: list[tuple[int, PatchPosition]] = []
        positive: list[bool] = []
        for number, volume in enumerate(self.volumes):
            for position in samples.positions.of(volume.shape, samples.size_vox):
                if samples.keeps is not None:
                    images = [image.transpose(position.axes) for image in volume.images]
                    if not samples.keeps(images, position, samples.size_vox):
                        continue
                instances = volume.instances.transpose(position.axes)
                lesions = crop(instances, position.start, samples.size_vox) > 0
                self.positions.append((number, position))
                judge = samples.has_lesion
                positive.append(bool(lesions.any()) if judge is None else judge(lesions))
        self.positive = np.array(positive, dtype=bool)
        balance = EveryPatch() if request.validation else samples.balance
        self.kept = balance.kept(self.positive)
        self.balance = balance
        self._epoch: tuple[int, NDArray[np.int64], BoolArray] | None = None

    @property
    def per_epoch(self) -> int:
        return self.kept

    def __getitem__(self, number: int) -> Tensors:
        epoch, index = divmod(number, self.per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            order = self.balance.order(self.positive, epoch, self.request.seed)
            self._epoch = (epoch, order, comes_again(order))
        _, order, again = self._epoch
        volume_number, position = self.positions[order[index]]
        request, samples = self.request, self.samples
        volume = transposed(self.volumes[volume_number], position.axes)
        augmentation = request.allowed(samples.augmentation)
        if again[index] and augmentation.again is not None:
            augmentation = replace(augmentation, spatial=augmentation.again)
        return request.patch(
            volume, lambda _: position.start, samples.size_vox, augmentation, request.rng(number)
        )


@dataclass(frozen=True)
class CombinedSamples:
    """Several sources at once: every sample has one of each, by the name of its source.

    The objective has to know the sources (``learning.objective.BySource``).

    Attributes:
        sources: by name; the first one's batch size, patch and epoch count.
    """

    sources: tuple[tuple[str, Samples], ...]

    @property
    def batch_size(self) -> int:
        return self.sources[0][1].batch_size

    @property
    def size_vox(self) -> Shape:
        return self.sources[0][1].size_vox

    def open(self, data: TrainingData, request: SampleRequest) -> CombinedSource:
        """Every source, each with a seed of its own.

        Raises:
            TypeError: If the objective does not know the sources.
        """
        objective = request.objective
        if not isinstance(objective, MakesTargetsBySource):
            raise TypeError("several sources need an objective for each (objective.BySource)")
        opened = {}
        for number, (name, samples) in enumerate(self.sources):
            own = int(np.random.SeedSequence([request.seed, number]).generate_state(1)[0])
            its = replace(request, objective=objective.of(name), seed=own)
            opened[name] = samples.open(data, its)
        return CombinedSource(opened)


class CombinedSource(Dataset[Tensors]):
    """Numbered samples of several sources."""

    def __init__(self, sources: Mapping[str, NumberedSamples]) -> None:
        self.sources = dict(sources)

    @property
    def per_epoch(self) -> int:
        return next(iter(self.sources.values())).per_epoch

    def __getitem__(self, number: int) -> Tensors:
        return {name: source[number] for name, source in self.sources.items()}


def _check_references(studies: Sequence[Study], names: tuple[str, ...]) -> None:
    """Refuse studies without a further reference before anything is learned.

    Raises:
        InputError: names the first subject, what it lacks, and how many lack something.
    """
    lacking = []
    for study in studies if names else ():
        known = {*study.changes, *study.followup.labels}
        missing = [name for name in names if name not in known]
        if missing:
            lacking.append((study.subject, missing))
    if lacking:
        subject, missing = lacking[0]
        others = f" ({len(lacking)} of {len(studies)} subjects lack some)" if lacking[1:] else ""
        raise InputError(f"sub-{subject}: no reference {', '.join(missing)} to learn from{others}")


def with_lesion(studies: Sequence[Study], task: str) -> list[int]:
    """Numbers of the studies in whose reference something lies.

    Example:
        >>> from lesionwise.types import Grid, Visit, Volume
        >>> studies = []
        >>> for mask in (np.array([[[0, 0]]]), np.array([[[0, 1]]])):
        ...     lesions = Volume(mask, Grid((1, 1, 2), np.eye(4)))
        ...     studies.append(Study("01", (Visit({}, {"lesions": lesions}),)))
        ...
        >>> with_lesion(studies, "lesions")
        [1]
    """
    return [number for number, study in enumerate(studies) if reference_of(study, task).any()]


def studies_of(
    data: TrainingData,
    auxiliary: Auxiliary | None,
    validation: bool = False,
    references: tuple[str, ...] = (),
) -> Sequence[Study]:
    """The studies that samples are taken from, each with all ``references``.

    An auxiliary set that is not given and not required is replaced by the training studies.

    Raises:
        InputError: If there are none, or some lack a reference.

    Example:
        >>> from lesionwise.types import Visit
        >>> data = TrainingData([Study("01", (Visit({}),))], [Study("02", (Visit({}),))])
        >>> [study.subject for study in studies_of(data, auxiliary=None, validation=True)]
        ['02']
    """
    if validation:
        found = data.validation
    elif auxiliary is None:
        found = data.training
    else:
        found = data.auxiliary.get(auxiliary.name, ())
        if not len(found) and not auxiliary.required:
            found = data.training
        if not len(found):
            name = auxiliary.name
            raise InputError(f"no auxiliary set {name} was given (--auxiliary {name}=DATA)")
    if not len(found):
        raise InputError("no study to learn from")
    _check_references(found, references)
    return found


def cut(
    volume: TrainingVolume | TransformedVolume,
    start: Callable[[TrainingVolume | TransformedVolume], Shape],
    size_vox: Shape,
    augmentation: Augmentation,
    normalize: Normalizer | None,
    rng: Generator,
) -> Sample:
    """One patch of a volume, augmented.

    Args:
        volume: with its axes in the order of the patch.
        start: first voxel of the patch in the volume, or in the volume after its augmentation.
        size_vox: of the patch.
        augmentation: of the patch, or of the volume.
        normalize: of each channel of the volume; asks for the whole volume.
        rng: drawn from.

    Example:
        >>> from lesionwise.types import Grid, Visit, Volume
        >>> grid = Grid((4, 4, 4), np.eye(4))
        >>> visit = Visit(
        ...     {"flair": Volume(np.arange(64.0).reshape(grid.shape), grid)},
        ...     {"lesions": Volume(np.zeros(grid.shape, dtype=np.bool_), grid)},
        ... )
        >>> volume = TrainingVolume(Study("01", (visit,)), ("flair",))
        >>> rng = np.random.default_rng(0)
        >>> sample = cut(volume, lambda volume: (1, 1, 1), (1, 1, 2), Augmentation(), None, rng)
        >>> sample.image.tolist()
        [[[[21.0, 22.0]]]]
    """
    if not (augmentation.whole_volume or normalize is not None):
        # The usual, fast way: only the voxels of the patch are resampled.
        first = start(volume)
        i, j, k = volume.shape
        box: Box = (first, (i, j, k))
        transform = _drawn(augmentation, size_vox, volume.spacing_mm, rng, box)
        resampled, instances, labels = _resampled(
            volume, list(volume.images), first, size_vox, transform
        )
        image = _other_intensities(augmentation, resampled, instances, volume.names, rng)
        return Sample(image, instances, labels, volume.spacing_mm)
    i, j, k = volume.shape
    transform = _drawn(augmentation, (i, j, k), volume.spacing_mm, rng)
    # The brain goes along as a further image, since positions are drawn in the moved volume.
    brain = np.ones(volume.shape, np.float32) if volume.brain is None else volume.brain
    resampled, instances, labels = _resampled(
        volume, [*volume.images, brain], (0, 0, 0), (i, j, k), transform
    )
    image = _other_intensities(augmentation, resampled[:-1], instances, volume.names, rng)
    if normalize is not None:
        image = np.stack([normalize(channel) for channel in image])
    whole = TransformedVolume(
        list(image),
        instances,
        labels,
        centers_of_mass(instances)[1],
        resampled[-1] > 0.5,
        volume.spacing_mm,
        volume.names,
    )
    first = start(whole)
    return Sample(
        np.stack([crop(channel, first, size_vox) for channel in image]),
        np.ascontiguousarray(crop(instances, first, size_vox)),
        {name: crop(array, first, size_vox) for name, array in labels.items()},
        volume.spacing_mm,
    )


def tensors(sample: Sample, objective: MakesTargets) -> Tensors:
    """A sample with its targets as tensors: ``image``, ``spacing_mm`` and the targets by name.

    Example:
        >>> from lesionwise.learning.losses import CrossEntropy
        >>> from lesionwise.learning.objective import Supervised
        >>> from lesionwise.learning.targets import LesionMask
        >>> image, instances = np.zeros((1, 4, 4, 4), np.float32), np.zeros((4, 4, 4), np.int32)
        >>> objective = Supervised(LesionMask(), CrossEntropy())
        >>> made = tensors(Sample(image, instances, {}, (1.0, 1.0, 3.0)), objective)
        >>> {name: tuple(tensor.shape) for name, tensor in made.items()}
        {'image': (1, 4, 4, 4), 'spacing_mm': (3,), 'mask': (1, 4, 4, 4)}
    """
    made = objective.make(sample)
    return {
        "image": torch.from_numpy(np.ascontiguousarray(sample.image)),
        "spacing_mm": torch.tensor(sample.spacing_mm, dtype=torch.float32),
        **{name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in made.items()},
    }


def _drawn(
    augmentation: Augmentation,
    size: Shape,
    spacing_mm: tuple[float, float, float],
    rng: Generator,
    volume: Box | None = None,
) -> SpatialTransform:
    if augmentation.spatial is None:
        return SpatialTransform.identity()
    return augmentation.spatial.draw(size, spacing_mm, rng, volume)


def _resampled(
    volume: TrainingVolume | TransformedVolume,
    images: list[NDArray[Any]],
    start: Shape,
    size: Shape,
    transform: SpatialTransform,
) -> tuple[NDArray[np.float32], NDArray[np.int32], dict[str, NDArray[Any]]]:
    maps: dict[str, NDArray[Any]] = {INSTANCES: volume.instances, **volume.labels}
    resampled, cut_maps = resample_patch(images, maps, start, size, transform)
    instances = cut_maps.pop(INSTANCES).astype(np.int32, copy=False)
    return resampled, instances, cut_maps


def _other_intensities(
    augmentation: Augmentation,
    image: NDArray[np.float32],
    instances: NDArray[np.int32],
    names: tuple[str, ...],
    rng: Generator,
) -> NDArray[np.float32]:
    image = augmentation.lesion_contrast(image, instances > 0, rng)
    return image if augmentation.intensity is None else augmentation.intensity(image, names, rng)
