"""Random patches in fixed shares: of each batch with a lesion, or of each study.

``Patches`` draws the study and the position of every patch by chance. Here the shares are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch.utils.data import Dataset

from lesionwise.instances.reference import NO_LESION
from lesionwise.learning.samplers import PatchSampling, Sampling
from lesionwise.learning.samples import (
    Augmentation,
    SampleRequest,
    Tensors,
    studies_of,
    with_lesion,
)
from lesionwise.types import Auxiliary, InputError, Shape, Study, TrainingData


@dataclass(frozen=True)
class StratifiedPatches:
    """Random patches, of which a fixed number in every batch holds a lesion.

    The first ``round(lesion_fraction * batch_size)`` patches of a batch come from studies with
    lesions, each equally likely, and hold a lesion's center; the others lie anywhere in any study.

    Attributes:
        size_vox, batch_size, per_epoch, augmentation, references, auxiliary: as of ``Patches``.
            An epoch of whole batches keeps the share exact.
        lesion_fraction: of a batch.

    Example:
        ``StratifiedPatches((32, 32, 32), batch_size=128, lesion_fraction=0.3)``
    """

    size_vox: Shape
    batch_size: int = 2
    per_epoch: int = 500
    lesion_fraction: float = 0.5
    augmentation: Augmentation = field(default_factory=Augmentation)
    references: tuple[str, ...] = ()
    auxiliary: Auxiliary | None = None

    def open(self, data: TrainingData, request: SampleRequest) -> StratifiedSource:
        """The patches; refuses training studies in which no lesion lies."""
        studies = studies_of(data, self.auxiliary, request.validation, self.references)
        source = StratifiedSource(studies, self, request)
        if not request.validation and not source.with_lesion:
            raise InputError(NO_LESION)
        return source


class StratifiedSource(Dataset[Tensors]):
    """Numbered random patches with a fixed share around lesions."""

    def __init__(
        self, studies: Sequence[Study], samples: StratifiedPatches, request: SampleRequest
    ) -> None:
        self.samples, self.request = samples, request
        self.volumes = request.volumes(studies, samples.references)
        self.with_lesion = with_lesion(studies, request.reading.task)

    @property
    def per_epoch(self) -> int:
        return self.samples.per_epoch

    def __getitem__(self, number: int) -> Tensors:
        samples, rng = self.samples, self.request.rng(number)
        place = number % samples.per_epoch % samples.batch_size
        positive = bool(self.with_lesion) and place < round(
            samples.lesion_fraction * samples.batch_size
        )
        among: Sequence[int] = self.with_lesion if positive else range(len(self.volumes))
        volume = self.volumes[int(rng.choice(among))]
        sampling = PatchSampling(1.0 if positive else 0.0)
        return self.request.random_patch(
            volume, sampling, samples.size_vox, samples.augmentation, rng
        )


@dataclass(frozen=True)
class PatchesOfEachStudy:
    """Random patches, equally many of each study in every epoch.

    Studies take turns, in an order of their own for each round.

    Attributes:
        size_vox, batch_size, sampling, augmentation, references, auxiliary: as of ``Patches``.
        per_study: patches of each study in an epoch.

    Example:
        ``PatchesOfEachStudy((56, 56, 56), batch_size=40, per_study=872)``
    """

    size_vox: Shape
    batch_size: int = 2
    per_study: int = 100
    sampling: Sampling = field(default_factory=PatchSampling)
    augmentation: Augmentation = field(default_factory=Augmentation)
    references: tuple[str, ...] = ()
    auxiliary: Auxiliary | None = None

    def open(self, data: TrainingData, request: SampleRequest) -> SourceOfEachStudy:
        """The patches; refuses training studies in which no lesion lies."""
        studies = studies_of(data, self.auxiliary, request.validation, self.references)
        if not request.validation and not with_lesion(studies, request.reading.task):
            raise InputError(NO_LESION)
        return SourceOfEachStudy(studies, self, request)


class SourceOfEachStudy(Dataset[Tensors]):
    """Numbered random patches of studies that take turns."""

    def __init__(
        self, studies: Sequence[Study], samples: PatchesOfEachStudy, request: SampleRequest
    ) -> None:
        self.samples, self.request = samples, request
        self.volumes = request.volumes(studies, samples.references)

    @property
    def per_epoch(self) -> int:
        return self.samples.per_study * len(self.volumes)

    def __getitem__(self, number: int) -> Tensors:
        request, samples = self.request, self.samples
        turn, place = divmod(number, len(self.volumes))
        order = np.random.default_rng([request.seed, 1, turn]).permutation(len(self.volumes))
        volume = self.volumes[int(order[place])]
        return request.random_patch(
            volume, samples.sampling, samples.size_vox, samples.augmentation, request.rng(number)
        )
