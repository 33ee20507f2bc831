"""Scans without their faces, for pages that others may see."""

from __future__ import annotations

from lesionwise.io.space import on_grid
from lesionwise.preprocess.brain import brain_mask
from lesionwise.types import Volume


def brain_without_face(image: Volume, brain: Volume | None, name: str = "scan") -> Volume:
    """What a page shows of a scan with skull and face: the brain that is found in it.

    Pages are black further than 3 mm from brain and lesions. Where results were made without brain
    extraction, or with a mask that holds the face, the mask is bounded by the brain of the scan.

    Args:
        image: the scan as read.
        brain: its mask so far, on the grid of the image.
        name: of the scan, for messages.

    Returns:
        bool, on the grid of the image.

    Raises:
        NoBrainFound: If the scan shows none.
    """
    found = on_grid(brain_mask(image, name=name), image.grid, name="brain")
    inside = found.array != 0
    if brain is not None:
        inside &= on_grid(brain, image.grid, name="brain").array != 0
    return Volume(inside, image.grid)
