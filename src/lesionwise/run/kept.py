"""What ``compare`` found in each visit, kept until it is done, so that a call after an interruption
goes on from there."""

from __future__ import annotations

import math
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lesionwise.io.checked import read_checked
from lesionwise.io.files import atomic_folder, file_system_errors, write_json
from lesionwise.io.record import STATE, FileRecord, damage, file_records
from lesionwise.report.stages import Stage
from lesionwise.results.names import ScanFiles
from lesionwise.run.find_lesions import VisitResult
from lesionwise.types import Grid, InputError, Instances, Visit, Volume

ARRAYS = "arrays.zip"
ABOUT = "found.json"
LARGEST_SLICE = 2**24
"""Pixels of a picture of a stage, at most."""
LARGEST_GRID = 2**31
"""Voxels of a prepared scan, at most."""


@dataclass(frozen=True)
class _KeptStage:
    step: str
    shapes: tuple[tuple[int, int], tuple[int, int]]
    outlined: bool
    window: tuple[float, float]

    def __post_init__(self) -> None:
        sides = [side for shape in self.shapes for side in shape]
        if min(sides) < 0 or max(math.prod(shape) for shape in self.shapes) > LARGEST_SLICE:
            raise ValueError("a picture is larger than a slice can be")


@dataclass(frozen=True)
class _Kept:
    """What stands beside the arrays.

    Attributes:
        settings: all that decides the results of the visit.
        shape, affine: of the prepared grid.
        instances: names of the separation methods, the main one first.
        has_own_brain: whether the visit itself carries a brain mask.
        files: size and hash of the arrays.
    """

    settings: dict[str, Any]
    shape: tuple[int, int, int]
    affine: tuple[tuple[float, float, float, float], ...]
    instances: tuple[str, ...]
    threshold: float
    has_own_brain: bool
    seconds: dict[str, float]
    warnings: tuple[str, ...]
    stages: tuple[_KeptStage, ...]
    files: dict[str, FileRecord]

    def __post_init__(self) -> None:
        if not self.instances or len(self.affine) != 4:
            raise ValueError("no grid, or no separation method")
        if min(self.shape) < 1 or math.prod(self.shape) > LARGEST_GRID:
            raise ValueError("a grid of no such size")


@contextmanager
def kept_until_done(output: Path) -> Iterator[Path]:
    """The folder in which results of visits are kept within the block.

    It is removed where the block ends, also by an ``InputError``, since the same call would come
    to the same error. After a kill, Ctrl-C or any other error it stays.
    """
    place = output / STATE / "visits"
    is_new = not output.exists()
    try:
        yield place
    except InputError:
        _forget(place)
        if is_new:
            _remove_empty(output)
        raise
    _forget(place)


def _forget(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    _remove_empty(place.parent)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # other things are in it, or it is not there
        folder.rmdir()


def keep(place: Path, files: ScanFiles, settings: Mapping[str, Any], found: VisitResult) -> None:
    """Keep the results of a visit whole, or not at all.

    Args:
        place: from ``kept_until_done``.
        files: of the visit's scan.
        settings: all that decides the results, as JSON holds it.

    Raises:
        InputError: If the disk does not take them.
    """
    brain = found.visit.brain
    arrays: list[NDArray[Any]] = [
        found.brain.array.astype(np.bool_),
        *([] if brain is None else [brain.array.astype(np.bool_)]),
        found.probability.array.astype(np.float32),
        found.mask.array.astype(np.bool_),
        *(lesions.labels.astype(np.int32) for lesions in found.instances.values()),
    ]
    for stage in found.stages:
        arrays += [values.astype(np.float32) for values in stage.slices]
        arrays += [] if stage.brain is None else [inside.astype(np.bool_) for inside in stage.brain]
    with atomic_folder(place / files.name) as folder:
        with (
            file_system_errors(place),
            zipfile.ZipFile(folder / ARRAYS, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed,
        ):
            for number, array in enumerate(arrays):
                packed.writestr(str(number), np.ascontiguousarray(array).data.cast("B"))
        about = _Kept(
            settings=dict(settings),
            shape=found.prepared_grid.shape,
            affine=tuple((*map(float, row),) for row in found.prepared_grid.affine),  # type: ignore[misc]
            instances=tuple(found.instances),
            threshold=found.threshold,
            has_own_brain=brain is not None,
            seconds=dict(found.seconds),
            warnings=found.warnings,
            stages=tuple(
                _KeptStage(
                    stage.step,
                    (_shape(stage.slices[0]), _shape(stage.slices[1])),
                    stage.brain is not None,
                    (float(stage.window[0]), float(stage.window[1])),
                )
                for stage in found.stages
            ),
            files=file_records(folder, [folder / ARRAYS]),
        )
        write_json(folder / ABOUT, vars(about))


def read_kept(
    place: Path, files: ScanFiles, settings: Mapping[str, Any], visit: Visit
) -> VisitResult | None:
    """What an earlier call found in a visit; None where it kept nothing with these settings.

    Args:
        place, files, settings: as for ``keep``.
        visit: as read from the scan; results lie on the grid of its first scan.
    """
    folder = place / files.name
    grid = next(iter(visit.scans.values())).grid
    try:
        about = read_checked(folder / ABOUT, _Kept)
        if about.settings != dict(settings) or damage(folder, about.files):
            return None
        with zipfile.ZipFile(folder / ARRAYS) as packed:
            return _read(about, _Arrays(packed), grid, visit)
    except (InputError, OSError, KeyError, ValueError, RuntimeError, EOFError):
        return None  # damaged, so the visit is done again
    except (zipfile.BadZipFile, zlib.error):
        return None  # damaged, so the visit is done again


class _Arrays:
    """The arrays of a file, one after the other."""

    def __init__(self, packed: zipfile.ZipFile) -> None:
        self._packed = packed
        self._number = 0

    def next(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        with self._packed.open(str(self._number)) as file:
            content = file.read(size + 1)
        if len(content) != size:
            raise ValueError("an array of another size")
        self._number += 1
        return np.frombuffer(bytearray(content), dtype).reshape(shape)


def _read(about: _Kept, arrays: _Arrays, grid: Grid, visit: Visit) -> VisitResult:
    brain = Volume(arrays.next(grid.shape, np.bool_), grid)
    own = Volume(arrays.next(grid.shape, np.bool_), grid) if about.has_own_brain else None
    probability = Volume(arrays.next(grid.shape, np.float32), grid)
    mask = Volume(arrays.next(grid.shape, np.bool_), grid)
    instances = {
        name: Instances(arrays.next(grid.shape, np.int32), grid) for name in about.instances
    }
    stages = []
    for stage in about.stages:
        one, other = stage.shapes
        slices = (arrays.next(one, np.float32), arrays.next(other, np.float32))
        inside = None
        if stage.outlined:
            inside = (arrays.next(one, np.bool_), arrays.next(other, np.bool_))
        stages.append(Stage(stage.step, slices, inside, stage.window))
    return VisitResult(
        visit=Visit(visit.scans, visit.labels, own, visit.session, visit.to_native),
        brain=brain,
        probability=probability,
        mask=mask,
        instances=instances,
        threshold=about.threshold,
        seconds=about.seconds,
        prepared_grid=Grid(about.shape, np.array(about.affine)),
        warnings=about.warnings,
        stages=tuple(stages),
    )


def _shape(array: NDArray[Any]) -> tuple[int, int]:
    rows, columns = array.shape
    return rows, columns
