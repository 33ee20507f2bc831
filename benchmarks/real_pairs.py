"""Trained runs for new lesions, applied to the real pairs and scored, by the ordinary commands.

    python benchmarks/real_pairs.py DATA OUT NAME=RUN [NAME=RUN …] [--pairs openlong12]

DATA is the folder with the real scans. Each run goes through ``lesionwise predict RUN SCANS``; the
masks of plausible new lesions that come with the pairs are resampled to the grid of the
prediction by the supplied transforms; ``lesionwise evaluate`` scores the instances. The masks are
thresholded differences of the scans, no expert's reading, and ``openlong03`` is a poor reference;
a model trained for minutes on simulated heads is not expected to agree with them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from bench_preprocess import common_to_raw

from lesionwise.io.nifti import read_mask, read_volume, write_volume
from lesionwise.preprocess.geometry import resample_to
from lesionwise.types import Volume


def write_references(data: Path, subjects: list[str], folder: Path, session: str) -> None:
    """Plausible new lesions of each pair on the grid of one of its visits."""
    for subject in subjects:
        masks = data / "derivatives" / "coregistered" / f"sub-{subject}"
        mask = read_mask(next((masks / "anat").glob("*desc-plausiblenew_mask.nii.gz")))
        scan = read_volume(next((data / masks.name / f"ses-{session}").rglob("*_FLAIR.nii.gz")))
        to_common = np.linalg.inv(common_to_raw(data, subject, session))
        laid = resample_to(mask, scan.grid, order=0, world=to_common)
        reference = Volume((laid.array > 0).astype(np.uint8), scan.grid)
        write_volume(folder / f"{masks.name}_ses-{session}_mask.nii.gz", reference)


def lesionwise(*arguments: str) -> None:
    """One command line; prints it first."""
    print("lesionwise", " ".join(arguments), flush=True)
    program = Path(sys.executable).with_name("lesionwise")
    subprocess.run([str(program), *arguments], check=True)


def main() -> None:
    """Predict with every run, then score together those that predict on the same visit's grid."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--pairs", nargs="+", default=["openlong01", "openlong03", "openlong12"])
    arguments = parser.parse_args()
    folders = [arguments.data / f"sub-{subject}" for subject in arguments.pairs]
    scans = [str(path) for folder in folders for path in sorted(folder.rglob("*_FLAIR.nii.gz"))]
    output = arguments.output
    by_session: dict[str, list[str]] = {}
    for text in arguments.runs:
        name, _, run = text.partition("=")
        lesionwise("predict", run, *scans, "-o", str(output / name))
        found = next((output / name).rglob("*desc-new*_dseg.nii.gz")).name
        session = found.split("_ses-")[1].split("_")[0]
        by_session.setdefault(session, []).append(name)
    for session, names in by_session.items():
        references = output / f"reference-{session}"
        write_references(arguments.data, arguments.pairs, references, session)
        found = [f"{output / name}/*desc-new*_dseg.nii.gz" for name in names]
        said = [part for name in names for part in ("--name", name)]
        scores = str(output / f"scores-{session}")
        lesionwise("evaluate", str(references), *found, *said, "-o", scores)


if __name__ == "__main__":
    main()
