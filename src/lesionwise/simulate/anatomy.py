"""Heads: the MNI152 tissue maps, deformed at random, with the skull and scalp they lack.

Heads made from other people's tissue maps are in `tissue_heads`.

The template is an average of many brains, so its sulci are blurred. The cortex is made
anew from it: a ribbon of even thickness around the white matter, and fluid beyond, which
opens sulci and lets atrophy thin the ribbon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import edt
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from lesionwise.preprocess.geometry import resample_to
from lesionwise.preprocess.location import below_tentorium
from lesionwise.preprocess.template import template_maps
from lesionwise.simulate.fields import Float, smooth_field
from lesionwise.simulate.shells import USUAL_SHELLS, ShellSettings, make_shells
from lesionwise.types import BoolArray, Grid, Volume

SHAPE = (193, 229, 207)
ORIGIN_MM = (-96.0, -130.0, -102.0)


def head_grid() -> Grid:
    """The 1 mm grid every simulated head is made on, in MNI152 orientation and position.

    Example:
        >>> head_grid().shape, head_grid().spacing_mm
        ((193, 229, 207), (1.0, 1.0, 1.0))
    """
    affine = np.eye(4)
    affine[:3, 3] = ORIGIN_MM
    return Grid(SHAPE, affine)


@dataclass(frozen=True, eq=False)
class Anatomy:
    """One head at one visit, on `head_grid`; every array (I, J, K).

    Attributes:
        white, gray, fluid: fraction of each voxel, float32 in [0, 1]; they sum to 1 in the brain.
        ventricles: fraction that is fluid of the lateral ventricles, part of ``fluid``.
        deep_gray: fraction that is basal ganglia or thalamus, part of ``gray``.
        brain: brain with its inner fluid and sulci.
        infratentorial: cerebellum and brainstem.
        ventricle_mm: signed distance to the lateral ventricles, negative inside.
        cortex_mm: distance to the cortex, 0 inside.
        shells: class of every voxel outside the brain (see `shells`), uint8.
        template_mm: (3, I, J, K) place of each voxel in the template.
    """

    white: Float
    gray: Float
    fluid: Float
    ventricles: Float
    deep_gray: Float
    brain: BoolArray
    infratentorial: BoolArray
    ventricle_mm: Float
    cortex_mm: Float
    shells: NDArray[np.uint8]
    template_mm: Float


@dataclass(frozen=True, eq=False)
class Head:
    """A patient's head before it ages: deformed template maps, and the patient's own numbers."""

    maps: dict[str, Float]
    template_mm: Float
    thickness_mm: Float
    ventricle_growth_mm: float
    shells: NDArray[np.uint8]


@dataclass(frozen=True)
class HeadSettings:
    """How far heads differ from the template.

    Attributes:
        shrink: the template's mean length over the heads'; MNI152 is larger than most brains.
        scale_sd: of the three axes' lengths.
        rotation_sd_degrees: of the three small turns.
        coarse_mm, fine_mm: SD of the displacement at 45 mm and at 14 mm correlation length.
        fold_mm: SD of the shift of the white-matter surface at 4 mm correlation length.
        cortex_mm: range of the mean thickness of the cortex.
        ventricle_growth_mm: range by which the ventricle walls stand outside the template's.
        shells: how thick skull, scalp and muscles are.
    """

    shrink: float = 1.05
    scale_sd: float = 0.03
    rotation_sd_degrees: float = 3.0
    coarse_mm: float = 2.2
    fine_mm: float = 1.1
    fold_mm: float = 0.6
    cortex_mm: tuple[float, float] = (2.0, 2.8)
    ventricle_growth_mm: tuple[float, float] = (0.0, 3.2)
    shells: ShellSettings = USUAL_SHELLS


@lru_cache(maxsize=1)
def template_fields() -> dict[str, Float]:
    """Template maps on `head_grid`: signed distances (mm, negative inside) and probabilities.

    Computed once; do not write into them.

    Example:
        >>> fields = template_fields()  # doctest: +SKIP
        >>> fields["ventricle_mm"].shape == SHAPE  # doctest: +SKIP
        True
    """

    def placed(volume: Volume) -> NDArray[Any]:
        return resample_to(volume, head_grid(), order=0).array

    maps = template_maps()
    gray, white, brain = placed(maps.gray), placed(maps.white), placed(maps.brain)
    inside = placed(maps.ventricles)
    x, y, z = _axes_mm()
    depth = edt.edt(brain.astype(np.uint8))
    deep = (gray > 0.35) & (depth > 20) & (np.abs(x) < np.where(z > 0, 33, 29))
    deep = deep & (y > -36) & (y < 24) & (z > -11) & (z < 21)
    deep = ndimage.binary_opening(deep & ~(signed_distance_mm(inside) < 1.5), iterations=1)
    parts, count = ndimage.label(deep)
    sizes = ndimage.sum_labels(deep, parts, np.arange(1, count + 1))
    deep = np.isin(parts, 1 + np.flatnonzero(sizes > 400))
    near_ventricle = signed_distance_mm(inside) < 4.5
    # Between the ventricles and the midbrain the template itself is sharp enough.
    core = (depth > 14) & (np.abs(x) < 26) & (y > -42) & (y < 22) & (z > -22) & (z < 26)
    core = core & (np.abs(x) < 26 + np.clip(z, -12, 0))
    cortex = (gray > 0.5) & ~core & ~ndimage.binary_dilation(deep, iterations=2) & ~near_ventricle
    # The callosum and the septum are lined with "gray" that is partial volume with fluid.
    whiter = np.where(near_ventricle & ~deep & brain, white + gray, white)
    white_mm = ndimage.gaussian_filter(signed_distance_mm(whiter > 0.5), 0.6)
    return {
        "white": whiter,
        "gray": gray,
        "white_mm": white_mm,
        # positive halfway between two banks of cortex: where the average blurs a sulcus
        "ridge_mm": white_mm - ndimage.gaussian_filter(white_mm, 2.5),
        "core": ndimage.gaussian_filter(core.astype(np.float32), 1.5),
        "brain_mm": signed_distance_mm(brain),
        "ventricle_mm": ndimage.gaussian_filter(signed_distance_mm(inside), 0.6),
        "cortex_mm": edt.edt((~cortex).astype(np.uint8)),
        "deep": ndimage.gaussian_filter(deep.astype(np.float32), 0.6),
    }


def _axes_mm() -> tuple[Float, Float, Float]:
    x, y, z = (o + np.arange(n, dtype=np.float32) for o, n in zip(ORIGIN_MM, SHAPE, strict=True))
    return x[:, None, None], y[None, :, None], z[None, None, :]


def signed_distance_mm(mask: BoolArray) -> Float:
    """(I, J, K) distance to the surface of a mask of 1 mm voxels, negative inside.

    Example:
        >>> signed_distance_mm(np.array([[[False, False, True, True, False]]])).tolist()
        [[[1.5, 0.5, -0.5, -0.5, 0.5]]]
    """
    outside: Float = edt.edt((~mask).astype(np.uint8))
    inside: Float = edt.edt(mask.astype(np.uint8))
    return np.where(mask, 0.5 - inside, outside - 0.5).astype(np.float32)


def make_head(rng: np.random.Generator, settings: HeadSettings | None = None) -> Head:
    """A new head: the template under a random affine map and two scales of smooth displacement.

    Example:
        >>> head = make_head(np.random.default_rng(0))  # doctest: +SKIP
        >>> head.template_mm.shape  # doctest: +SKIP
        (3, 193, 229, 207)
    """
    settings = settings or HeadSettings()
    where = draw_deformation(rng, settings)
    maps = resample(template_fields(), where)
    low, high = settings.cortex_mm
    thickness = rng.uniform(low, high) + 0.25 * smooth_field(rng, SHAPE, 25)
    if settings.fold_mm:
        maps["white_mm"] = maps["white_mm"] + settings.fold_mm * smooth_field(rng, SHAPE, 4)
    low, high = settings.ventricle_growth_mm
    growth = low + (high - low) * rng.beta(1.3, 1.8)
    shells = make_shells(rng, maps["brain_mm"], where, settings.shells)
    return Head(maps, where, thickness.astype(np.float32), float(growth), shells)


def draw_deformation(rng: np.random.Generator, settings: HeadSettings) -> Float:
    """(3, I, J, K) template position, in mm, of each voxel of a head.

    A random affine map and smooth displacements of two scales, as ``settings`` says; left and
    right change places in every other head.

    Example:
        >>> where_mm = draw_deformation(
        ...     np.random.default_rng(0), HeadSettings()
        ... )  # doctest: +SKIP
        >>> where_mm.shape  # doctest: +SKIP
        (3, 193, 229, 207)
    """
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_euler("xyz", rng.normal(0, settings.rotation_sd_degrees, 3), degrees=True)
    scale = settings.shrink * np.exp(rng.normal(0, settings.scale_sd, 3))
    shear = np.eye(3) + np.triu(rng.normal(0, 0.015, (3, 3)), 1)
    matrix = (turn.as_matrix() * scale) @ shear
    if rng.random() < 0.5:
        matrix[0] *= -1  # left and right change places
    matrix = matrix.astype(np.float32)
    x, y, z = _axes_mm()
    where = np.empty((3, *SHAPE), dtype=np.float32)
    coarse = smooth_field(rng, SHAPE, 45, fields=3)
    fine = smooth_field(rng, SHAPE, 14, fields=3)
    for axis in range(3):
        a, b, c = matrix[axis]
        where[axis] = a * x + b * y + c * z
        where[axis] += settings.coarse_mm * coarse[axis] + settings.fine_mm * fine[axis]
    return where


def resample(maps: dict[str, Float], where_mm: Float) -> dict[str, Float]:
    """Maps on `head_grid`, read at template positions by linear interpolation.

    Example:
        >>> maps = {"slice": np.broadcast_to(np.arange(SHAPE[2], dtype=np.float32), SHAPE)}
        >>> where_mm = np.zeros((3, 1, 1, 1), dtype=np.float32)
        >>> round(float(resample(maps, where_mm)["slice"][0, 0, 0]))  # z = 0 lies in this slice
        102
    """
    origin = np.array(ORIGIN_MM, dtype=np.float32)
    return read_at(maps, [where_mm[axis] - origin[axis] for axis in range(3)])


def read_at(maps: dict[str, Float], index: Sequence[Float]) -> dict[str, Float]:
    """Maps that share one grid, read at voxel indices by linear interpolation.

    Args:
        maps: (I, J, K) float32 each; their outermost values continue beyond them.
        index: along i, j and k, where to read; three arrays of one shape, the shape of what is
            returned.

    Example:
        >>> maps = {"slope": np.float32([[[0, 10]], [[0, 10]]]).repeat(2, axis=1)}
        >>> at = [np.full((1, 1, 1), each, dtype=np.float32) for each in (0, 0, 0.25)]
        >>> read_at(maps, at)["slope"].tolist()
        [[[2.5]]]
    """
    size = np.array(next(iter(maps.values())).shape, dtype=np.float32)
    unit = np.empty((1, *index[0].shape, 3), dtype=np.float32)
    for axis in range(3):
        # torch wants the last axis first, from -1 to 1 between the outer voxel centers
        unit[0, ..., 2 - axis] = 2 * index[axis] / (size[axis] - 1) - 1
    stack = torch.from_numpy(np.stack(list(maps.values())))[None]
    with torch.inference_mode():
        out = torch.nn.functional.grid_sample(
            stack, torch.from_numpy(unit), padding_mode="border", align_corners=True
        )[0].numpy()
    return {name: out[row] for row, name in enumerate(maps)}


def compose(head: Head, atrophy_mm: float = 0.0) -> Anatomy:
    """The head at one visit.

    Args:
        head: from `make_head`.
        atrophy_mm: how far the ventricle walls have moved outward since the first visit;
            the cortex thins by a third of it.

    Example:
        >>> head = make_head(np.random.default_rng(0))  # doctest: +SKIP
        >>> first, later = compose(head), compose(head, atrophy_mm=0.5)  # doctest: +SKIP
        >>> later.ventricles.sum() > first.ventricles.sum()  # doctest: +SKIP
        True
    """
    maps = head.maps
    x, y, z = head.template_mm
    brain_mm = maps["brain_mm"]
    inside = np.clip(0.5 - brain_mm, 0, 1)
    growth = head.ventricle_growth_mm + atrophy_mm
    wall_mm = maps["ventricle_mm"] - growth
    # The septum keeps the two ventricles apart however wide they are.
    wall_mm = np.maximum(wall_mm, 0.8 - np.abs(x))
    ventricles = np.clip(0.5 - wall_mm, 0, 1)

    infratentorial = below_tentorium(x, y, z)
    deep = np.clip(1.6 * maps["deep"] - 0.3, 0, 1)
    white_mm = maps["white_mm"]
    white = np.clip(0.5 - white_mm, 0, 1) * (1 - deep)
    thickness = head.thickness_mm - atrophy_mm / 3
    # Fluid begins where the ribbon ends, or at the ridge between two ribbons that touch.
    beyond = np.maximum(white_mm - thickness - 2.2, 3 * (maps["ridge_mm"] - 0.5 * thickness + 0.5))
    beyond = np.where(white_mm < 1.2, -1, beyond)
    tissue = np.clip(0.5 - beyond, 0, 1)
    tissue = np.maximum(tissue, deep)
    below_white = np.clip(1.5 * maps["white"] - 0.2, 0, 1)
    below_tissue = np.clip(1.8 * (maps["white"] + maps["gray"]) - 0.5, 0, 1)
    plain = np.where(infratentorial, 1, np.clip(2 * maps["core"] - 0.5, 0, 1))
    white += plain * (below_white - white)
    tissue += plain * (below_tissue - tissue)

    tissue = np.maximum(tissue, white) * (1 - ventricles) * inside
    white = np.minimum(white * (1 - ventricles) * inside, tissue)
    return assemble(
        white=white,
        tissue=tissue,
        ventricles=ventricles,
        deep_gray=deep,
        brain_mm=brain_mm,
        ventricle_mm=wall_mm,
        cortex_mm=maps["cortex_mm"],
        shells=head.shells,
        template_mm=head.template_mm,
    )


def assemble(
    *,
    white: Float,
    tissue: Float,
    ventricles: Float,
    deep_gray: Float,
    brain_mm: Float,
    ventricle_mm: Float,
    cortex_mm: Float,
    shells: NDArray[np.uint8],
    template_mm: Float,
) -> Anatomy:
    """An anatomy from the white matter and all tissue; gray is what tissue has beyond white.

    Args:
        white, tissue: fractions, (I, J, K), ``white`` at most ``tissue``; the rest of the brain is
            fluid.
        deep_gray: fraction that would be nuclei; as much of it counts as there is gray.
        brain_mm: signed distance to the brain with its outer fluid. `Anatomy.brain` ends 2 to 3 mm
            beyond the tissue.
        ventricles, ventricle_mm, cortex_mm, shells, template_mm: as in `Anatomy`.

    Example:
        >>> part = np.full((3, 3, 3), 0.25, dtype=np.float32)
        >>> anatomy = assemble(
        ...     white=part, tissue=2 * part, ventricles=0 * part, deep_gray=part, brain_mm=part - 9,
        ...     ventricle_mm=part, cortex_mm=part, shells=np.zeros((3, 3, 3), dtype=np.uint8),
        ...     template_mm=np.zeros((3, 3, 3, 3), dtype=np.float32),
        ... )
        >>> [float(a[0, 0, 0]) for a in (anatomy.white, anatomy.gray, anatomy.fluid)]
        [0.25, 0.25, 0.5]
    """
    # Growing ventricles push walls, they do not eat gray nuclei: a lining of white remains.
    gray = tissue - white
    # Stripped brains end at the cortex, not at the dura.
    near: BoolArray = ndimage.uniform_filter(tissue, 5) > 0.04
    brain = (brain_mm < 0) & (near | (brain_mm < -9))
    fluid = np.where(brain, 1 - tissue, 0)
    return Anatomy(
        white=white,
        gray=gray,
        fluid=fluid.astype(np.float32),
        ventricles=ventricles,
        deep_gray=np.minimum(deep_gray, gray),
        brain=brain,
        infratentorial=below_tentorium(*template_mm) & brain,
        ventricle_mm=ventricle_mm,
        cortex_mm=cortex_mm,
        shells=shells,
        template_mm=template_mm,
    )


PLACES = ("periventricular", "juxtacortical", "deep white matter", "infratentorial")


@dataclass(frozen=True, eq=False)
class Zones:
    """What decides the place of a lesion: distances in mm, (I, J, K)."""

    ventricle_mm: Float
    cortex_mm: Float
    infratentorial: BoolArray


def template_zones() -> Zones:
    """Zones of the template itself, its ventricles 2 mm wider (it is younger than patients).

    Example:
        >>> zones = template_zones()  # doctest: +SKIP
        >>> place_of(zones, np.array([[96, 70, 70]]))  # doctest: +SKIP
        'infratentorial'
    """
    maps = template_fields()
    return Zones(maps["ventricle_mm"] - 2, maps["cortex_mm"], below_tentorium(*_axes_mm()))


def place_of(zones: Zones, voxels: NDArray[np.intp]) -> str:
    """The place of a lesion from its voxels, (n, 3): one of `PLACES`.

    Infratentorial where most voxels are; else periventricular where it comes within 2 mm of
    a lateral ventricle; else juxtacortical where it comes within 1.5 mm of the cortex; else
    deep white matter.

    Example:
        >>> near, far = np.full((2, 1, 1, 3), [1.0, 5.0, 9.0])
        >>> zones = Zones(ventricle_mm=near, cortex_mm=far + 5, infratentorial=near < 0)
        >>> place_of(zones, np.array([[0, 0, 0]])), place_of(zones, np.array([[0, 0, 2]]))
        ('periventricular', 'deep white matter')
    """
    inside = np.all((voxels >= 0) & (voxels < zones.ventricle_mm.shape), axis=1)
    i, j, k = voxels[inside].T
    if zones.infratentorial[i, j, k].mean() > 0.5:
        return "infratentorial"
    if zones.ventricle_mm[i, j, k].min() < 2:
        return "periventricular"
    if zones.cortex_mm[i, j, k].min() < 1.5:
        return "juxtacortical"
    return "deep white matter"
