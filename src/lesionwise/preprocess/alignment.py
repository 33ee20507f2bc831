"""Whether two visits fit on each other once they are registered, and if not, why.

The limits were chosen from scans of one person and of two, see ``docs/measurements/alignment.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lesionwise.preprocess.registration import LEVELS_MM, register
from lesionwise.preprocess.similarity import similarity
from lesionwise.types import Grid, Matrix, Volume

MIN_ALIKE = 0.65
"""Two scans of one person had 0.85 or more, scans of two people 0.48 or less."""
SURELY_ALIKE = 0.8
"""Above this the mirrored follow-up is not tried: it reached 0.69 at most."""
MIN_BETTER = 0.1
"""How much more alike the mirrored or the unregistered follow-up must be to be called so."""


@dataclass(frozen=True)
class Alignment:
    """How alike two visits are.

    Attributes:
        similarity: after registration, as ``similarity.similarity`` measures it.
        unregistered: by the scanners' coordinates alone.
        mirrored: of the follow-up with left and right exchanged, registered; NaN where it was not
            tried, since the visits are alike beyond doubt.
        reason: why they do not fit; None where they do.
        exchanged: whether left and right are exchanged in one of the two.
    """

    similarity: float
    unregistered: float
    mirrored: float
    reason: str | None = None
    exchanged: bool = False


def alignment_of(
    baseline: Volume,
    followup: Volume,
    world: Matrix,
    *,
    baseline_brain: Volume | None = None,
    followup_brain: Volume | None = None,
) -> Alignment:
    """How alike two registered visits are, and the reason where they do not fit.

    Args:
        baseline, followup: scans of one contrast.
        world: (4, 4), world mm of the baseline to world mm of the follow-up, as registration
            found it.
        baseline_brain, followup_brain: bool, on any grid in the world of their scan.

    Example:
        >>> array = np.random.default_rng(0).uniform(1, 2, (16, 16, 16))
        >>> scan = Volume(array, Grid(array.shape, np.diag([3.0, 3.0, 3.0, 1.0])))
        >>> brain = Volume(np.ones(array.shape, dtype=np.bool_), scan.grid)
        >>> alike = alignment_of(scan, scan, np.eye(4), baseline_brain=brain, followup_brain=brain)
        >>> round(alike.similarity, 2), alike.reason
        (1.0, None)
    """

    def alike(moving: Volume, brain: Volume | None, matrix: Matrix) -> float:
        return similarity(baseline, moving, matrix, baseline_brain, brain)

    found = alike(followup, followup_brain, world)
    unregistered = alike(followup, followup_brain, np.eye(4))
    if found >= SURELY_ALIKE:
        return Alignment(found, unregistered, np.nan)
    mirror = mirror_about(followup, followup_brain)
    swapped = _moved(followup, mirror)
    swapped_brain = None if followup_brain is None else _moved(followup_brain, mirror)
    # a head registered to its mirror image, and the same with either side mirrored at its middle
    starts = (world, mirror @ world @ mirror_about(baseline, baseline_brain))
    brains = baseline_brain, swapped_brain
    matrix, _ = register(baseline, swapped, *brains, starts, LEVELS_MM[:2], "rigid")
    mirrored = alike(swapped, swapped_brain, matrix)
    if mirrored >= found + MIN_BETTER and mirrored >= MIN_ALIKE:
        exchanged = (
            "left and right are exchanged in one of the two: they are more alike when one is "
            f"mirrored ({mirrored:.2f}) than as their headers say ({found:.2f})"
        )
        return Alignment(found, unregistered, mirrored, exchanged, exchanged=True)
    reason = None
    if unregistered >= found + MIN_BETTER:
        reason = (
            f"registration failed: the visits are more alike without it ({unregistered:.2f}) "
            f"than with it ({found:.2f})"
        )
    elif found < MIN_ALIKE:
        reason = (
            f"the visits hardly look alike ({found:.2f}, scans of one person at least "
            f"{MIN_ALIKE:g}): two people, another contrast, or a registration that failed"
        )
    return Alignment(found, unregistered, mirrored, reason)


def mirror_about(scan: Volume, brain: Volume | None) -> Matrix:
    """World matrix that exchanges left and right about the middle of the brain.

    Where the brain is not known, about the middle of the brightest tenth of the voxels.

    Example:
        >>> grid = Grid((5, 5, 5), np.eye(4))
        >>> scan, brain = Volume(np.zeros(grid.shape), grid), Volume(np.ones(grid.shape), grid)
        >>> (mirror_about(scan, brain) @ [0, 2, 2, 1]).tolist()
        [4.0, 2.0, 2.0, 1.0]
    """
    mask = scan.array > np.percentile(scan.array, 90)
    grid = scan.grid
    if brain is not None and brain.array.any():
        mask, grid = brain.array != 0, brain.grid
    middle = grid.world_mm(np.argwhere(mask).mean(axis=0)[None])[0]
    mirror: Matrix = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirror[0, 3] = 2 * middle[0]
    return mirror


def _moved(volume: Volume, world: Matrix) -> Volume:
    return Volume(volume.array, Grid(volume.grid.shape, world @ volume.grid.affine))
