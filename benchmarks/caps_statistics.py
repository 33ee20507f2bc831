"""Bright normal tissue at the ventricles: as a reader outlined it, and of ``simulate --caps``.

    python benchmarks/caps_statistics.py ../shared/data_thick --seeds 0 1 2 3 4 5

DATA has masks of normal hyperintensities, lesions, ventricles and brains for some scans. In them:
volume of what is normal (ml); part of the brain within 2.5 mm of the ventricles, in the plane, that
is normal; largest thickness in the plane (mm); and by how much normal tissue and lesions exceed
white matter (median over their voxels; white matter is the median of the brain's remaining tissue
above the 30th percentile of the brain). In a simulated head of each seed, without bias, noise and
lesions and averaged over slices of 7 mm: the same of the voxels that caps raise by 0.1 or more to
at least 0.15 above white matter, and by how much its lesions exceed white matter before they are
averaged. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy import ndimage

from lesionwise.io.nifti import read_mask, read_volume
from lesionwise.simulate.anatomy import HeadSettings, compose, make_head
from lesionwise.simulate.caps import caps_layer, draw_caps
from lesionwise.simulate.scanner import draw_contrast

NEAR_MM = 2.5
SLICE_MM = 7


def thickness_mm(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> float:
    """Twice the largest distance to what is outside, slice by slice."""
    in_plane = (*spacing_mm[:2], 1e6)
    return 2 * float(ndimage.distance_transform_edt(mask, sampling=in_plane).max())


def measured(data: Path, subject: str) -> list[float]:
    def mask(kind: str) -> np.ndarray:
        folder = data / "derivatives" / kind / subject
        return np.asarray(read_mask(next(folder.rglob("*_mask.nii.gz"))).array) > 0

    scan = read_volume(next((data / subject).rglob("*_FLAIR.nii.gz")))
    signal, spacing = np.asarray(scan.array, dtype=float), scan.grid.spacing_mm
    normal, lesions = mask("normalhyperintensity"), mask("lesions")
    ventricles, brain = mask("ventricles"), mask("brains")
    tissue = signal[brain & ~ventricles & ~lesions & ~normal]
    white = np.median(tissue[tissue > np.percentile(signal[brain], 30)])
    away = ndimage.distance_transform_edt(~ventricles, sampling=(*spacing[:2], 1e6))
    near = (away > 0) & (away < NEAR_MM) & brain
    return [
        normal.sum() * scan.grid.voxel_volume_mm3 / 1000,
        (normal & near).sum() / near.sum(),
        thickness_mm(normal, spacing),
        np.median(signal[normal]) / white - 1,
        np.median(signal[lesions]) / white - 1,
    ]


def simulated(seed: int) -> list[float]:
    rng = np.random.default_rng(seed)
    head = compose(make_head(rng, HeadSettings()), 0.0)
    caps, contrast = draw_caps(rng), draw_contrast(rng, "clinical")
    layer = caps.brightness * caps_layer(head, caps, rng)
    tissue = head.white + head.gray
    plain = head.white + head.gray * contrast.gray + head.fluid * contrast.fluid
    raised = np.clip(1 + layer * (contrast.lesion - 1) - plain, 0, None)
    raised = raised * tissue * np.clip(3 * layer, 0, 1)
    raised, plain = (ndimage.uniform_filter1d(a, SLICE_MM, axis=2) for a in (raised, plain))
    excess = plain + raised - 1
    found = (raised > 0.1) & (excess > 0.15)
    near = (head.ventricle_mm > 0) & (head.ventricle_mm < NEAR_MM)
    return [
        found.sum() / 1000,
        (found & near).sum() / near.sum(),
        thickness_mm(found, (1.0, 1.0, 1.0)),
        float(np.median(excess[found])),
        contrast.lesion - 1,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(6)))
    given = parser.parse_args()
    folders = sorted((given.data / "derivatives" / "normalhyperintensity").glob("sub-*"))
    rows = [(folder.name, measured(given.data, folder.name)) for folder in folders]
    rows += [(f"simulated, seed {seed}", simulated(seed)) for seed in given.seeds]
    print("| | volume (ml) | of the wall | thickness (mm) | excess | excess of lesions |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, (volume, share, thick, excess, lesions) in rows:
        cells = f"{volume:.1f} | {share:.2f} | {thick:.1f} | {excess:.2f} | {lesions:.2f}"
        print(f"| {name} | {cells} |")


if __name__ == "__main__":
    main()
