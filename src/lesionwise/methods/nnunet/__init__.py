"""nnU-Net as a method: its fingerprint, plans, preprocessing, training and prediction.

The only place that imports ``nnunetv2``, and only when a method is fitted or loaded.
"""

from lesionwise.methods.nnunet.cases import AugmentedCopies, DropPlainSlices
from lesionwise.methods.nnunet.method import NnunetMethod
from lesionwise.methods.nnunet.settings import (
    Augmentation,
    InstanceHeads,
    Learning,
    LesionEnhancement,
    Plans,
)

__all__ = [
    "Augmentation",
    "AugmentedCopies",
    "DropPlainSlices",
    "InstanceHeads",
    "Learning",
    "LesionEnhancement",
    "NnunetMethod",
    "Plans",
]
