"""Heads made from real tissue maps, whose sulci are folded as tightly as people's are.

A map is laid onto the MNI152 template by an affine registration, so that the template tells
where ventricles, nuclei and brainstem are. Then it is deformed at random, as the template is
for other heads, and its labels become fractions of voxels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionwise.preprocess.geometry import resample_to, respaced
from lesionwise.preprocess.location import below_tentorium
from lesionwise.preprocess.template import template_matrix
from lesionwise.simulate.anatomy import (
    SHAPE,
    Anatomy,
    HeadSettings,
    assemble,
    draw_deformation,
    head_grid,
    read_at,
    resample,
    signed_distance_mm,
    template_fields,
)
from lesionwise.simulate.fields import Float, smooth_field
from lesionwise.simulate.shells import make_shells
from lesionwise.simulate.tissue_maps import FLUID, GRAY, LESION, WHITE, read_tissue_map
from lesionwise.types import BoolArray, Grid, Matrix, Volume

SMOOTHING_MM = 0.6
"""SD by which labels are smoothed into fractions."""
LOG_ODDS_PER_MM = 4.6
"""How fast the log of the odds of two tissues changes across their border, with fractions as
`compose_tissue` makes them: adding it moves the border by 1 mm."""
BORDER_SD_MM = 0.25
"""SD of the shift of each tissue border, at 5 mm correlation length."""
WHITE_MM = (-0.6, 0.1)
"""Range by which a patient's white matter reaches further than in the map. Automatic maps of
T1-weighted scans make the cortex thin: 2 to 3 mm are usual."""
SULCI_MM = (-0.5, 0.2)
"""Range by which a patient's fluid reaches further than in the map."""
VENTRICLE_GROWTH_MM = (0.0, 1.0)
"""Range by which the ventricle walls stand outside the map's."""
VENTRICLE_REACH_MM = 6.0
"""Fluid no further than this from the template's lateral ventricles may belong to the map's."""
RIM_MM = 4.0
"""Gray no further than this from the ventricles is partial volume, or a nucleus."""
SPECK_MM3 = 100
"""Gray and fluid in white matter, joined to no other, count as white where they are smaller."""
T1_SIGNAL = (0.0, 0.2, 0.7, 1.0, 0.9)
"""Of each label in the T1-like picture that is registered to the template."""


@dataclass(frozen=True, eq=False)
class AlignedMap:
    """A tissue map, cleaned, with its place in the template.

    Attributes:
        grid: of ``fields``, 1 mm.
        to_map: template mm to mm of ``grid``'s world.
        fields: (I, J, K) float32 on ``grid``: ``white`` and ``gray``, fractions without the
            lateral ventricles, which count as white; ``ventricle_mm``, signed distance to these;
            ``cortex_mm``, distance to cortical gray, 0 inside.
        brain_mm: on `head_grid`, in the template's space: signed distance to the brain.
    """

    grid: Grid
    to_map: Matrix
    fields: dict[str, Float]
    brain_mm: Float


@dataclass(frozen=True, eq=False)
class TissueHead:
    """A patient's head before it ages, made from a tissue map.

    Attributes:
        fields: those of the `AlignedMap`, ``brain_mm`` and the template's ``deep``, deformed.
        white_shift_mm, fluid_shift_mm: how far white matter and fluid reach beyond their borders.
        ventricle_growth_mm: how far the ventricle walls stand outside the map's.
        shells, template_mm: as in `Anatomy`.
    """

    fields: dict[str, Float]
    white_shift_mm: Float
    fluid_shift_mm: Float
    ventricle_growth_mm: float
    shells: NDArray[np.uint8]
    template_mm: Float


@lru_cache(maxsize=8)
def read_aligned_map(path: Path) -> AlignedMap:
    """The tissue map in a file, ready for heads; the last eight are kept (100 MB each).

    Raises:
        InputError: As `read_tissue_map`; or if the map cannot be registered to the template.

    Example:
        >>> aligned = read_aligned_map(Path("sub-01_dseg.nii.gz"))  # doctest: +SKIP
        >>> sorted(aligned.fields)  # doctest: +SKIP
        ['cortex_mm', 'gray', 'ventricle_mm', 'white']
    """
    labels = read_tissue_map(path)
    return align_map(labels, _matrix_of(path))


@lru_cache(maxsize=256)
def _matrix_of(path: Path) -> Matrix:
    """Template mm to mm of the map in a file; kept when the map itself is not."""
    return register_map(read_tissue_map(path), name=str(path))


def register_map(labels: Volume, *, name: str = "map") -> Matrix:
    """World matrix, template mm to map mm, of an affine registration of a tissue map.

    The labels get the signals of a T1-weighted scan, since that is what the template shows.

    Args:
        labels: as `read_tissue_map` gives them, on any grid.
        name: of the map, for messages.

    Raises:
        InputError: If the two cannot be registered.

    Example:
        >>> register_map(labels).shape  # doctest: +SKIP
        (4, 4)
    """
    signal = np.array(T1_SIGNAL, dtype=np.float32)[labels.array]
    sigma = [0.7 / mm for mm in labels.grid.spacing_mm]
    picture = Volume(ndimage.gaussian_filter(signal, sigma), labels.grid)
    return template_matrix(picture, Volume(labels.array > 0, labels.grid), name=name)


def align_map(labels: Volume, to_map: Matrix) -> AlignedMap:
    """A tissue map made ready for heads.

    Lesions become white matter. So does gray around the ventricles, in the brainstem and along
    the third ventricle, which in automatic maps is partial volume of fluid and white matter;
    nuclei come from the template, because such maps often lack them. So do pieces of gray or
    fluid within white matter that are smaller than ``SPECK_MM3``.

    Args:
        labels: as `read_tissue_map` gives them, on any grid; maps that are not of 1 mm are
            interpolated.
        to_map: from `register_map`.

    Example:
        >>> aligned = align_map(labels, register_map(labels))  # doctest: +SKIP
        >>> aligned.fields["white"].max() <= 1  # doctest: +SKIP
        True
    """
    labels = _at_1mm(labels)
    grid = labels.grid
    brain = _filled(labels.array > 0)
    to_template = np.asarray(np.linalg.inv(to_map), dtype=np.float64)
    guide = {
        key: resample_to(Volume(field, head_grid()), grid, order=1, world=to_template).array
        for key, field in template_fields().items()
        if key in ("ventricle_mm", "deep", "core")
    }
    x, y, z = _positions(grid, to_template)
    tissue, ventricles = clean_tissue(labels.array, brain, guide, (x, y, z))
    cortex = (tissue == GRAY) & ~ndimage.binary_dilation(guide["deep"] > 0.5, iterations=2)
    fields = {
        "white": ndimage.gaussian_filter((tissue == WHITE).astype(np.float32), SMOOTHING_MM),
        "gray": ndimage.gaussian_filter((tissue == GRAY).astype(np.float32), SMOOTHING_MM),
        "ventricle_mm": ndimage.gaussian_filter(signed_distance_mm(ventricles), 0.6),
        "cortex_mm": edt.edt((~cortex).astype(np.uint8)),
    }
    placed = resample_to(Volume(brain, grid), head_grid(), order=0, world=to_map).array
    return AlignedMap(grid, to_map, fields, signed_distance_mm(placed))


def _at_1mm(labels: Volume) -> Volume:
    grid = respaced(labels.grid, 1.0)
    if grid.shape == labels.grid.shape:
        return labels
    parts = [
        resample_to(Volume((labels.array == label).astype(np.float32), labels.grid), grid, order=1)
        for label in range(LESION + 1)
    ]
    return Volume(np.argmax([part.array for part in parts], axis=0).astype(np.uint8), grid)


def _filled(brain: BoolArray) -> BoolArray:
    """The brain's largest piece, without holes."""
    padded = np.pad(brain, 1)
    pieces = cc3d.largest_k(padded, 1, connectivity=6) > 0
    outside = cc3d.connected_components(~pieces, connectivity=6)
    return np.asarray((outside != outside[0, 0, 0])[1:-1, 1:-1, 1:-1])


def _positions(grid: Grid, world: Matrix) -> tuple[Float, Float, Float]:
    """Position, in mm of another world, of each voxel of a grid."""
    to_other = (world @ grid.affine).astype(np.float32)
    i, j, k = (np.arange(n, dtype=np.float32) for n in grid.shape)
    x, y, z = (
        (a * i + d)[:, None, None] + (b * j)[None, :, None] + (c * k)[None, None, :]
        for a, b, c, d in to_other[:3]
    )
    return x, y, z


def clean_tissue(
    labels: NDArray[np.uint8],
    brain: BoolArray,
    guide: dict[str, Float],
    template_mm: tuple[Float, Float, Float],
) -> tuple[NDArray[np.uint8], BoolArray]:
    """Fluid, gray or white for every voxel, and which are lateral ventricles.

    Args:
        labels: (I, J, K) as `read_tissue_map` gives them, voxels of 1 mm.
        brain: without holes; everything outside of it is fluid.
        guide: the template's ``ventricle_mm``, ``deep`` and ``core`` at each voxel.
        template_mm: x, y, z of each voxel in the template.

    Returns:
        (I, J, K) uint8 with ``FLUID``, ``GRAY`` and ``WHITE``, as described in `align_map`; and the
        lateral ventricles, bool, which count as white matter in the first.

    Example:
        >>> shape = (24, 24, 24)
        >>> labels = np.full(shape, WHITE, dtype=np.uint8)
        >>> labels[12, 12, 12] = LESION
        >>> guide = {"ventricle_mm": np.full(shape, 30.0, dtype=np.float32)}
        >>> guide |= dict.fromkeys(("deep", "core"), np.zeros(shape, dtype=np.float32))
        >>> far_mm = (np.full(shape, 40.0, dtype=np.float32),) * 3
        >>> tissue, ventricles = clean_tissue(labels, labels > 0, guide, far_mm)
        >>> np.unique(tissue).tolist() == [WHITE], bool(ventricles.any())
        (True, False)
    """
    x, y, z = template_mm
    out = np.where(brain, labels, FLUID).astype(np.uint8)
    out[(out == LESION) | (out == 0)] = WHITE
    ventricles = _lateral_ventricles(out == FLUID, guide["ventricle_mm"], template_mm)
    near = edt.edt((~ventricles).astype(np.uint8)) <= RIM_MM if ventricles.any() else ventricles
    out[ventricles] = WHITE
    stem = below_tentorium(x, y, z) & (np.abs(x) < 18) & (y >= -36)
    no_cortex = near | (guide["core"] > 0.5) | (guide["deep"] > 0.3) | stem
    out[(out == GRAY) & no_cortex & brain] = WHITE
    pieces = cc3d.connected_components(out != WHITE, connectivity=26)
    out[cc3d.dust(pieces, SPECK_MM3, connectivity=26) != pieces] = WHITE
    return out, ventricles


def _lateral_ventricles(
    fluid: BoolArray, ventricle_mm: Float, template_mm: tuple[Float, Float, Float]
) -> BoolArray:
    """Fluid near the template's lateral ventricles that hangs together with what lies in them."""
    x, y, z = template_mm
    third = (np.abs(x) < 4) & (y < 4) & (z < 10)
    pieces = cc3d.connected_components(
        fluid & (ventricle_mm < VENTRICLE_REACH_MM) & ~third, connectivity=6
    )
    inside = np.bincount(pieces[ventricle_mm < 0], minlength=int(pieces.max()) + 1) > 10
    inside[0] = False
    return np.asarray(inside[pieces])


def make_tissue_head(
    rng: np.random.Generator, aligned: AlignedMap, settings: HeadSettings | None = None
) -> TissueHead:
    """A new head from a tissue map: a random deformation, and tissue borders shifted a little.

    The brain keeps the map's size, but for the random scales, and so its folds keep theirs. Of
    ``settings``, what concerns the deformation (but not ``shrink``) and the shells is used.

    Example:
        >>> head = make_tissue_head(np.random.default_rng(0), aligned)  # doctest: +SKIP
        >>> head.template_mm.shape  # doctest: +SKIP
        (3, 193, 229, 207)
    """
    settings = settings or HeadSettings()
    own_size = float(np.abs(np.linalg.det(aligned.to_map[:3, :3])) ** (-1 / 3))
    where = draw_deformation(rng, replace(settings, shrink=own_size))
    to_index = (np.linalg.inv(aligned.grid.affine) @ aligned.to_map).astype(np.float32)
    index = [a * where[0] + b * where[1] + c * where[2] + d for a, b, c, d in to_index[:3]]
    fields = read_at(aligned.fields, index)
    del index
    fields |= resample({"brain_mm": aligned.brain_mm, "deep": template_fields()["deep"]}, where)
    borders = BORDER_SD_MM * smooth_field(rng, SHAPE, 5, fields=2)
    borders[0] += np.float32(rng.uniform(*WHITE_MM))
    borders[1] += np.float32(rng.uniform(*SULCI_MM))
    low, high = VENTRICLE_GROWTH_MM
    growth = low + (high - low) * rng.beta(1.3, 1.8)
    shells = make_shells(rng, fields["brain_mm"], where, settings.shells)
    return TissueHead(fields, borders[0], borders[1], float(growth), shells, where)


def compose_tissue(head: TissueHead, atrophy_mm: float = 0.0) -> Anatomy:
    """The head at one visit.

    Args:
        head: from `make_tissue_head`.
        atrophy_mm: how far the ventricle walls have moved outward since the first visit; the
            border of the fluid in sulci moves by a third of it.

    Example:
        >>> first, later = (
        ...     compose_tissue(head),
        ...     compose_tissue(head, atrophy_mm=0.5),
        ... )  # doctest: +SKIP
        >>> later.gray.sum() < first.gray.sum()  # doctest: +SKIP
        True
    """
    fields = head.fields
    white, gray = fields["white"], fields["gray"]
    fluid = np.clip(1 - white - gray, 0, 1)
    # Squares of smooth fractions change across a border within about 1 mm, as a voxel's share does.
    white, gray, fluid = white**2, gray**2, fluid**2
    white *= np.exp(LOG_ODDS_PER_MM * head.white_shift_mm)
    fluid *= np.exp(LOG_ODDS_PER_MM * (head.fluid_shift_mm + np.float32(atrophy_mm / 3)))
    total = white + gray + fluid
    white, tissue = white / total, (white + gray) / total

    deep = np.clip(1.6 * fields["deep"] - 0.3, 0, 1)
    wall_mm = fields["ventricle_mm"] - np.float32(head.ventricle_growth_mm + atrophy_mm)
    ventricles = np.clip(0.5 - wall_mm, 0, 1)
    kept = (1 - ventricles) * np.clip(0.5 - fields["brain_mm"], 0, 1)
    return assemble(
        white=white * (1 - deep) * kept,
        tissue=tissue * kept,
        ventricles=ventricles,
        deep_gray=deep,
        brain_mm=fields["brain_mm"],
        ventricle_mm=wall_mm,
        cortex_mm=fields["cortex_mm"],
        shells=head.shells,
        template_mm=head.template_mm,
    )
