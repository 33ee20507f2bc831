"""What a recipe may ask of nnU-Net, and how it is written down.

Every default is nnU-Net's own, so that a recipe states what its document states.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

AxisName = Literal["i", "j", "k"]


@dataclass(frozen=True)
class Plans:
    """What nnU-Net's planning is told instead of deciding it; None leaves it to nnU-Net.

    Attributes:
        first_axis: the axis that comes first in nnU-Net's order, in which ``spacing_mm`` and
            ``patch_size_vox`` are given; the others follow as k, j, i. In 2D the slices lie
            along it. None: the axis with the largest spacing, k among equals.
        spacing_mm: three numbers.
        patch_size_vox: three numbers in 3D; two in 2D, which leave ``first_axis`` out.
        batch_size: patches a step.
        base_features: of the first level; doubled at each level.
        max_features: None: 320 in 3D, 512 in 2D.
        dropout: probability with which a convolution's output channel is dropped.
        down_sampling: between levels: by convolutions with a stride, as nnU-Net, or by max pooling
            before the convolutions of a level. nnU-Net's own commands read runs of the latter
            only where lesionwise is installed.
        gpu_memory_gb: what patch and batch size are fitted into.
        normalization: of every scan.
        keep_voxels: tell nnU-Net that every voxel measures 1 mm, so that it resamples none.
    """

    first_axis: AxisName | None = None
    spacing_mm: tuple[float, ...] | None = None
    patch_size_vox: tuple[int, ...] | None = None
    batch_size: int | None = None
    base_features: int = 32
    max_features: int | None = None
    dropout: float = 0.0
    down_sampling: Literal["strided convolution", "max pooling"] = "strided convolution"
    gpu_memory_gb: float = 8.0
    normalization: Literal["z-score", "rescale to [0, 1]", "none"] = "z-score"
    keep_voxels: bool = False


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent."""

    momentum: float = 0.99
    nesterov: bool = True
    weight_decay: float = 3e-5


@dataclass(frozen=True)
class Adam:
    """Adam; the weight decay is part of the gradient."""

    weight_decay: float = 3e-5


@dataclass(frozen=True)
class Polynomial:
    """The rate falls from its start to ``last`` as (1 - share of the training) ** power."""

    power: float = 0.9
    last: float = 0.0

    def rate(
        self,
        start: float,
        share: float,
        training_losses: Sequence[float],
        validation_losses: Sequence[float],
    ) -> float:
        """The rate after a share of the training, 0 to 1; losses play no part."""
        left: float = (1 - min(1.0, share)) ** self.power
        return self.last + (start - self.last) * left


@dataclass(frozen=True)
class Plateau:
    """The rate is divided where neither loss has dropped for a while.

    A loss has dropped when it lies at least ``least_drop`` below the lowest one that counted as
    a drop (or the first). After ``patience_epochs`` epochs without a drop of the training loss
    or of the validation loss, the rate is divided and the wait begins anew.
    """

    divisor: float = 5.0
    patience_epochs: int = 30
    least_drop: float = 0.005

    def rate(
        self,
        start: float,
        share: float,
        training_losses: Sequence[float],
        validation_losses: Sequence[float],
    ) -> float:
        """The rate of the epoch that follows these losses, one of each kind an epoch."""
        rate, waited = start, 0
        lowest: list[float] | None = None
        for losses in zip(training_losses, validation_losses, strict=True):
            if lowest is None:
                lowest = list(losses)
                continue
            dropped = False
            for kind, loss in enumerate(losses):
                # a drop of exactly the least counts, however its difference is rounded
                if loss <= lowest[kind] - self.least_drop + 1e-9:
                    lowest[kind], dropped = loss, True
            waited = 0 if dropped else waited + 1
            if waited >= self.patience_epochs:
                rate, waited = rate / self.divisor, 0
        return rate


@dataclass(frozen=True)
class Learning:
    """How the weights are learned.

    Attributes:
        learning_rate: at the start.
        optimizer, schedule: as their names say.
        epochs, batches_per_epoch: an epoch is a number of batches, whatever the data set.
        validation_batches: after each epoch, for the loss and the Dice of the log.
        loss: Dice + cross-entropy over softmax, or Dice + binary cross-entropy over sigmoid;
            both parts weigh the same.
        oversample_lesions: share of the patches that surely hold a lesion.
        save_every: epochs between checkpoints; one is written after ten minutes in any case.
        precision: "float32", or "bfloat16" where the processor computes it natively. On a GPU
            nnU-Net's own mixed precision is used.
    """

    learning_rate: float = 0.01
    optimizer: Sgd | Adam = field(default_factory=Sgd)
    schedule: Polynomial | Plateau = field(default_factory=Polynomial)
    epochs: int = 1000
    batches_per_epoch: int = 250
    validation_batches: int = 50
    loss: Literal["dice+ce", "dice+bce"] = "dice+ce"
    oversample_lesions: float = 0.33
    save_every: int = 50
    precision: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True)
class LesionEnhancement:
    """Lesion voxels of the last visit are made brighter or darker.

    Attributes:
        probability: of a patch to be changed.
        shift: range of what is added, in standard deviations of the normalized scan.
    """

    probability: float = 0.5
    shift: tuple[float, float] = (-0.5, 0.5)


@dataclass(frozen=True)
class Augmentation:
    """What differs from nnU-Net's own augmentation; None leaves it as nnU-Net has it.

    Attributes:
        rotation_deg: each axis turns by an angle between -this and this.
        scaling: range of the factor by which the sampled field of view grows.
        elastic: probability of an elastic deformation.
        intensity: noise, blur, brightness, contrast, low resolution and gamma.
        mirror: axes, of i, j, k; in prediction the same ones are averaged.
        enhancement: of lesions.
    """

    rotation_deg: float | None = None
    scaling: tuple[float, float] | None = None
    elastic: float = 0.0
    intensity: bool = True
    mirror: tuple[AxisName, ...] | None = None
    enhancement: LesionEnhancement | None = None


@dataclass(frozen=True)
class InstanceHeads:
    """Two more heads: a center heatmap, and offsets to the center of each lesion.

    Attributes:
        sigma_mm: width of the Gaussian at each center.
        heatmap: weight of its mean squared error.
        offsets: weight of the mean absolute error over lesion voxels.
    """

    sigma_mm: float = 2.0
    heatmap: float = 1.0
    offsets: float = 1.0


KINDS = {
    kind.__name__: kind
    for kind in (Sgd, Adam, Polynomial, Plateau, Learning, LesionEnhancement, Augmentation,
                 InstanceHeads, Plans)
}  # fmt: skip


def to_json(part: Any) -> Any:
    """Settings as what JSON holds; a dataclass is named under ``is``."""
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        values = {f.name: to_json(getattr(part, f.name)) for f in dataclasses.fields(part)}
        return {"is": type(part).__name__, **values}
    if isinstance(part, tuple):
        return [to_json(member) for member in part]
    return part


def from_json(part: Any) -> Any:
    """What ``to_json`` was given; lists become tuples."""
    if isinstance(part, Mapping):
        values = {name: from_json(value) for name, value in part.items() if name != "is"}
        return KINDS[part["is"]](**values)
    if isinstance(part, list):
        return tuple(from_json(member) for member in part)
    return part
