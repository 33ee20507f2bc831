"""Access to the package antspyx: imported where it is used, on one thread, with one seed."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from lesionwise.processes import environment
from lesionwise.types import InputError, Volume

THREADS = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"
_ONE_BY_ONE = threading.RLock()


@contextmanager
def ants_alone(what: str) -> Iterator[Any]:
    """The module ``ants``; what was set before is put back. Threads come in one by one.

    Args:
        what: needs it, for the message.

    Raises:
        InputError: If it is not installed.
    """
    with _ONE_BY_ONE, environment({THREADS: "1"}):  # read once, when the package first computes
        try:
            import ants
        except ImportError as error:
            raise InputError(
                f"{what}: the package antspyx is missing (pip install lesionwise[ants])"
            ) from error
        seed, temporary = ants.config._random_seed, tempfile.tempdir
        with tempfile.TemporaryDirectory() as folder:
            # it writes transforms and probabilities to temporary files and leaves them there
            ants.config._random_seed, tempfile.tempdir = 1, folder
            try:
                yield ants
            finally:
                ants.config._random_seed, tempfile.tempdir = seed, temporary


def to_ants(ants: Any, volume: Volume) -> Any:
    """The volume as an image of ANTs, whose world is taken to be ours (RAS mm).

    Displacements that ANTs finds come back in our world then. Axes must be at right angles.
    """
    spacing = np.array(volume.grid.spacing_mm)
    return ants.from_numpy(
        np.ascontiguousarray(volume.array, dtype=np.float32),
        origin=volume.grid.affine[:3, 3].tolist(),
        spacing=spacing.tolist(),
        direction=volume.grid.affine[:3, :3] / spacing,
    )
