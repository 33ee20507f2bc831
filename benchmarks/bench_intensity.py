"""What the intensity steps do to the real scans.

    python benchmarks/bench_intensity.py DATA [--part n4|filters|pairs]

DATA is the folder with the real scans. ``n4``: the coefficient of variation of FLAIR in white
matter before and after N4, by the settings of the rows; white matter is the brightest of three
Otsu classes of the visit's T1-weighted scan (the darkest of its T2-weighted one where there is
none) in the brain mask, without lesion changes, eroded by a voxel in the plane. ``filters``:
noise, and the contrast of lesions to a rim around them, before and after. ``pairs``: the mean
absolute logarithm of the ratio of two visits in the brain without lesion changes, and the
median of F / B in plausible new lesions. Times are processor time.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_multiotsu

from lesionwise.io.nifti import read_mask, read_volume
from lesionwise.preprocess.filters import AnisotropicDiffusion, Denoise, noise_level
from lesionwise.preprocess.geometry import CropToBrain
from lesionwise.preprocess.intensity import N4
from lesionwise.preprocess.pair import DifferentialBias, JointRescale, MatchHistograms
from lesionwise.types import Step, Study, Visit, Volume

PAIRS = ("openlong01", "openlong03", "openlong12")
N4_OF_ROWS = {
    "default": N4(),
    "B1": N4(iterations=1000, tolerance=1e-4, fwhm=0.05),
    "B27": N4(levels=3, iterations=400),
}
FILTERS: dict[str, Step] = {
    "Denoise()": Denoise(),
    "Denoise(strength=0.8)": Denoise(strength=0.8),
    "AnisotropicDiffusion()": AnisotropicDiffusion(),
    "AnisotropicDiffusion(conductance=3)": AnisotropicDiffusion(conductance=3.0),
}


def pair(data: Path, subject: str) -> Study:
    """Both visits in their common space, cropped to the supplied brain."""
    folder = data / "derivatives/coregistered" / f"sub-{subject}"
    brain = read_mask(folder / "anat" / f"sub-{subject}_space-common_desc-brain_mask.nii.gz")
    changes = {
        name: read_mask(folder / "anat" / f"sub-{subject}_space-common_desc-{file}_mask.nii.gz")
        for name, file in (("changed", "change"), ("new", "plausiblenew"))
    }
    visits = []
    for session in ("01", "02"):
        start = f"sub-{subject}_ses-{session}_space-common_"
        files = sorted((folder / f"ses-{session}" / "anat").glob(f"{start}*.nii.gz"))
        scans = {f.name.removeprefix(start).split(".")[0].lower(): read_volume(f) for f in files}
        visits.append(Visit(scans, {}, brain, session))
    return CropToBrain(5)(Study(subject, tuple(visits), changes))


def only_flair(study: Study) -> Study:
    visits = tuple(replace(v, scans={"flair": v.scans["flair"]}) for v in study.visits)
    return replace(study, visits=visits)


def white_matter(visit: Visit, changed: np.ndarray) -> np.ndarray:
    brain = visit.brain.array.astype(bool)
    name = "t1w" if "t1w" in visit.scans else "t2w"
    array = visit.scans[name].array
    low, high = threshold_multiotsu(array[brain], 3)
    white = brain & (array > high if name == "t1w" else array < low) & ~changed
    return ndimage.binary_erosion(white, np.ones((3, 3, 1)))


def timed(step: Step, study: Study) -> tuple[Study, float]:
    start = time.process_time()
    after = step(study)
    return after, time.process_time() - start


def n4(data: Path) -> None:
    print("| scan | before |" + "".join(f" {name} |" for name in N4_OF_ROWS))
    for subject in PAIRS:
        study = pair(data, subject)
        changed = study.changes["changed"].array.astype(bool)
        for visit in study.visits:
            white = white_matter(visit, changed)
            alone = only_flair(replace(study, visits=(visit,)))

            def variation(study: Study, white: np.ndarray = white) -> float:
                values = study.visits[0].scans["flair"].array[white].astype(float)
                return float(values.std() / values.mean())

            row = f"| {subject} ses-{visit.session} | {variation(alone):.4f} |"
            for step in N4_OF_ROWS.values():
                after, seconds = timed(step, alone)
                row += f" {variation(after):.4f} ({seconds:.1f} s) |"
            print(row, flush=True)


def filters(data: Path) -> None:
    print("| scan | step | noise before | after | lesion contrast kept | seconds |")
    for subject in ("open07", "open19"):
        anat = f"sub-{subject}/ses-01/anat/sub-{subject}_ses-01"
        flair = read_volume(data / f"{anat}_FLAIR.nii.gz")
        mask = f"{anat}_space-MNI152_label-lesion_mask.nii.gz"
        lesions = read_mask(data / "derivatives/lesions" / mask).array.astype(bool)
        brain = flair.array > 0
        rim = ndimage.binary_dilation(lesions, iterations=4)
        rim &= brain & ~ndimage.binary_dilation(lesions)
        study = Study(subject, (Visit({"flair": flair}, {}, Volume(brain, flair.grid)),))
        before = np.asarray(flair.array, np.float32)
        for name, step in FILTERS.items():
            result, seconds = timed(step, study)
            after = result.visits[0].scans["flair"].array
            noise = [noise_level(a, brain) for a in (before, after)]
            contrast = [a[lesions].mean() - a[rim].mean() for a in (before, after)]
            kept = contrast[1] / contrast[0]
            print(
                f"| {subject} | {name} | {noise[0]:.1f} | {noise[1]:.1f} | {kept:.2f} |"
                f" {seconds:.1f} |",
                flush=True,
            )


def pairs(data: Path) -> None:
    print("| pair | steps | mean abs. log ratio | F / B in new lesions | seconds |")
    for subject in PAIRS:
        study = only_flair(pair(data, subject))
        stable = study.baseline.brain.array.astype(bool) & ~study.changes["changed"].array.astype(
            bool
        )
        new = study.changes["new"].array.astype(bool)
        steps: dict[str, Step] = {
            "JointRescale": JointRescale(),
            "MatchHistograms": MatchHistograms(),
            "DifferentialBias": DifferentialBias(),
        }
        for name, step in {"none": lambda s: s, **steps}.items():
            after, seconds = timed(step, study)
            first, last = (np.maximum(v.scans["flair"].array, 1.0) for v in after.visits)
            ratio = np.log(last / first)
            print(
                f"| {subject} | {name} | {np.abs(ratio[stable]).mean():.4f} |"
                f" {np.exp(np.median(ratio[new])) if new.any() else float('nan'):.3f} |"
                f" {seconds:.1f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--part", choices=("n4", "filters", "pairs"))
    arguments = parser.parse_args()
    for name, part in (("n4", n4), ("filters", filters), ("pairs", pairs)):
        if arguments.part in (None, name):
            part(arguments.data)


if __name__ == "__main__":
    main()
