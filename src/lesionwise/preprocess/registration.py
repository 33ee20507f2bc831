"""Visits brought onto each other: linear maps between the worlds of two scans.

A world matrix is (4, 4) and maps world mm of the fixed scan to world mm of the moving scan: the
direction in which ``geometry.resample_to`` asks for values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from lesionwise.preprocess.geometry import label_order, one_thread, resample_to, respaced
from lesionwise.preprocess.kept import Arrays, kept
from lesionwise.preprocess.similarity import similarity
from lesionwise.preprocess.visits import map_parallel
from lesionwise.types import BoolArray, Grid, InputError, Matrix, Study, Visit, Volume

Point = NDArray[np.float64]
"""(3,) world mm."""
Model = Literal["rigid", "affine"]
KEPT_STARTS = 3
LEVELS_MM = (6.0, 3.0, 2.0)
"""Voxel sizes of the levels, coarse to fine."""
WIDE_MM, KEPT_WIDE_STARTS, WIDE_APART = 8.0, 5, 30.0
"""Voxel size at which starts in all directions are compared, how many of them are followed, and
how many degrees these are apart."""
POOR_FIT = 0.7
"""Of ``similarity``: below this the usual starts are not trusted, and all directions are tried."""
SAMPLES = 60_000
"""Where a mask has more voxels, so many random voxels of the whole grid are drawn, and mutual
information is computed from those in the mask, about a sixth of them in a head. More changed the
result by less than 0.03 mm."""


def rigid(
    fixed: Volume,
    moving: Volume,
    *,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    start: Matrix | None = None,
    levels_mm: tuple[float, ...] = LEVELS_MM,
) -> Matrix:
    """World matrix, fixed mm to moving mm, of the rotation and shift that align two scans.

    Mattes mutual information within the mask, on copies with ever smaller voxels. It starts
    from the scanners' own coordinates, from the shift between the centers of mass and from
    turned heads; the three starts that agree best are followed at the coarsest level. Where the
    two scans do not look alike then (``similarity``), starts turned in all directions are tried
    too, and the result that looks more alike is kept.

    Args:
        fixed, moving: any contrast and spacing, oblique or not.
        fixed_mask: bool, on any grid in the fixed world: where agreement is measured (the brain,
            somewhat widened: its border helps). None: all voxels above the background.
        moving_mask: used for the center of mass, and to tell whether the scans look alike.
        start: world matrix to start from instead.
        levels_mm: voxel sizes, coarse to fine; an axis with larger voxels keeps them.

    Raises:
        InputError: If a scan is constant, or the two nowhere overlap.

    Deterministic: fixed samples, one thread. Source: Mattes et al. 2003, as in SimpleITK.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> head = ndimage.gaussian_filter(rng.normal(size=(16, 16, 16)), 2).astype(np.float32)
        >>> fixed = Volume(head, Grid(head.shape, np.diag([6.0, 6.0, 6.0, 1.0])))
        >>> affine = fixed.grid.affine.copy()
        >>> affine[0, 3] = 6  # the same head, 6 mm further to the right
        >>> moving = Volume(head, Grid(head.shape, affine))
        >>> matrix = rigid(fixed, moving, start=np.eye(4), levels_mm=(6.0,))
        >>> round(float(matrix[0, 3]))
        6
    """
    starts = () if start is None else (start,)
    return register(fixed, moving, fixed_mask, moving_mask, starts, levels_mm, "rigid")[0]


def register(
    fixed: Volume,
    moving: Volume,
    fixed_mask: Volume | None,
    moving_mask: Volume | None,
    starts: Sequence[Matrix],
    levels_mm: tuple[float, ...],
    model: Model,
) -> tuple[Matrix, float]:
    """World matrix and the agreement it reaches: negative mutual information, lower is better.

    As ``rigid``; ``affine`` has scaling and shear as well (12 parameters). The few of ``starts``
    that agree best are refined at the coarsest level, and the best of those goes on; none given
    means the usual ones, and where these lead to a poor fit, starts in all directions.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> head = ndimage.gaussian_filter(rng.normal(size=(16, 16, 16)), 2).astype(np.float32)
        >>> scan = Volume(head, Grid(head.shape, np.diag([6.0, 6.0, 6.0, 1.0])))
        >>> matrix, agreement = register(scan, scan, None, None, (np.eye(4),), (6.0,), "affine")
        >>> matrix.shape, agreement < 0
        ((4, 4), True)
    """
    inputs = (fixed, moving, (fixed_mask, moving_mask), tuple(starts), levels_mm, model)

    def compute() -> Arrays:
        matrix, agreement = _registered(*inputs)
        return matrix, np.array(agreement)

    matrix, agreement = kept("registration", inputs, compute)
    return matrix, float(agreement)


def _registered(
    fixed: Volume,
    moving: Volume,
    masks: tuple[Volume | None, Volume | None],
    starts: Sequence[Matrix],
    levels_mm: tuple[float, ...],
    model: Model,
) -> tuple[Matrix, float]:
    with one_thread():
        found = _register_alone(fixed, moving, *masks, starts, levels_mm, model, KEPT_STARTS)
        if starts:
            return found
        alike = abs(similarity(fixed, moving, found[0], *masks))
        if alike >= POOR_FIT:
            return found
        wide = _wide_starts(fixed, moving, *masks)
        try:
            other = _register_alone(fixed, moving, *masks, wide, levels_mm, model, len(wide))
        except InputError:
            return found
        return other if abs(similarity(fixed, moving, other[0], *masks)) > alike else found


def register_visits(
    study: Study, *, reference: int = 0, model: Model = "rigid"
) -> tuple[Matrix, ...]:
    """One world matrix for each visit: world mm of the reference visit to world mm of that visit.

    That of the reference is the identity. The scan that all visits share is used, FLAIR first.
    Where the reference has a brain mask, agreement is measured within it, 4 mm wider.

    Args:
        reference: index of the visit that stays: 0 the first, -1 the last.
        model: rigid (6 parameters) or affine (12).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> head = ndimage.gaussian_filter(rng.normal(size=(16, 16, 16)), 2).astype(np.float32)
        >>> scan = Volume(head, Grid(head.shape, np.diag([6.0, 6.0, 6.0, 1.0])))
        >>> study = Study("01", (Visit({"flair": scan}), Visit({"flair": scan})))
        >>> first, second = register_visits(study)
        >>> second.round().astype(int).tolist() == first.tolist() == np.eye(4).tolist()
        True
    """
    name = shared_scan(study)
    fixed = study.visits[reference]

    def found(moving: Visit) -> Matrix:
        if moving is fixed:
            return np.eye(4)
        within = None if fixed.brain is None else _wider(fixed.brain, 4.0)
        scans = fixed.scans[name], moving.scans[name]
        return register(*scans, within, moving.brain, (), LEVELS_MM, model)[0]

    return map_parallel(found, study.visits)


def move_visits(
    study: Study,
    matrices: Sequence[Matrix | None],
    grid_of: Callable[[str], Grid],
    main: Grid,
) -> Study:
    """Visits resampled into one space: scans linear, labels nearest neighbor, fractions linear.

    Args:
        matrices: one for each visit, world mm of the new space to world mm of the visit; None
            leaves that visit alone.
        grid_of: the new grid of a scan, by its name.
        main: the new grid of labels, brains and changes.

    Changes move with the last visit. What each visit moved by is noted in its ``to_native``.

    Example:
        >>> grid, world = Grid((1, 1, 4), np.eye(4)), np.eye(4)
        >>> world[2, 3] = 1  # the new space shows what lies 1 mm higher in the visit
        >>> visit = Visit({"flair": Volume(np.array([[[0.0, 0.0, 5.0, 0.0]]]), grid)})
        >>> moved = move_visits(Study("01", (visit,)), [world], lambda name: grid, grid)
        >>> moved.visits[0].scans["flair"].array.tolist()
        [[[0.0, 5.0, 0.0, 0.0]]]
    """

    def label(volume: Volume, world: Matrix) -> Volume:
        return resample_to(volume, main, order=label_order(volume), world=world)

    def moved(visit: Visit, world: Matrix | None) -> Visit:
        if world is None:
            return visit
        return replace(
            visit,
            scans={
                name: resample_to(volume, grid_of(name), order=1, world=world)
                for name, volume in visit.scans.items()
            },
            labels={name: label(volume, world) for name, volume in visit.labels.items()},
            brain=None if visit.brain is None else label(visit.brain, world),
            to_native=visit.to_native @ world,
        )

    visits = map_parallel(moved, study.visits, matrices)
    last = matrices[-1]
    changes = (
        study.changes
        if last is None
        else {name: label(volume, last) for name, volume in study.changes.items()}
    )
    return replace(study, visits=visits, changes=changes)


def move_onto(study: Study, matrices: tuple[Matrix, ...], *, reference: int = 0) -> Study:
    """The other visits resampled onto the grids of one of them, which stays as it is.

    Args:
        matrices: one for each visit, as ``register_visits`` gives them for that reference.

    A scan that the reference has too goes onto that scan's grid, any other onto the grid of the
    reference's first scan, and so do labels, brains and changes.

    Example:
        >>> volume = Volume(np.ones((4, 4, 2)), Grid((4, 4, 2), np.diag([1.0, 1.0, 2.0, 1.0])))
        >>> finer = Volume(np.ones((4, 4, 4)), Grid((4, 4, 4), np.eye(4)))
        >>> study = Study("01", (Visit({"flair": volume}), Visit({"flair": finer})))
        >>> moved = move_onto(study, (np.eye(4), np.eye(4)))
        >>> [visit.scans["flair"].grid.shape for visit in moved.visits]
        [(4, 4, 2), (4, 4, 2)]
    """
    stays = study.visits[reference]
    main = next(iter(stays.scans.values())).grid
    return move_visits(
        study,
        [None if v is stays else m for v, m in zip(study.visits, matrices, strict=True)],
        lambda name: stays.scans[name].grid if name in stays.scans else main,
        main,
    )


@dataclass(frozen=True)
class RegisterToFirst:
    """Later visits registered to the first and resampled onto its grids.

    A study of one visit passes unchanged. ``register_visits`` gives the matrices by themselves.

    Attributes:
        model: rigid (6 parameters) or affine (12).
    """

    model: Model = "rigid"

    def __call__(self, study: Study) -> Study:
        if len(study.visits) < 2:
            return study
        return move_onto(study, register_visits(study, model=self.model))


@dataclass(frozen=True)
class RegisterToLast:
    """Earlier visits registered to the last and resampled onto its grids.

    A study of one visit passes unchanged. The last visit, and with it the changes, stay as they
    are, so nothing of what is new at the last visit is interpolated.

    Attributes:
        model: rigid (6 parameters) or affine (12).
    """

    model: Model = "rigid"

    def __call__(self, study: Study) -> Study:
        if len(study.visits) < 2:
            return study
        matrices = register_visits(study, reference=-1, model=self.model)
        return move_onto(study, matrices, reference=-1)


def _register_alone(
    fixed: Volume,
    moving: Volume,
    fixed_mask: Volume | None,
    moving_mask: Volume | None,
    starts: Sequence[Matrix],
    levels_mm: tuple[float, ...],
    model: Model,
    kept: int,
) -> tuple[Matrix, float]:
    for role, volume in (("fixed", fixed), ("moving", moving)):
        if not np.ptp(volume.array) > 0:
            raise InputError(f"{role} scan: every voxel has the same value")
    pairs = [(_coarse(fixed, mm), _coarse(moving, mm)) for mm in levels_mm]
    masks = [_mask_on(pair[0], fixed_mask) for pair in pairs]
    center = _center(pairs[0][0], masks[0])
    starts = starts or _usual_starts(pairs[0][1], moving_mask, center)
    scores = [_agreement(*pairs[0], masks[0], each) for each in starts]
    found: list[tuple[Matrix, float]] = []
    for rank in np.argsort(scores, kind="stable")[:kept]:
        coarse = _refine(*pairs[0], masks[0], starts[rank], center, model, levels_mm[0])
        if coarse is not None:
            found.append(coarse)
    if not found:
        raise InputError("the two scans do not overlap")
    matrix, score = min(found, key=lambda each: each[1])
    for pair, mask, mm in list(zip(pairs, masks, levels_mm, strict=True))[1:]:
        finer = _refine(*pair, mask, matrix, center, model, mm / 2)
        if finer is None:
            raise InputError("the two scans do not overlap")
        matrix, score = finer
    return matrix, score


def _usual_starts(moving: Volume, moving_mask: Volume | None, center: Point) -> tuple[Matrix, ...]:
    """The scanner's coordinates, the shift between centers, and that shift with turned heads."""
    shift = np.eye(4)
    shift[:3, 3] = _center(moving, _mask_on(moving, moving_mask)) - center
    nodding = [
        turned(shift, axis, degrees, center)
        for axis in range(3)
        for degrees in (-30.0, -15.0, 15.0, 30.0)
    ]
    return (np.eye(4), shift, *nodding)


def _wide_starts(
    fixed: Volume, moving: Volume, fixed_mask: Volume | None, moving_mask: Volume | None
) -> tuple[Matrix, ...]:
    """The shifts between centers, turned in all directions, that agree best on a coarse grid.

    648 turns that leave no direction further than about 30 degrees from one of them: each of the
    24 ways in which axes can be exchanged, and from there by 0 or 30 degrees either way about each
    axis. What is outside of the masks counts as 0, so the outline of the brain takes part.
    """
    pair = (_coarse(fixed, WIDE_MM), _coarse(moving, WIDE_MM))
    masks = (_mask_on(pair[0], fixed_mask), _mask_on(pair[1], moving_mask))
    centers = tuple(_center(volume, mask) for volume, mask in zip(pair, masks, strict=True))
    stripped = [v.array * m for v, m in zip(pair, masks, strict=True)]
    compared = ndimage.binary_dilation(masks[0], iterations=1)
    points = pair[0].grid.world_mm(np.argwhere(compared)) - centers[0]
    still = _ranks(stripped[0][compared])
    to_index = np.linalg.inv(pair[1].grid.affine)
    turns = [
        turn @ small
        for turn in Rotation.create_group("O").as_matrix()
        for small in Rotation.from_euler(
            "xyz", list(product((-30, 0, 30), repeat=3)), degrees=True
        ).as_matrix()
    ]
    scores = []
    for turn in turns:
        at = (points @ turn.T + centers[1]) @ to_index[:3, :3].T + to_index[:3, 3]
        read = ndimage.map_coordinates(stripped[1], at.T, order=1, mode="constant", cval=0.0)
        scores.append(_mutual_information(still, _ranks(read)))
    kept: list[NDArray[np.float64]] = []
    for rank in np.argsort(scores, kind="stable")[::-1]:
        # the angle between two turns, from the trace of one after the other
        traces = [float(np.trace(turns[rank] @ other.T)) for other in kept]
        if all(np.arccos(np.clip((t - 1) / 2, -1, 1)) > np.deg2rad(WIDE_APART) for t in traces):
            kept.append(turns[rank])
        if len(kept) == KEPT_WIDE_STARTS:
            break
    starts = []
    for turn in kept:
        start = np.eye(4)
        start[:3, :3] = turn
        start[:3, 3] = centers[1] - turn @ centers[0]
        starts.append(start)
    return tuple(starts)


def _ranks(values: NDArray[Any]) -> NDArray[np.intp]:
    """(n,) 0 where a value is 0, else 1 to 8 by the quantiles of the others."""
    ranks: NDArray[np.intp] = np.zeros(len(values), dtype=np.intp)
    filled = values > 0
    if filled.any():
        cuts = np.quantile(values[filled], np.linspace(0, 1, 9)[1:-1])
        ranks[filled] = 1 + np.searchsorted(cuts, values[filled])
    return ranks


def _mutual_information(one: NDArray[np.intp], two: NDArray[np.intp]) -> float:
    joint = np.bincount(9 * one + two, minlength=81).reshape(9, 9) / len(one)
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    held = joint > 0
    return float((joint[held] * np.log(joint[held] / apart[held])).sum())


def turned(matrix: Matrix, axis: int, degrees: float, center: Point) -> Matrix:
    """The start with the fixed head turned about its center first.

    Example:
        >>> quarter = turned(np.eye(4), axis=2, degrees=90, center=np.zeros(3))
        >>> (quarter @ [1, 0, 0, 1]).round().astype(int).tolist()
        [0, 1, 0, 1]
    """
    angle = np.deg2rad(degrees)
    i, j = [a for a in range(3) if a != axis]
    turn = np.eye(4)
    turn[i, i] = turn[j, j] = np.cos(angle)
    turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
    turn[:3, 3] = center - turn[:3, :3] @ center
    return matrix @ turn


def _method(fixed: Volume, mask: BoolArray) -> SimpleITK.ImageRegistrationMethod:
    method = SimpleITK.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricFixedMask(to_image(Volume(mask.astype(np.uint8), fixed.grid)))
    method.SetInterpolator(SimpleITK.sitkLinear)
    # the filters would smooth the gradients, which then lead past the best agreement
    method.SetMetricUseFixedImageGradientFilter(False)
    method.SetMetricUseMovingImageGradientFilter(False)
    return method


def _agreement(fixed: Volume, moving: Volume, mask: BoolArray, matrix: Matrix) -> float:
    """Negative mutual information; 0 where the two do not overlap."""
    method = _method(fixed, mask)
    method.SetInitialTransform(_transform(matrix, np.zeros(3), "affine"))
    try:
        return float(method.MetricEvaluate(to_image(fixed), to_image(moving)))
    except RuntimeError:  # SimpleITK's answer to too little overlap
        return 0.0


def _refine(
    fixed: Volume,
    moving: Volume,
    mask: BoolArray,
    matrix: Matrix,
    center: Point,
    model: Model,
    first_step_mm: float,
) -> tuple[Matrix, float] | None:
    """Matrix and negative mutual information; None where the two hardly overlap."""
    method = _method(fixed, mask)
    if mask.sum() > SAMPLES:
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(SAMPLES / mask.size, seed=1)
    method.SetOptimizerAsRegularStepGradientDescent(
        first_step_mm, 0.005, 100, relaxationFactor=0.6, gradientMagnitudeTolerance=1e-6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    transform = _transform(matrix, center, model)
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(to_image(fixed), to_image(moving))
    except RuntimeError:  # SimpleITK's answer to too little overlap
        return None
    return _matrix(transform), float(method.GetMetricValue())


def _transform(matrix: Matrix, center: Point, model: Model) -> Any:
    transform: Any = (
        SimpleITK.Euler3DTransform() if model == "rigid" else SimpleITK.AffineTransform(3)
    )
    transform.SetCenter(center.tolist())
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation((matrix[:3, :3] @ center + matrix[:3, 3] - center).tolist())
    return transform


def _matrix(transform: Any) -> Matrix:
    turn = np.array(transform.GetMatrix()).reshape(3, 3)
    center = np.array(transform.GetCenter())
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = np.array(transform.GetTranslation()) + center - turn @ center
    return matrix


def to_image(volume: Volume) -> SimpleITK.Image:
    """The volume as a SimpleITK image in our world (RAS mm); axes must be at right angles.

    Example:
        >>> volume = Volume(np.zeros((3, 4, 5)), Grid((3, 4, 5), np.diag([1.0, 1.0, 3.0, 1.0])))
        >>> image = to_image(volume)
        >>> image.GetSize(), image.GetSpacing()
        ((3, 4, 5), (1.0, 1.0, 3.0))
    """
    array = volume.array.T
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array))
    spacing = np.array(volume.grid.spacing_mm)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(volume.grid.affine[:3, 3].tolist())
    image.SetDirection((volume.grid.affine[:3, :3] / spacing).ravel().tolist())
    return image


def _coarse(volume: Volume, spacing_mm: float) -> Volume:
    """A copy with voxels no smaller than ``spacing_mm`` and axes at right angles."""
    straight = straightened(volume.grid)
    spacing = [max(spacing_mm, s) for s in straight.spacing_mm]
    return resample_to(volume, respaced(straight, spacing), order=1)


def straightened(grid: Grid) -> Grid:
    """The grid itself, or the nearest one with right angles where a header carries shear.

    Example:
        >>> sheared = np.eye(4)
        >>> sheared[0, 1] = 0.1
        >>> axes = straightened(Grid((4, 4, 4), sheared)).affine[:3, :3]
        >>> bool(np.allclose(axes[:, 0] @ axes[:, 1], 0))
        True
    """
    spacing = np.array(grid.spacing_mm)
    axes = grid.affine[:3, :3] / spacing
    if np.allclose(axes.T @ axes, np.eye(3), atol=1e-5):
        return grid
    left, _, right = np.linalg.svd(axes)
    middle = (np.array(grid.shape) - 1) / 2
    straight = np.eye(4)
    straight[:3, :3] = (left @ right) * spacing
    straight[:3, 3] = grid.world_mm(middle[None])[0] - straight[:3, :3] @ middle
    return Grid(grid.shape, straight)


def _mask_on(volume: Volume, mask: Volume | None) -> BoolArray:
    if mask is not None:
        inside: BoolArray = resample_to(mask, volume.grid, order=0).array.astype(bool)
        if inside.any():
            return inside
    low, high = np.percentile(volume.array, [1, 99])
    return np.asarray(volume.array > low + 0.1 * (high - low))


def _center(volume: Volume, mask: BoolArray) -> Point:
    center: Point = volume.grid.world_mm(np.argwhere(mask).mean(axis=0)[None])[0]
    return center


def _wider(mask: Volume, by_mm: float) -> Volume:
    outside = ndimage.distance_transform_edt(mask.array == 0, sampling=mask.grid.spacing_mm)
    return Volume(outside <= by_mm, mask.grid)


def shared_scan(study: Study) -> str:
    """The scan that every visit has, FLAIR first; InputError where there is none.

    Example:
        >>> scan = Volume(np.zeros((1, 1, 1)), Grid((1, 1, 1), np.eye(4)))
        >>> visits = Visit({"t1w": scan, "flair": scan}), Visit({"t1w": scan})
        >>> shared_scan(Study("01", visits))
        't1w'
    """
    shared = [n for n in study.visits[0].scans if all(n in v.scans for v in study.visits)]
    if not shared:
        raise InputError(f"{study.subject}: the visits have no scan in common")
    return "flair" if "flair" in shared else shared[0]
