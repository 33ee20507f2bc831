"""Volumes inside a page: small NIfTI files as text, and what the viewer must know about them."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from lesionwise.instances.voxels import renumbered
from lesionwise.report.display import Display
from lesionwise.report.render import asset_bytes

_nibabel: Any = nibabel  # nibabel states no types here

NIIVUE = "niivue-0.69.0.umd.js.gz"
"""The release's own file, compressed as it goes into a page; see ``niivue-LICENSE.txt``."""


@dataclass(frozen=True)
class Embedded:
    """One volume as a page holds it.

    Attributes:
        content: NIfTI-1, gzip, base64.
        labels: the lesion that each value 1, 2, … stands for; empty for an image.
    """

    content: str
    labels: tuple[int, ...] = ()


def embed_image(display: Display, to_common: NDArray[np.float64]) -> Embedded:
    """The gray levels of a visit, in common world mm."""
    return Embedded(_nifti(display.gray, to_common @ display.grid.affine))


def embed_labels(display: Display, to_common: NDArray[np.float64]) -> Mapping[str, Embedded]:
    """The lesions of a visit by method, numbered 1, 2, … so that a byte a voxel mostly suffices."""
    found = {}
    for method, labels in display.labels.items():
        values, numbers = renumbered(labels)
        small = numbers.astype(np.uint8 if len(values) < 256 else np.uint16)
        found[method] = Embedded(
            _nifti(small, to_common @ display.grid.affine, intent="label"),
            tuple(int(value) for value in values),
        )
    return found


@cache
def niivue() -> str:
    """The viewer's program, gzip and base64: a third of its size, unpacked by the browser."""
    return base64.b64encode(asset_bytes(NIIVUE)).decode("ascii")


def _nifti(array: NDArray[Any], affine: NDArray[np.float64], intent: str = "none") -> str:
    image = _nibabel.Nifti1Image(np.asfortranarray(array), affine)
    image.header.set_xyzt_units("mm")
    image.header.set_intent(intent)  # the viewer draws outlines for labels only
    return _pack(image.to_bytes())


def _pack(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, compresslevel=9, mtime=0)).decode("ascii")
