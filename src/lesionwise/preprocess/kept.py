"""Results of slow steps, kept in a folder for as long as a call wants them.

Recipes that are compared on one data set begin alike: they register the same scans, find the same
brains, remove the same bias fields, and do it again for each held-out patient. Within
``results_kept`` such a result is computed once and then read. It is found by everything that it
was computed from, to the last bit, so the same arrays come back.

A result is kept for as long as the folder is; a version of the package that computes otherwise
does not notice, so the folder belongs to one piece of work.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionwise.io.files import atomic_path
from lesionwise.types import Grid, Volume

VARIABLE = "LESIONWISE_KEPT_RESULTS"
"""Environment variable that names the folder, so that processes started within know it too."""

Arrays = tuple[NDArray[Any], ...]

_lock = threading.Lock()
_saved_s = 0.0


@contextmanager
def results_kept(folder: Path) -> Iterator[None]:
    """Within, ``kept`` looks into this folder first, also in processes that are started within.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name, results_kept(Path(name)):
        ...     for _ in range(2):
        ...         found = kept("sum", (1, 2), lambda: print("computed") or (np.array(3),))
        computed
        >>> int(found[0])
        3
    """
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(folder.absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def kept(name: str, inputs: tuple[Any, ...], compute: Callable[[], Arrays]) -> Arrays:
    """What ``compute()`` gives, or what it gave before from the same inputs.

    Outside ``results_kept`` it is always computed. An error of ``compute`` is not kept; a file that
    cannot be read is made anew.

    Args:
        name: of the computation: letters, digits and hyphens.
        inputs: all that the result depends on: numbers, texts, None, arrays, volumes, grids, and
            tuples of these.

    Raises:
        TypeError: For an input of another type.

    Example:
        >>> [array.tolist() for array in kept("twice", (4,), lambda: (np.array([8]),))]
        [[8]]
    """
    global _saved_s
    folder = os.environ.get(VARIABLE)
    if not folder:
        return compute()
    digest = hashlib.blake2b(digest_size=20)
    _feed(digest.update, inputs)
    path = Path(folder) / f"{name}-{digest.hexdigest()}.npz"
    started = time.perf_counter()
    known = _read(path)
    if known is not None:
        *arrays, seconds = known
        with _lock:
            _saved_s += max(0.0, float(seconds) - (time.perf_counter() - started))
        return tuple(arrays)
    computed = compute()
    seconds = np.array(time.perf_counter() - started)
    with atomic_path(path) as making, making.open("wb") as file:
        np.savez_compressed(file, *computed, seconds)
    return computed


def saved_s() -> float:
    """Seconds that this process did not need to compute because results were kept.

    Of computations side by side in threads, each counts.

    Example:
        >>> saved_s() >= 0
        True
    """
    return _saved_s


def _read(path: Path) -> Arrays | None:
    """The arrays of a file, in order; None where there is none, or none that can be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = tuple(file[f"arr_{number}"] for number in range(len(file.files)))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return arrays or None


def _feed(update: Callable[[Any], object], value: Any) -> None:
    """Give a value to a hash, in a way that no other value has."""
    if value is None or isinstance(value, (bool, int, float, str)):
        update(f"{type(value).__name__}:{value!r};".encode())
    elif isinstance(value, np.ndarray):
        update(f"array:{value.dtype.str}:{value.shape};".encode())
        update(np.ascontiguousarray(value).view(np.uint8).data)
    elif isinstance(value, tuple):
        update(f"tuple:{len(value)};".encode())
        for part in value:
            _feed(update, part)
    elif isinstance(value, Grid):
        _feed(update, (value.shape, np.asarray(value.affine)))
    elif isinstance(value, Volume):
        _feed(update, (np.asarray(value.array), value.grid))
    else:
        raise TypeError(f"results cannot be kept by a {type(value).__name__}")
