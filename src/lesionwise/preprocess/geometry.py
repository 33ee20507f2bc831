"""Volumes on other grids: resampled, cropped, padded, and their results brought back.

Convention for all of them: a voxel is a box around its center, so a volume with n voxels
of s mm covers n * s mm, and the values of its outermost voxels reach to the faces of that box.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from lesionwise.instances.table import bounding_box
from lesionwise.preprocess.visits import each_visit
from lesionwise.types import Grid, InputError, Instances, Study, Visit, Volume

Order = Literal[0, 1, 3]
"""0 nearest neighbor, 1 linear, 3 cubic B-spline."""


@dataclass(frozen=True)
class Resample:
    """Every visit with voxels of one size along its own axes; the field of view is kept exactly.

    The outer faces of the volume stay where they are. An axis of n voxels gets
    round(n * s / spacing_mm) of them, at least one, so the new spacing departs from the
    one asked for by less than half a voxel spread over the whole axis.

    Scans are interpolated by ``order``, labels and brain masks by nearest neighbor, and labels that
    are fractions (floating point) linearly. Where an axis gets coarser, scans are smoothed first
    (see ``resample_to``).

    Attributes:
        spacing_mm: one number, or one for each of i, j, k.
        order: 1 linear, 3 cubic B-spline, 0 nearest neighbor.
        antialias: smooth before an axis gets coarser.
    """

    spacing_mm: float | tuple[float, float, float] = 1.0
    order: Order = 1
    antialias: bool = True

    def __call__(self, study: Study) -> Study:
        def scan(volume: Volume) -> Volume:
            grid = respaced(volume.grid, self.spacing_mm)
            return resample_to(volume, grid, order=self.order, antialias=self.antialias)

        def label(volume: Volume) -> Volume:
            grid = respaced(volume.grid, self.spacing_mm)
            return resample_to(volume, grid, order=label_order(volume), antialias=self.antialias)

        return map_volumes(study, scan, label)


@dataclass(frozen=True)
class CropToBrain:
    """Every volume cut to the box around the brain mask, ``margin_mm`` wider on each side.

    Visits that share one grid keep sharing it: their boxes are joined. A volume on another
    grid than the mask is cut to the voxels that reach into the box. A box never grows beyond
    the volume. Raises InputError for a visit without a brain mask or with an empty one.
    """

    margin_mm: float = 5.0

    def __call__(self, study: Study) -> Study:
        for visit in study.visits:
            if visit.brain is None:
                raise InputError(f"{_name(study, visit)}: no brain mask to crop to")
            if not visit.brain.array.any():
                raise InputError(f"{_name(study, visit)}: the brain mask is empty")
        return _crop(study, lambda visit: [visit.brain] if visit.brain else [], self.margin_mm)


@dataclass(frozen=True)
class CropToNonzero:
    """Every volume cut to the box in which any scan of its visit is not zero.

    Visits that share one grid keep sharing it. Raises InputError where all scans of a visit
    are zero everywhere.
    """

    margin_mm: float = 0.0

    def __call__(self, study: Study) -> Study:
        for visit in study.visits:
            if not any(volume.array.any() for volume in visit.scans.values()):
                raise InputError(f"{_name(study, visit)}: every voxel is zero")
        return _crop(study, lambda visit: list(visit.scans.values()), self.margin_mm)


@dataclass(frozen=True)
class PadTo:
    """Every volume with at least ``shape`` voxels: zeros on both sides, the odd one at the end."""

    shape: tuple[int, int, int]

    def __call__(self, study: Study) -> Study:
        def pad(volume: Volume) -> Volume:
            missing = [
                max(0, want - have)
                for want, have in zip(self.shape, volume.grid.shape, strict=True)
            ]
            before = [n // 2 for n in missing]
            widths = [(b, n - b) for b, n in zip(before, missing, strict=True)]
            grid = _shifted(
                volume.grid,
                [-b for b in before],
                [sum(w) + n for w, n in zip(widths, volume.grid.shape, strict=True)],
            )
            return Volume(np.pad(volume.array, widths), grid)

        return map_volumes(study, pad, pad)


@dataclass(frozen=True)
class CropToCenter:
    """Every volume cut to at most ``shape`` voxels around its middle; smaller ones stay.

    Of an odd number of voxels too many, the one more goes at the end.
    """

    shape: tuple[int, int, int]

    def __call__(self, study: Study) -> Study:
        def cut(volume: Volume) -> Volume:
            kept = [min(n, most) for n, most in zip(volume.grid.shape, self.shape, strict=True)]
            start = [(n - m) // 2 for n, m in zip(volume.grid.shape, kept, strict=True)]
            inner = tuple(slice(a, a + n) for a, n in zip(start, kept, strict=True))
            array = np.ascontiguousarray(volume.array[inner])
            return Volume(array, _shifted(volume.grid, start, kept))

        return map_volumes(study, cut, cut)


def map_volumes(
    study: Study, scan: Callable[[Volume], Volume], label: Callable[[Volume], Volume]
) -> Study:
    """The study with ``scan`` applied to every scan, ``label`` to labels, brains and changes.

    Example:
        >>> volume = Volume(np.ones((1, 1, 2)), Grid((1, 1, 2), np.eye(4)))
        >>> study = Study("01", (Visit({"flair": volume}, {"lesions": volume}),))
        >>> negative = map_volumes(study, lambda v: Volume(-v.array, v.grid), lambda v: v).visits[0]
        >>> negative.scans["flair"].array.tolist(), negative.labels["lesions"].array.tolist()
        ([[[-1.0, -1.0]]], [[[1.0, 1.0]]])
    """

    def visit_with(visit: Visit) -> Visit:
        return replace(
            visit,
            scans={name: scan(volume) for name, volume in visit.scans.items()},
            labels={name: label(volume) for name, volume in visit.labels.items()},
            brain=None if visit.brain is None else label(visit.brain),
        )

    changes = {name: label(volume) for name, volume in study.changes.items()}
    return replace(each_visit(study, visit_with), changes=changes)


def respaced(grid: Grid, spacing_mm: float | Sequence[float]) -> Grid:
    """The grid with the same outer faces and about ``spacing_mm`` between voxels along i, j, k.

    Example:
        >>> respaced(Grid((10, 10, 4), np.diag([1.0, 1.0, 3.0, 1.0])), 1.0).shape
        (10, 10, 12)
    """
    old = np.array(grid.spacing_mm)
    wanted = np.broadcast_to(np.asarray(spacing_mm, dtype=np.float64), (3,))
    if not (wanted > 0).all():
        raise ValueError(f"spacing must be positive, got {spacing_mm}")
    # 1e-6: sizes that are whole but for rounding in the header must not fall to the lower integer
    shape = np.maximum(1, np.floor(np.array(grid.shape) * old / wanted + 0.5 + 1e-6)).astype(int)
    scale = np.array(grid.shape) / shape
    to_old = np.diag([*scale, 1.0])
    to_old[:3, 3] = (scale - 1) / 2
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), grid.affine @ to_old)


def reshaped(grid: Grid, shape: tuple[int, int, int]) -> Grid:
    """A grid with so many voxels along i, j, k between the same outer faces.

    Example:
        >>> reshaped(Grid((10, 10, 4), np.diag([1.0, 1.0, 3.0, 1.0])), (5, 10, 12)).spacing_mm
        (2.0, 1.0, 1.0)
    """
    scale = np.array(grid.shape) / np.array(shape)
    affine = grid.affine.copy()
    affine[:3, :3] = grid.affine[:3, :3] * scale
    affine[:3, 3] = grid.world_mm((scale - 1) / 2)
    return Grid(shape, affine)


def label_order(volume: Volume) -> Order:
    """How a label volume is interpolated: fractions linearly, labels by nearest neighbor.

    Example:
        >>> grid = Grid((1, 1, 2), np.eye(4))
        >>> label_order(Volume(np.array([[[0.2, 0.8]]]), grid))
        1
        >>> label_order(Volume(np.array([[[0, 7]]]), grid))
        0
    """
    return 1 if np.issubdtype(volume.array.dtype, np.floating) else 0


def resample_to(
    volume: Volume,
    grid: Grid,
    *,
    order: Order,
    world: NDArray[np.float64] | None = None,
    fill: float = 0.0,
    antialias: bool = True,
) -> Volume:
    """The volume's values at the voxel centers of ``grid``.

    Args:
        volume: any dtype. With order 0 the result keeps it; otherwise it is float32.
        grid: may be oblique to the volume's own.
        order: 0 nearest neighbor (halves go to the higher index), 1 linear, 3 cubic B-spline.
        world: (4, 4), world mm of ``grid`` to world mm of the volume, as found by registration;
            None where both share one world.
        fill: value of voxels whose center lies outside the volume's outer faces. Between the
            outermost voxel centers and the faces, the outermost values are continued.
        antialias: with order 1 or 3 and parallel axes of which some get coarser, smooth along
            those by a Gaussian first (full width at half maximum sqrt(f**2 - 1) source
            voxels, f the ratio of the spacings), so that a voxel shows what lies in it rather than
            what lies at its center.

    Returns:
        A volume on ``grid``; the source volume's array itself where the grids match.

    Source of the smoothing: Cardoso et al. 2015, "Scale factor point spread function matching".

    Example:
        >>> thick = Volume(np.array([[[0.0, 2.0]]]), Grid((1, 1, 2), np.diag([1.0, 1.0, 2.0, 1.0])))
        >>> resample_to(thick, respaced(thick.grid, 1.0), order=1).array.tolist()
        [[[0.0, 0.5, 1.5, 2.0]]]
    """
    to_source = _index_map(grid, volume.grid, world)
    if grid.shape == volume.grid.shape and np.allclose(to_source, np.eye(4), atol=1e-4, rtol=0):
        array = volume.array if order == 0 else np.asarray(volume.array, dtype=np.float32)
        return Volume(array, grid)
    array = _resample(volume.array, to_source, grid.shape, order, fill, antialias)
    return Volume(array, grid)


def resample_array_stack(
    stack: NDArray[Any], source: Grid, target: Grid, *, order: Order, fill: float = 0.0
) -> NDArray[Any]:
    """(C, *target.shape): each of the C maps of ``stack`` (C, *source.shape) on the target grid.

    Example:
        >>> source = Grid((4, 4, 2), np.diag([1.0, 1.0, 2.0, 1.0]))
        >>> stack = np.zeros((3, *source.shape), dtype=np.float32)
        >>> resample_array_stack(stack, source, respaced(source, 1.0), order=1).shape
        (3, 4, 4, 4)
    """
    out = np.empty((stack.shape[0], *target.shape), stack.dtype if order == 0 else np.float32)
    for channel, array in enumerate(stack):
        out[channel] = resample_to(Volume(array, source), target, order=order, fill=fill).array
    return out


@contextmanager
def one_thread() -> Iterator[None]:
    """SimpleITK on one thread, so that sums run in one order and results repeat to the last bit.

    Its warnings, which speak of its own classes, are not printed meanwhile. The setting is one for
    all of the process. Blocks may overlap, in one thread or in several: the last to end puts back
    what was set before the first.

    Example:
        >>> with one_thread():
        ...     SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads()
        ...
        1
    """
    default = SimpleITK.ProcessObject
    with _ALONE.changing:
        if _ALONE.blocks == 0:
            _ALONE.before = default.GetGlobalDefaultNumberOfThreads()
            _ALONE.warned = default.GetGlobalWarningDisplay()
            default.SetGlobalDefaultNumberOfThreads(1)
            default.SetGlobalWarningDisplay(False)
        _ALONE.blocks += 1
    try:
        yield
    finally:
        with _ALONE.changing:
            _ALONE.blocks -= 1
            if _ALONE.blocks == 0:
                default.SetGlobalDefaultNumberOfThreads(_ALONE.before)
                default.SetGlobalWarningDisplay(_ALONE.warned)


class _Alone:
    """How many blocks of ``one_thread`` are open, and what was set before them."""

    def __init__(self) -> None:
        self.changing = threading.Lock()
        self.blocks = 0
        self.before = 0
        self.warned = True


_ALONE = _Alone()


def instances_to_grid(
    instances: Instances, mask_on_target: NDArray[np.bool_], grid: Grid
) -> Instances:
    """Lesions on another grid, so that their union is exactly the mask given there.

    A mask voxel takes the label of the source voxel its center lies in. A mask voxel that gets
    none takes the label of the nearest labelled voxel of its own component (26 neighbors,
    distance between voxel centers in mm; ties go to the lowest label). A component that
    holds no label at all becomes one new lesion, numbered after the highest label, in the order
    of the first voxel. Labels are otherwise kept; one that reaches no mask voxel is gone.

    Args:
        instances: any grid, oblique to the target or not.
        mask_on_target: (I, J, K) bool on ``grid``; may be empty.

    Raises:
        ValueError: If the mask does not fit the grid.

    Example:
        >>> grid = Grid((1, 1, 5), np.eye(4))
        >>> lesions = Instances(np.array([[[3, 0, 0, 5, 0]]]), grid)
        >>> mask = np.array([[[1, 1, 0, 0, 1]]], dtype=np.bool_)
        >>> instances_to_grid(lesions, mask, grid).labels.tolist()
        [[[3, 3, 0, 0, 6]]]
    """
    if mask_on_target.shape != grid.shape:
        raise ValueError(f"mask {mask_on_target.shape} does not fit its grid {grid.shape}")
    labels = np.zeros(grid.shape, dtype=np.int32)
    voxels = np.argwhere(mask_on_target)
    if not len(voxels):
        return Instances(labels, grid)
    found = _labels_at(instances, voxels, grid)

    # 26 neighbors: the project's connectivity for lesions
    components, _ = ndimage.label(mask_on_target, structure=np.ones((3, 3, 3)))
    component = components[tuple(voxels.T)]
    unlabelled = np.flatnonzero(found == 0)
    next_label = int(instances.labels.max(initial=0)) + 1
    points_mm = grid.world_mm(voxels)
    for part in dict.fromkeys(component[unlabelled].tolist()):
        empty = unlabelled[component[unlabelled] == part]
        known = np.flatnonzero((component == part) & (found > 0))
        if len(known):
            found[empty] = _nearest_label(points_mm[empty], points_mm[known], found[known])
        else:
            found[empty] = next_label
            next_label += 1
    labels[tuple(voxels.T)] = found
    return Instances(labels, grid)


def _labels_at(instances: Instances, voxels: NDArray[Any], grid: Grid) -> NDArray[np.int32]:
    to_source = _index_map(grid, instances.grid, None)
    index = np.floor(voxels @ to_source[:3, :3].T + to_source[:3, 3] + 0.5).astype(np.int64)
    inside = ((index >= 0) & (index < instances.grid.shape)).all(axis=1)
    found = np.zeros(len(voxels), dtype=np.int32)
    found[inside] = instances.labels[tuple(index[inside].T)]
    return found


def _nearest_label(
    points_mm: NDArray[np.float64], known_mm: NDArray[np.float64], labels: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Label of the nearest known point; ties within 1e-6 mm go to the lowest label."""
    tree = cKDTree(known_mm)
    distance, _ = tree.query(points_mm)
    near = tree.query_ball_point(points_mm, distance + 1e-6)
    return np.array([labels[hits].min() for hits in near], dtype=np.int32)


def _index_map(
    target: Grid, source: Grid, world: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """(4, 4): voxel index in ``target`` to (fractional) voxel index in ``source``."""
    through = target.affine if world is None else world @ target.affine
    return np.asarray(np.linalg.solve(source.affine, through), dtype=np.float64)


def _resample(
    array: NDArray[Any],
    to_source: NDArray[np.float64],
    shape: tuple[int, int, int],
    order: Order,
    fill: float,
    antialias: bool,
) -> NDArray[Any]:
    scale = np.diag(to_source)[:3]
    off_diagonal = to_source[:3, :3] - np.diag(scale)
    # a tilt that moves the far end of the volume by less than 1/1000 voxel is rounding
    if (np.abs(off_diagonal) * (np.array(shape) - 1)).max(initial=0) < 1e-3 and (scale > 0).all():
        return _resample_axes(array, scale, to_source[:3, 3], shape, order, fill, antialias)
    return _resample_oblique(array, to_source, shape, order, fill)


def _resample_axes(
    array: NDArray[Any],
    scale: NDArray[np.float64],
    start: NDArray[np.float64],
    shape: tuple[int, int, int],
    order: Order,
    fill: float,
    antialias: bool,
) -> NDArray[Any]:
    """Parallel axes: one small matrix for each, applied one after the other."""
    positions = [start[axis] + scale[axis] * np.arange(shape[axis]) for axis in range(3)]
    # 1e-4: faces that coincide but for rounding belong to the volume
    inside = [
        (at >= -0.5 - 1e-4) & (at <= n - 0.5 + 1e-4)
        for at, n in zip(positions, array.shape, strict=True)
    ]
    if order == 0:
        nearest = [
            np.clip(np.floor(at + 0.5).astype(int), 0, n - 1)
            for at, n in zip(positions, array.shape, strict=True)
        ]
        out = array[np.ix_(*nearest)]
    else:
        out = np.asarray(array, dtype=np.float32)
        # axes that shrink most go first: everything after them is cheaper
        for axis in np.argsort([shape[a] / array.shape[a] for a in range(3)]):
            matrix = _axis_matrix(
                array.shape[axis],
                shape[axis],
                float(scale[axis]),
                float(start[axis]),
                order,
                antialias,
            )
            if matrix is not None:
                out = _apply_along(out, matrix, int(axis))
        out = np.ascontiguousarray(out)
    if not all(flags.all() for flags in inside):
        for axis, flags in enumerate(inside):
            out[(slice(None),) * axis + (~flags,)] = fill
    return out


@lru_cache(maxsize=64)
def _axis_matrix(
    n_in: int, n_out: int, scale: float, start: float, order: Order, antialias: bool
) -> NDArray[np.float32] | None:
    """(n_out, n_in) weights of one axis; None where they change nothing."""
    if n_in == n_out and abs(scale - 1) * n_in < 1e-4 and abs(start) < 1e-4:
        return None
    basis = np.eye(n_in)
    if antialias and scale > 1 + 1e-3:
        sigma = np.sqrt(scale**2 - 1) / np.sqrt(8 * np.log(2))
        basis = ndimage.gaussian_filter1d(basis, sigma, axis=0, mode="nearest")
    at = np.clip(start + scale * np.arange(n_out), 0, n_in - 1)
    first = np.floor(at).astype(int)
    rest = at - first
    if order == 1:
        taps = {0: 1 - rest, 1: rest}
    else:
        basis = ndimage.spline_filter1d(basis, order=3, axis=0, mode="mirror")
        taps = {
            -1: (1 - rest) ** 3 / 6,
            0: (4 - 6 * rest**2 + 3 * rest**3) / 6,
            1: (1 + 3 * rest + 3 * rest**2 - 3 * rest**3) / 6,
            2: rest**3 / 6,
        }
    weights = np.zeros((n_out, n_in))
    for step, weight in taps.items():
        weights += weight[:, None] * basis[_mirrored(first + step, n_in)]
    # the spline's tails fall to denormal numbers, which cost time and carry nothing
    weights[np.abs(weights) < 1e-7] = 0
    return np.ascontiguousarray(weights, dtype=np.float32)


def _mirrored(index: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Indices outside 0 … n - 1, reflected at the outermost voxel centers."""
    if n == 1:
        return np.zeros_like(index)
    period = 2 * (n - 1)
    wrapped = np.mod(index, period)
    return np.asarray(np.minimum(wrapped, period - wrapped))


SMALL_PRODUCT = 1_000_000
"""Multiplications up to which OpenBLAS computes a product of two matrices in one thread."""


def _apply_along(
    array: NDArray[np.float32], matrix: NDArray[np.float32], axis: int
) -> NDArray[np.float32]:
    """One product of two large matrices, in C or Fortran order as the array lies in memory.

    A stack of products takes a hundred times as long where other programs keep the cores busy:
    BLAS shares each among threads, which then wait for each other. Small ones it does not share.
    """
    if axis == 1 and matrix.size * array.shape[2] <= SMALL_PRODUCT:
        return np.asarray(np.matmul(matrix, array))
    if array.flags.f_contiguous and not array.flags.c_contiguous:
        return _apply_along(array.T, matrix, 2 - axis).T
    i, j, k = array.shape
    if axis == 0:
        return np.asarray((matrix @ array.reshape(i, -1)).reshape(-1, j, k))
    if axis == 1:
        rows = array.swapaxes(0, 1).reshape(j, -1)  # a copy
        return np.ascontiguousarray((matrix @ rows).reshape(-1, i, k).swapaxes(0, 1))
    return np.asarray((array.reshape(-1, k) @ matrix.T).reshape(i, j, -1))


def _resample_oblique(
    array: NDArray[Any],
    to_source: NDArray[np.float64],
    shape: tuple[int, int, int],
    order: Order,
    fill: float,
) -> NDArray[Any]:
    """Any affine, by SimpleITK in voxel indices (its axes run k, j, i)."""
    dtype = array.dtype
    if dtype == np.bool_:
        array = array.view(np.uint8) if order == 0 else array.astype(np.float32)
    elif order:
        array = np.asarray(array, dtype=np.float32)
    elif dtype == np.float16:
        array = array.astype(np.float32)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array))
    flipped = to_source[:3, :3][::-1, ::-1]
    transform = SimpleITK.AffineTransform(flipped.ravel().tolist(), to_source[2::-1, 3].tolist())
    interpolator = {
        0: SimpleITK.sitkNearestNeighbor,
        1: SimpleITK.sitkLinear,
        3: SimpleITK.sitkBSpline3,
    }[order]
    resampled = SimpleITK.Resample(
        image,
        [int(n) for n in shape[::-1]],
        transform,
        interpolator,
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
        (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        float(fill),
        image.GetPixelID(),
    )
    out = SimpleITK.GetArrayFromImage(resampled)
    return out.astype(dtype, copy=False) if order == 0 else out


def _crop(study: Study, inside: Callable[[Visit], Iterable[Volume]], margin_mm: float) -> Study:
    boxes: list[tuple[Grid, NDArray[np.int64]]] = []
    for visit in study.visits:
        for volume in inside(visit):
            box = bounding_box(volume.array)
            if box is None:
                continue
            low = np.array([part.start for part in box])
            high = np.array([part.stop for part in box])
            widen = np.ceil(margin_mm / np.array(volume.grid.spacing_mm) - 1e-6).astype(np.int64)
            boxes.append((volume.grid, np.stack([low - widen, high + widen])))

    def cut_for(visit: Visit) -> Callable[[Volume], Volume]:
        own = [volume.grid for volume in inside(visit)]

        def cut(volume: Volume) -> Volume:
            mine = [b for b in boxes if any(b[0].matches(g) for g in own)]
            corners = [_box_on(volume.grid, grid, box) for grid, box in mine]
            low = np.maximum(np.min([c[0] for c in corners], axis=0), 0)
            high = np.minimum(np.max([c[1] for c in corners], axis=0), volume.grid.shape)
            if (high <= low).any():
                raise InputError(
                    f"{_name(study, visit)}: a volume is outside of the box to crop to"
                )
            array = np.ascontiguousarray(
                volume.array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
            )
            return Volume(array, _shifted(volume.grid, low.tolist(), (high - low).tolist()))

        return cut

    visits = []
    for visit in study.visits:
        cut = cut_for(visit)
        part = map_volumes(replace(study, visits=(visit,), changes={}), cut, cut)
        visits.append(part.visits[0])
    changes = _cut_all(study.changes, cut_for(study.followup))
    return replace(study, visits=tuple(visits), changes=changes)


def _cut_all(volumes: Mapping[str, Volume], cut: Callable[[Volume], Volume]) -> dict[str, Volume]:
    return {name: cut(volume) for name, volume in volumes.items()}


def _box_on(grid: Grid, box_grid: Grid, box: NDArray[np.int64]) -> NDArray[np.int64]:
    """The box in indices of another grid: every voxel that reaches into it."""
    if grid.matches(box_grid):
        return box
    corners = np.array(np.meshgrid(*(box - 0.5).T)).reshape(3, -1).T
    to_grid = _index_map(box_grid, grid, None)
    at = corners @ to_grid[:3, :3].T + to_grid[:3, 3]
    low = np.floor(at.min(axis=0) + 0.5 + 1e-6)
    high = np.ceil(at.max(axis=0) + 0.5 - 1e-6)
    return np.stack([low, high]).astype(np.int64)


def _shifted(grid: Grid, start: Sequence[int], shape: Sequence[int]) -> Grid:
    shift = np.eye(4)
    shift[:3, 3] = start
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), grid.affine @ shift)


def _name(study: Study, visit: Visit) -> str:
    return f"{study.subject} {visit.session}".strip()
