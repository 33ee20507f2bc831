"""The preprocessing that the MSSEG-2 challenge gave its systems, as steps."""

from __future__ import annotations

from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.brain_masks import MaskToBrain, SharedBrain
from lesionwise.preprocess.halfway import RegisterToHalfway
from lesionwise.preprocess.intensity import N4

MSSEG2_STEPS = (
    ExtractBrain(),
    RegisterToHalfway(),
    SharedBrain("union"),
    MaskToBrain(),
    N4(),
)
"""Brain extraction, scans that lie in one space, masked by the union of both brains, and N4.

The challenge's pairs came registered half way. Its steps were Anima's, these are ours. Denoising,
which one chapter names besides, is left to the recipes.

Source: Proceedings of MSSEG-2, 2021.
"""
