"""Defaults that commands and functions share: each value is set only here."""

from __future__ import annotations

from typing import Final, Literal

Separation = Literal["offsets", "acls", "cc"]
"""Instance separation methods: offset voting, ACLS, connected components."""

MODEL: Final = "conflunet"
"""The shipped model that finds lesions."""
SEPARATIONS: Final[tuple[Separation, ...]] = ("offsets", "acls", "cc")
"""Methods whose lesions ``segment`` and ``compare`` write, as far as the model allows."""
SPLIT_METHOD: Final = "acls"
THRESHOLD: Final = 0.5
"""A mask is probability > threshold."""
MIN_VOLUME_MM3: Final = 14.0
MIN_EXTENT_MM: Final = 3.0
"""Lesions below either are dropped. Source: Wynen et al. (ConfLUNet), section 3."""
FOLDS: Final = 5
DEMO_SEED: Final = 2
"""Of the demo's patient."""

MATCHING: Final = "greedy"
IOU_THRESHOLD: Final = 0.1
EMPTY_SIDES: Final = "agreement"
HD95: Final = "larger_directed"
ASSD: Final = "pooled"
SURFACE_TOLERANCE_MM: Final = 1.0
CONSENSUS: Final = "majority"

COMPARED_MODELS: Final = 10
"""Models of the highest Dice that a search compares by all metrics."""
