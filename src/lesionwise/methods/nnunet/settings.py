"""What a recipe may ask of nnU-Net.

Every default is nnU-Net's own, so that a recipe states what its document states.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lesionwise.learning.optimizers import Optimizer, Sgd
from lesionwise.learning.schedules import Polynomial, Schedule

AxisName = Literal["i", "j", "k"]


@dataclass(frozen=True)
class Plans:
    """Values that replace those of nnU-Net's planning; None leaves a value to nnU-Net.

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
class Learning:
    """How the weights are learned.

    Attributes:
        learning_rate: at the start.
        optimizer, weight_decay, schedule: as their names say. The schedule sees the log: ``total``
            (the training loss), ``validation_loss`` and ``validation_dsc`` of each epoch.
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
    optimizer: Optimizer = field(default_factory=lambda: Sgd(momentum=0.99, nesterov=True))
    weight_decay: float = 3e-5
    schedule: Schedule = field(default_factory=Polynomial)
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
