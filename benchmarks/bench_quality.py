"""Grades of real scans as they are, of spoilt copies of them, and of simulated scans.

    python benchmarks/bench_quality.py ../shared/data [--simulated 3] [--slices]

Prints one line per scan: name, what was done to it, grade, measures, reasons. With --slices the
FLAIR scans alone, as they are and with slices moved in their plane.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from lesionwise.io.nifti import read_volume
from lesionwise.preprocess.brain import brain_mask
from lesionwise.preprocess.quality import scan_quality
from lesionwise.simulate.artifacts import degraded
from lesionwise.types import Volume

SHOWN = (
    "cut_fraction",
    "signal_to_noise",
    "ghost_fraction",
    "bright_tail",
    "tissue_order",
    "slice_shift_mm",
)


def moved(scan: Volume, axis: int, shift_mm: float, seed: int) -> Volume:
    """The scan as if the patient had moved eight times, along ``axis``, while k-space was read.

    Positions are drawn with an SD of ``shift_mm``; lines along ``axis`` are read in order.
    """
    rng = np.random.default_rng(seed)
    lines = scan.grid.shape[axis]
    shift_vox = np.zeros(lines)
    for start in np.sort(rng.integers(0, lines, 8)):
        shift_vox[start:] = rng.normal(0, shift_mm / scan.grid.spacing_mm[axis])
    shift_vox -= shift_vox[lines // 2]
    shape = [lines if a == axis else 1 for a in range(3)]
    phase = np.exp(-2j * np.pi * (np.arange(lines) - lines // 2) * shift_vox / lines).reshape(shape)
    lines_read = np.fft.fftshift(np.fft.fft(scan.array, axis=axis), axes=axis) * phase
    array = np.abs(np.fft.ifft(np.fft.ifftshift(lines_read, axes=axis), axis=axis))
    return Volume(array.astype(np.float32), scan.grid)


def beside(scan: Volume, shift_mm: float, slices: range) -> Volume:
    """The scan with some slices moved along i."""
    array = scan.array.astype(np.float32)
    for at in slices:
        shift_vox = (shift_mm / scan.grid.spacing_mm[0], 0)
        array[..., at] = ndimage.shift(scan.array[..., at], shift_vox, order=1, mode="nearest")
    return Volume(array, scan.grid)


def flair_slices(data: Path) -> Iterator[tuple[str, str, Volume, Volume]]:
    """FLAIR scans as they are, with every other slice moved, and with a tenth of them moved."""
    for path in sorted(data.glob("sub-*/*/anat/*_FLAIR.nii.gz")):
        scan, name = read_volume(path), path.name.removesuffix(".nii.gz")
        brain = brain_mask(scan, name=name)
        yield name, "as it is", scan, brain
        n = scan.grid.shape[2]
        few = range(n // 2, n // 2 + n // 5, 2)
        for shift_mm in (1.0, 2.0, 4.0):
            moved = beside(scan, shift_mm, range(0, n, 2))
            yield name, f"every other slice {shift_mm:g} mm aside", moved, brain
            yield (
                name,
                f"{len(few)} slices {shift_mm:g} mm aside",
                beside(scan, shift_mm, few),
                brain,
            )


def real(data: Path) -> Iterator[tuple[str, str, Volume, Volume]]:
    """Name, change, scan and brain of every real scan and of spoilt copies of the raw FLAIR."""
    common = data / "derivatives" / "coregistered"
    others = [*data.glob("sub-*/*/anat/*_T[12]w.nii.gz"), *common.glob("*/*/anat/*_T[12]w.nii.gz")]
    for path in [*sorted(data.glob("sub-*/*/anat/*_FLAIR.nii.gz")), *sorted(others)]:
        scan = read_volume(path)
        name = path.name.removesuffix(".nii.gz")
        brain = brain_mask(scan, name=name)
        yield name, "as it is", scan, brain
        if "openlong" not in name or "FLAIR" not in name:
            continue
        for axis in (0, 1):
            for shift_mm in (2.0, 4.0):
                yield (
                    name,
                    f"moved {shift_mm:g} mm, {'ij'[axis]}",
                    moved(scan, axis, shift_mm, 1),
                    brain,
                )
        yield name, "noise of 12 %", degraded(scan, 0, noise=0.12), brain
        inverted = Volume(float(scan.array.max()) - scan.array, scan.grid)
        yield name, "inverted", inverted, brain
        keep = max(1, round(0.8 * scan.grid.shape[2]))
        short = degraded(scan, 0, keep=0.8)
        yield name, "upper fifth left out", short, Volume(brain.array[:, :, :keep], short.grid)


def simulated(patients: int) -> Iterator[tuple[str, str, Volume, Volume]]:
    """The same of simulated scans with ghosts and noise of known strength, and as T1-weighted."""
    from lesionwise.simulate.anatomy import compose, make_head
    from lesionwise.simulate.lesions import LesionSettings, paint, place_lesions
    from lesionwise.simulate.scanner import acquire, contrast_image, draw_contrast, draw_protocol

    for seed in range(900, 900 + patients):
        streams = np.random.SeedSequence(seed).spawn(4)
        body, growth, machine, _ = (np.random.default_rng(stream) for stream in streams)
        anatomy = compose(make_head(body))
        lesions = paint(
            place_lesions(growth, anatomy, 1, LesionSettings()), 0, anatomy.white.shape, 0.6
        )
        contrast = draw_contrast(machine, "realistic")
        protocol = replace(draw_protocol(machine, "realistic"), ghost=0.0)
        t1w = replace(contrast, gray=0.72, deep_gray=0.85, fluid=0.25, lesion=0.75, flow=0.0)
        ghosts = [
            (f"ghost {100 * g:.0f} %", replace(protocol, ghost=g)) for g in (0.02, 0.04, 0.08, 0.15)
        ]
        noises = [(f"noise {100 * n:.0f} %", replace(protocol, noise=n)) for n in (0.08, 0.15)]
        for change, way in [("as it is", protocol), *ghosts, *noises, ("T1-weighted", protocol)]:
            wanted = t1w if change == "T1-weighted" else contrast
            image = contrast_image(anatomy, lesions, wanted, seed)
            scan = acquire(image, anatomy, lesions, way, np.random.default_rng(seed))
            yield (
                f"simulated {seed}",
                change,
                Volume(scan.image, scan.grid),
                Volume(scan.brain, scan.grid),
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--simulated", type=int, default=0, help="patients")
    parser.add_argument("--slices", action="store_true", help="slices moved against each other")
    given = parser.parse_args()
    sources = (real(given.data), simulated(given.simulated))
    for source in (flair_slices(given.data),) if given.slices else sources:
        for name, change, scan, brain in source:
            found = scan_quality(scan, brain)
            numbers = " ".join(f"{key}={found.measures.get(key, np.nan):.3g}" for key in SHOWN)
            reasons = "; ".join(found.reasons)
            print(f"{name} | {change} | {found.grade} | {numbers} | {reasons}", flush=True)


if __name__ == "__main__":
    main()
