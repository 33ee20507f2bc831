"""From a head and its lesions to a FLAIR scan: contrast, slices, coil, noise, motion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from lesionwise.instances.table import bounding_box
from lesionwise.simulate.anatomy import SHAPE, Anatomy, head_grid
from lesionwise.simulate.artifacts import without_face
from lesionwise.simulate.fields import Float, smooth_field
from lesionwise.simulate.lesions import LesionLayer
from lesionwise.simulate.shells import AIR, BONE, CORD, DIPLOE, EYE, FAT, FLUID, MUSCLE, SKIN
from lesionwise.types import BoolArray, Grid, Volume

Style = Literal["realistic", "randomized", "clinical"]


@dataclass(frozen=True)
class Contrast:
    """Signal of each tissue, normal white matter = 1, and how far it varies.

    Attributes:
        gray, deep_gray, fluid, lesion: mean signals; a lesion's own brightness multiplies
            its excess over white matter.
        rim: excess of the lining of the ventricles.
        dirty: excess of diffusely abnormal white matter at its worst.
        halo: excess around lesions, as a share of theirs.
        texture: SD of the signal within tissue and, three times that, within lesions.
        flow: excess of moving fluid in ventricles and cisterns.
        choroid: signal of the choroid plexus.
        shells: signals outside the brain, by class.
    """

    gray: float
    deep_gray: float
    fluid: float
    lesion: float
    rim: float
    dirty: float
    halo: float
    texture: float
    flow: float
    choroid: float
    shells: tuple[float, ...]


@dataclass(frozen=True)
class Protocol:
    """How a scan is acquired.

    Attributes:
        spacing_mm: voxel size along i, j, k; slices are stacked along the axis of the longest
            voxels, along k where none is longer.
        field_mm: extent of the scan along i, j, k.
        rotation_degrees, shift_mm: how the scan lies in the head's space.
        blur_mm: SD of the in-plane point spread beyond the voxel's own.
        bias: SD of the log of the coil's sensitivity.
        noise: SD of the noise in each channel, white matter = 1.
        noise_scale_vox: SD of the noise's own smoothness.
        ghost: strength of motion ghosts.
        gamma: exponent on the final signal.
        scale: stored value of white matter.
        face_cut_mm: what lies further in front of the brain is set to 0, as defacing leaves it;
            None leaves the face.
    """

    spacing_mm: tuple[float, float, float]
    field_mm: tuple[float, float, float] = (192.0, 228.0, 206.0)
    rotation_degrees: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    blur_mm: float = 0.3
    bias: float = 0.08
    noise: float = 0.03
    noise_scale_vox: float = 0.4
    ghost: float = 0.0
    gamma: float = 1.0
    scale: float = 250.0
    face_cut_mm: float | None = None

    @property
    def slice_axis(self) -> int:
        """Along which the slices are stacked: 0, 1 or 2."""
        longest = max(self.spacing_mm)
        return 2 if self.spacing_mm[2] >= longest else self.spacing_mm.index(longest)


def draw_contrast(rng: np.random.Generator, style: Style) -> Contrast:
    """A FLAIR contrast as scanners give it, or (``randomized``) one far around it.

    ``clinical`` is a realistic brain in a head whose fat and marrow no saturation dims.

    The realistic means follow measured ones (white 84, gray 101, fluid 25, lesions 96 to
    146 with median 117 in a 3 T scan), the ranges are wider than between two scanners.

    Example:
        >>> contrast = draw_contrast(np.random.default_rng(0), "realistic")
        >>> contrast.fluid < 1 < contrast.gray < contrast.lesion  # white matter is 1
        True
    """
    u = rng.uniform
    if style != "randomized":
        diploe, fat, muscle, skin = _OUTSIDE[style]
        return Contrast(
            gray=u(1.14, 1.30),
            deep_gray=u(1.05, 1.17),
            fluid=u(0.12, 0.32),
            lesion=u(1.33, 1.75),
            rim=u(0.08, 0.35),
            dirty=u(0.02, 0.12),
            halo=u(0.1, 0.45),
            texture=u(0.015, 0.035),
            flow=u(0.0, 0.35),
            choroid=u(0.8, 1.4),
            shells=_shells(
                diploe=u(*diploe), fat=u(*fat), muscle=u(*muscle), skin=u(*skin), rng=rng
            ),
        )
    return Contrast(
        gray=u(0.9, 1.5),
        deep_gray=u(0.85, 1.35),
        fluid=u(0.03, 0.7),
        lesion=u(1.22, 2.4),
        rim=u(0.0, 0.5),
        dirty=u(0.0, 0.2),
        halo=u(0.0, 0.4),
        texture=u(0.005, 0.06),
        flow=u(0.0, 0.6),
        choroid=u(0.4, 1.8),
        shells=_shells(
            diploe=u(0.05, 1.2), fat=u(0.1, 2.5), muscle=u(0.1, 0.9), skin=u(0.2, 1.8), rng=rng
        ),
    )


_OUTSIDE = {
    "realistic": ((0.2, 0.6), (0.3, 0.9), (0.2, 0.45), (0.3, 0.8)),
    "clinical": ((0.6, 1.8), (0.9, 2.6), (0.3, 0.7), (0.6, 1.6)),
}
"""Ranges of the signal of marrow, fat, muscle and skin."""


def _shells(
    *, diploe: float, fat: float, muscle: float, skin: float, rng: np.random.Generator
) -> tuple[float, ...]:
    signal = [0.0] * 9
    signal[AIR], signal[FLUID], signal[BONE] = 0.0, rng.uniform(0.1, 0.3), rng.uniform(0.03, 0.12)
    signal[DIPLOE], signal[FAT], signal[MUSCLE] = diploe, fat, muscle
    signal[SKIN], signal[EYE], signal[CORD] = skin, rng.uniform(0.08, 0.3), 1.0
    return tuple(signal)


def draw_protocol(
    rng: np.random.Generator, style: Style, spacing_mm: tuple[float, float, float] | None = None
) -> Protocol:
    """A protocol: 3D at about 1 mm, or slices of 3 to 5 mm; the voxel size may be given.

    ``clinical``: slices of 3 to 8 mm, axial, coronal or sagittal, of a field of view that may cut
    vertex or neck, with strong bias and motion, every other time without a face.

    Example:
        >>> protocol = draw_protocol(np.random.default_rng(0), "realistic", (0.9, 0.9, 3.0))
        >>> protocol.spacing_mm, protocol.field_mm[2] < 180
        ((0.9, 0.9, 3.0), True)
    """
    if style == "clinical":
        return _clinical_protocol(rng, spacing_mm)
    u = rng.uniform
    if spacing_mm is None:
        kind = rng.random()
        plane = float(rng.choice([0.57, 0.72, 0.8, 0.9, 1.0]))
        if kind < 0.5:
            spacing_mm = (1.0, 1.0, 1.0)
        elif kind < 0.65:
            spacing_mm = (plane, plane, float(rng.choice([1.2, 1.5, 2.0])))
        else:
            spacing_mm = (plane, plane, float(rng.choice([3.0, 3.0, 3.3, 4.0, 5.0])))
    wild = style == "randomized"
    thick = spacing_mm[2] > 2
    turn = rng.normal(0, 5 if wild else 4, 3)
    shift = rng.normal(0, 4, 3)
    return Protocol(
        spacing_mm=spacing_mm,
        field_mm=(192.0, 228.0, float(u(150, 175))) if thick else (192.0, 228.0, 206.0),
        rotation_degrees=(float(turn[0]), float(turn[1]), float(turn[2])),
        shift_mm=(float(shift[0]), float(shift[1]), float(shift[2])),
        blur_mm=float(u(0.0, 0.9 if wild else 0.5)),
        bias=float(u(0.0, 0.3) if wild else u(0.03, 0.14)),
        noise=float(np.exp(u(np.log(0.008), np.log(0.12))) if wild else u(0.012, 0.05)),
        noise_scale_vox=float(u(0.0, 0.7)),
        ghost=float(u(0.0, 0.08 if wild else 0.03)) if rng.random() < 0.35 else 0.0,
        gamma=float(np.exp(rng.normal(0, 0.2 if wild else 0.04))),
        scale=float(u(80, 600)),
    )


def _clinical_protocol(
    rng: np.random.Generator, spacing_mm: tuple[float, float, float] | None
) -> Protocol:
    u = rng.uniform
    if spacing_mm is None:
        sizes = [float(u(0.55, 1.0))] * 3
        sizes[int(rng.choice(3, p=[0.12, 0.12, 0.76]))] = float(u(3.0, 8.2))
        spacing_mm = (sizes[0], sizes[1], sizes[2])
    field = [192.0, 228.0, 206.0]
    axis = Protocol(spacing_mm).slice_axis
    field[axis] = float(u(115, 172)) if axis != 1 else float(u(160, 215))
    turn, shift = rng.normal(0, 7, 3), rng.normal(0, 5, 3)
    return Protocol(
        spacing_mm=spacing_mm,
        field_mm=(field[0], field[1], field[2]),
        rotation_degrees=(float(turn[0]), float(turn[1]), float(turn[2])),
        shift_mm=(float(shift[0]), float(shift[1]), float(shift[2])),
        blur_mm=float(u(0.2, 0.7)),
        bias=float(u(0.05, 0.35)),
        noise=float(u(0.012, 0.06)),
        noise_scale_vox=float(u(0.0, 0.8)),
        ghost=float(u(0.0, 0.06)) if rng.random() < 0.5 else 0.0,
        gamma=float(np.exp(rng.normal(0, 0.05))),
        scale=float(u(80, 600)),
        face_cut_mm=8.0 if rng.random() < 0.5 else None,
    )


def moved(rng: np.random.Generator, protocol: Protocol) -> Protocol:
    """The same protocol with the patient lying differently.

    Example:
        >>> protocol = Protocol((1.0, 1.0, 3.0))
        >>> later = moved(np.random.default_rng(0), protocol)
        >>> later.spacing_mm, later.shift_mm == protocol.shift_mm
        ((1.0, 1.0, 3.0), False)
    """
    from dataclasses import replace

    turn = np.array(protocol.rotation_degrees) + rng.normal(0, 2.5, 3)
    shift = np.array(protocol.shift_mm) + rng.normal(0, 3, 3)
    return replace(
        protocol,
        rotation_degrees=(float(turn[0]), float(turn[1]), float(turn[2])),
        shift_mm=(float(shift[0]), float(shift[1]), float(shift[2])),
        noise=protocol.noise * float(rng.uniform(0.8, 1.25)),
        scale=protocol.scale * float(rng.uniform(0.7, 1.4)),
    )


def contrast_image(
    anatomy: Anatomy,
    lesions: LesionLayer,
    contrast: Contrast,
    seed: int,
    with_skull: bool = True,
    caps: Float | None = None,
) -> Float:
    """The signal of every 1 mm voxel, before any scanner: (I, J, K) float32, white matter = 1.

    ``seed`` fixes what belongs to the patient (texture, diffuse change, choroid plexus), so
    that two visits of one patient differ by what happened, not by chance. ``caps`` (I, J, K) is by
    how much tissue exceeds white matter at least, as a multiple of what lesions do.

    Example:
        >>> image = contrast_image(anatomy, lesions, contrast, seed=0)  # doctest: +SKIP
        >>> image.shape == SHAPE  # doctest: +SKIP
        True
    """
    rng = np.random.default_rng(seed)
    broad = smooth_field(rng, SHAPE, 18, fields=3)
    middle = smooth_field(rng, SHAPE, 6)
    grain = smooth_field(rng, SHAPE, 2.2)
    x, y, z = anatomy.template_mm
    wall = anatomy.ventricle_mm
    texture = 1 + contrast.texture * (grain + 0.7 * middle)

    # diffuse change: around the ventricles and behind, in patches
    near = np.exp(-np.clip(wall, 0, None) / 9) * np.clip(0.6 - y / 90, 0, 1.2)
    white = 1 + contrast.dirty * near * np.clip(0.8 + 0.8 * broad[0], 0, None)
    reach = 0.9 + 0.7 * np.clip(broad[1], 0, 2)  # caps at the horns, a thin line elsewhere
    white += contrast.rim * np.exp(-((np.clip(wall, 0, None) / reach) ** 2)) * (wall > -1)
    cortex = contrast.gray * (1 + 0.05 * broad[2] + 0.03 * middle)
    below = anatomy.infratentorial
    folia = np.sin(
        1.75 * np.sqrt(x**2 + (y + 52) ** 2 + (z + 25) ** 2) + 3.5 * middle + 2 * broad[2]
    )
    cortex = np.where(below, 0.6 * cortex + 0.4 + 0.06 * folia, cortex)
    fluid = contrast.fluid + contrast.flow * np.clip(middle + 0.4 * broad[1] - 0.8, 0, 1.2) * (
        z < 12
    )
    cortical = anatomy.gray - anatomy.deep_gray
    image = anatomy.white * white + cortical * cortex + anatomy.deep_gray * contrast.deep_gray
    image += anatomy.fluid * fluid
    plexus = anatomy.ventricles * (wall < -0.7) * ((y < -12) & (y > -50))
    plexus = plexus * np.clip(1.6 * (middle + 0.5 * grain - 0.55), 0, 1)
    image += plexus * (contrast.choroid - contrast.fluid)
    image *= texture

    excess = (contrast.lesion - 1) * lesions.contrast
    excess = excess * np.clip(1 + 3 * contrast.texture * (grain + middle), 0.4, 1.6)
    halo = _halo(lesions) * contrast.halo * (contrast.lesion - 1)
    tissue = anatomy.white + anatomy.gray
    image += halo * tissue * (1 - lesions.fraction)
    if caps is not None:
        bright = (contrast.lesion - 1) * (1 + 3 * contrast.texture * grain)
        image += np.clip(1 + caps * bright - image, 0, None) * tissue * np.clip(3 * caps, 0, 1)
    image += lesions.fraction * np.clip(1 + excess - image, -0.3, None)
    if not with_skull:
        return np.where(anatomy.brain, image, 0).astype(np.float32)
    outside = np.array(contrast.shells, dtype=np.float32)[anatomy.shells]
    outside = outside * np.clip(1 + 0.18 * middle + 0.12 * grain, 0.3, 2)
    return np.where(anatomy.brain, image, outside).astype(np.float32)


def _halo(lesions: LesionLayer) -> Float:
    """How near a voxel is to lesions, in [0, 1]: their fraction, blurred by 2 mm."""
    box = bounding_box(lesions.fraction > 0, margin_vox=6)
    out = np.zeros(SHAPE, dtype=np.float32)
    if box is not None:
        out[box] = ndimage.gaussian_filter(lesions.fraction[box], 2.0, truncate=3)
    return out


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan and its truth on the scan's own grid; arrays (I, J, K).

    Attributes:
        image: uint16.
        labels: int32, a voxel is lesion where more than half of it is.
        brain: bool.
        tissue: uint8: 0 outside, 1 fluid, 2 gray, 3 white matter, 4 lesion.
        grid: where they lie, in MNI152-like world mm.
    """

    image: NDArray[np.uint16]
    labels: NDArray[np.int32]
    brain: BoolArray
    tissue: NDArray[np.uint8]
    grid: Grid


def scan_grid(protocol: Protocol) -> Grid:
    """The grid of a scan: centered on the head, turned and shifted as the protocol says.

    Example:
        >>> scan_grid(Protocol((1.0, 1.0, 3.0), field_mm=(192.0, 228.0, 165.0))).shape
        (192, 228, 55)
    """
    spacing = np.array(protocol.spacing_mm)
    shape = np.maximum(np.round(np.array(protocol.field_mm) / spacing), 1).astype(int)
    turn = Rotation.from_euler("xyz", protocol.rotation_degrees, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    middle = np.array([0.0, -16.0, 1.0 if protocol.field_mm[2] > 180 else 12.0])
    middle = middle + np.array(protocol.shift_mm)
    affine[:3, 3] = middle - affine[:3, :3] @ ((shape - 1) / 2)
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def acquire(
    image: Float,
    anatomy: Anatomy,
    lesions: LesionLayer,
    protocol: Protocol,
    rng: np.random.Generator,
    stripped: bool = False,
) -> Scan:
    """Scan a head: average the signal over each voxel, then add what scanners add.

    ``stripped`` sets everything outside the brain to 0, as brain extraction does.

    Example:
        >>> protocol = Protocol((1.0, 1.0, 3.0))
        >>> rng = np.random.default_rng(0)
        >>> scan = acquire(image, anatomy, lesions, protocol, rng)  # doctest: +SKIP
        >>> scan.grid.matches(scan_grid(protocol)), scan.image.dtype  # doctest: +SKIP
        (True, dtype('uint16'))
    """
    grid = scan_grid(protocol)
    soft, hard, labels = _sample(image, anatomy, lesions, grid, protocol.slice_axis)
    signal, fraction = soft
    brain, tissue = hard[0] > 0, hard[1].astype(np.uint8)
    mask = (fraction > 0.5) & (labels > 0) & brain
    labels = np.where(mask, labels, 0)
    tissue[mask] = 4
    stored = _degrade(signal, protocol, rng)
    if stripped:
        stored = np.where(brain, stored, 0)
    if protocol.face_cut_mm is not None:
        stored = without_face(Volume(stored, grid), brain, protocol.face_cut_mm).array
    return Scan(stored, labels, brain, tissue, grid)


def _sample(
    image: Float, anatomy: Anatomy, lesions: LesionLayer, grid: Grid, slice_axis: int
) -> tuple[Float, Float, NDArray[np.int32]]:
    """Averages of (signal, lesion fraction), values of (brain, tissue), and lesion labels."""
    parts = np.stack([anatomy.fluid, anatomy.gray, anatomy.white])
    tissue = np.where(anatomy.brain, parts.argmax(axis=0) + 1, 0)
    spacing = np.array(grid.spacing_mm)
    wide = np.sqrt(np.clip(spacing**2 - 1, 0, None)) * 0.4
    wide[slice_axis] = 0.0
    sigma = (float(wide[0]), float(wide[1]), float(wide[2]))
    pair = [image, lesions.fraction]
    if max(sigma) > 0.1:
        pair = [ndimage.gaussian_filter(a, sigma) for a in pair]
    soft_source = torch.from_numpy(np.stack(pair))[None]
    hard_source = torch.from_numpy(
        np.stack([anatomy.brain.astype(np.float32), tissue.astype(np.float32)])
    )[None]
    owner = torch.from_numpy(lesions.owner.astype(np.float32))[None, None]

    to_head = np.linalg.inv(head_grid().affine) @ grid.affine
    slices = max(round(spacing[slice_axis]), 1)
    # slices are slightly rounded at their edges, so outer parts weigh less
    offsets = (np.arange(slices) - (slices - 1) / 2) / slices
    weights = 1 - 0.8 * offsets**2
    weights = weights / weights.sum()
    order = np.argsort(np.abs(offsets), kind="stable")
    soft = np.zeros((2, *grid.shape), dtype=np.float32)
    labels = np.zeros(grid.shape, dtype=np.int32)
    hard: Any = None
    with torch.inference_mode():
        for part in order:
            where = torch.from_numpy(
                _unit_coordinates(grid.shape, to_head, offsets[part], slice_axis)
            )
            found = _read(soft_source, where, "bilinear")
            soft += np.float32(weights[part]) * found
            here = _read(owner, where, "nearest")[0].astype(np.int32)
            labels = np.where(labels == 0, here, labels)
            if hard is None:
                hard = _read(hard_source, where, "nearest")
    return soft, hard, labels


def _unit_coordinates(
    shape: tuple[int, int, int], to_head: NDArray[np.float64], offset: float, slice_axis: int = 2
) -> Float:
    """(1, I, J, K, 3) positions for torch's sampler, ``offset`` slices away along an axis."""
    matrix = to_head.astype(np.float32)
    indices = [np.arange(n, dtype=np.float32) for n in shape]
    indices[slice_axis] = indices[slice_axis] + np.float32(offset)
    i, j, k = indices
    out = np.empty((1, *shape, 3), dtype=np.float32)
    for axis in range(3):
        a, b, c, d = matrix[axis]
        where = (a * i + d)[:, None, None] + (b * j)[None, :, None] + (c * k)[None, None, :]
        out[0, ..., 2 - axis] = 2 * where / (SHAPE[axis] - 1) - 1
    return out


def _read(source: torch.Tensor, where: torch.Tensor, mode: str) -> Float:
    found = torch.nn.functional.grid_sample(source, where, mode=mode, align_corners=True)
    array: Float = found[0].numpy()
    return array


def _degrade(signal: Float, protocol: Protocol, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Blur, coil sensitivity, motion ghosts, Rician noise, gamma, whole numbers."""
    spacing, across = protocol.spacing_mm, protocol.slice_axis
    in_plane = [axis for axis in range(3) if axis != across]
    if protocol.blur_mm > 0.05:
        sigma = [protocol.blur_mm / s for s in spacing]
        sigma[across] = 0.0
        signal = ndimage.gaussian_filter(signal, sigma)
    scale_vox = [max(110 / s, 4) for s in spacing]
    lattice = _low_field(rng, signal.shape, scale_vox)
    signal = signal * np.exp(protocol.bias * lattice)
    if protocol.ghost > 0:
        axis = in_plane[int(rng.integers(2))]
        by = int(signal.shape[axis] / rng.choice([2, 3, 4]))
        signal = (1 - protocol.ghost) * signal + protocol.ghost * np.roll(signal, by, axis)
    noise = rng.standard_normal((2, *signal.shape), dtype=np.float32)
    if protocol.noise_scale_vox > 0.25:
        s = protocol.noise_scale_vox
        noise = ndimage.gaussian_filter(noise, [0, *(0 if a == across else s for a in range(3))])
        noise /= noise[0, ::7, ::7].std()
    noise *= protocol.noise
    signal = np.sqrt((signal + noise[0]) ** 2 + noise[1] ** 2)
    signal = np.clip(signal, 0, None) ** protocol.gamma * protocol.scale
    return np.clip(np.rint(signal), 0, 65535).astype(np.uint16)


def _low_field(rng: np.random.Generator, shape: tuple[int, ...], scale_vox: list[float]) -> Float:
    """A field as smooth along every axis, in mm, whatever the voxel size."""
    coarse = smooth_field(
        rng, tuple(int(np.ceil(n / s * 8)) for n, s in zip(shape, scale_vox, strict=True)), 8
    )
    index = [
        np.linspace(0, m - 1, n, dtype=np.float32) for n, m in zip(shape, coarse.shape, strict=True)
    ]
    out = coarse
    for axis, at in enumerate(index):
        low = (
            np.clip(at.astype(int), 0, out.shape[axis] - 2)
            if out.shape[axis] > 1
            else at.astype(int)
        )
        part = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        high = np.minimum(low + 1, out.shape[axis] - 1)
        out = np.take(out, low, axis) * (1 - part) + np.take(out, high, axis) * part
    return out.astype(np.float32)


def resample_labels(labels: NDArray[np.int32], grid: Grid) -> NDArray[np.int32]:
    """Labels of the head grid on a scan's grid, by nearest neighbor.

    Example:
        >>> labels = np.zeros(SHAPE, dtype=np.int32)
        >>> labels[96, 130, 102] = 7  # at 0, 0, 0 mm
        >>> resample_labels(labels, Grid((1, 1, 1), np.eye(4))).tolist()
        [[[7]]]
    """
    to_head = np.linalg.inv(head_grid().affine) @ grid.affine
    source = torch.from_numpy(labels.astype(np.float32))[None, None]
    with torch.inference_mode():
        where = torch.from_numpy(_unit_coordinates(grid.shape, to_head, 0.0))
        found: NDArray[np.int32] = _read(source, where, "nearest")[0].astype(np.int32)
    return found
