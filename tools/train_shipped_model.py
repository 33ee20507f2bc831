"""Trains the shipped models from nothing but the real masks and scans at hand and the simulator.

    python tools/train_shipped_model.py REAL OUT [--workers 2]

REAL is the folder of openly licensed scans and masks that src/lesionwise/models/conflunet.md names.
OUT gets the data sets (simulated once, kept), the prepared arrays and one run a recipe; the weights
end in src/lesionwise/models. The recipes are trained one after the other for the same time, one
thread each, with a second process that cuts patches. The subject ``open19`` is used by no step.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

from lesionwise.io.bids import write_dataset_description
from lesionwise.io.files import write_json
from lesionwise.io.nifti import read_mask, read_volume, write_volume
from lesionwise.methods.network import WEIGHTS
from lesionwise.run.predict import read_run
from lesionwise.run.prepare import prepare
from lesionwise.run.simulate import simulate
from lesionwise.simulate.masks import split_at_maxima
from lesionwise.types import BoolArray, Volume

MODELS = Path(__file__).parents[1] / "src" / "lesionwise" / "models"
NEVER_SEEN = "open19"
PARTS = (
    # name, patients, seed, style, with the real masks
    ("validation", 4, 14, "realistic", False),
    ("realistic", 40, 11, "realistic", False),
    ("masks", 28, 13, "randomized", True),
    ("randomized", 19, 12, "randomized", False),
)
REAL_COPIES = 6
"""Every study is equally likely to give a patch; the one real scan counts this often."""

RECIPES = ("conflunet", "unet-cc")
DIMMED = ("method.intensity.contrast=0.5", "method.lesion_contrast.probability=0.5")
PHASES: tuple[tuple[str, float, tuple[str, ...], tuple[str, ...]], ...] = (
    ("first", 24, (), ("method.loss.heatmap=20.0", "method.loss.offsets=0.1")),
    ("second", 19, DIMMED, ("method.loss.heatmap=200.0",)),
    ("third", 33, DIMMED, ("method.loss.heatmap=1000.0",)),
)
"""Name, minutes, settings of both recipes and of ``conflunet`` alone; each phase begins with the
weights of the one before. With the published weight of the heatmap (2000, for 300 epochs) from the
start the segmentation had learned nothing after 1100 steps (Dice loss 0.98, where ``unet-cc`` had
reached 0.59); with 200 and a wider network (16, 32, 64) it stood at 0.82 after 800."""

SETTINGS = (
    "method.network.features=[8,24,64]",
    "method.patch_size_vox=[64,64,64]",
    "method.batch_size=2",
    "method.patches_per_epoch=200",
    "method.sampling.lesion_share=0.6",
    "method.learning_rate=1e-3",
    "method.validate_every=6",
    "method.selection.top_k=3",
)
"""What differs from the recipes, so that two cores get somewhere: a quarter of the width, a third
of the patch volume, small batches at a higher rate, patches around lesions."""


def jittered(
    brain: BoolArray, spacing_mm: tuple[float, ...], rng: np.random.Generator
) -> BoolArray:
    """A brain mask as extraction gives it: its border off by up to some mm, smoothly varying."""
    inside = ndimage.distance_transform_edt(brain, sampling=spacing_mm)
    outside = ndimage.distance_transform_edt(~brain, sampling=spacing_mm)
    coarse = rng.normal(
        0, 1.2, tuple(max(2, int(n * s / 25)) for n, s in zip(brain.shape, spacing_mm, strict=True))
    )
    zoom = [n / c for n, c in zip(brain.shape, coarse.shape, strict=True)]
    field = ndimage.zoom(coarse, zoom, order=1, grid_mode=True, mode="nearest")
    return np.asarray(inside - outside + field + rng.uniform(-1.0, 2.0) > 0)


def adopt(part: Path, target: Path, prefix: str, seed: int) -> None:
    """Put the subjects of a simulated data set into another one under new names."""
    for index, subject in enumerate(sorted(part.glob("sub-*"))):
        old = subject.name.removeprefix("sub-")
        new = f"{prefix}{old.removeprefix('sim')}"
        truth = part / "derivatives" / "truth" / subject.name
        rng = np.random.default_rng([seed, index])
        for source, root in ((subject, target), (truth, target / "derivatives" / "truth")):
            for file in sorted(source.rglob("*.nii.gz")):
                name = str(file.relative_to(source.parent)).replace(f"sub-{old}", f"sub-{new}")
                copy = root / name
                if copy.exists():
                    continue
                copy.parent.mkdir(parents=True, exist_ok=True)
                if file.name.endswith("desc-brain_mask.nii.gz") and index % 4:
                    brain = read_mask(file)
                    mask = jittered(brain.array, brain.grid.spacing_mm, rng)
                    write_volume(copy, Volume(mask, brain.grid))
                else:
                    shutil.copyfile(file, copy)


def add_real(real: Path, target: Path, subject: str = "open07") -> None:
    """The one real scan with a mask that may be trained on, with instances from its shape."""
    flair = next((real / f"sub-{subject}").rglob("*_FLAIR.nii.gz"))
    mask = next((real / "derivatives" / "lesions" / f"sub-{subject}").rglob("*_mask.nii.gz"))
    lesions = read_mask(mask)
    instances = split_at_maxima(lesions.array)
    for copy in range(1, REAL_COPIES + 1):
        name = f"sub-real{copy}_ses-01"
        folder = target / f"sub-real{copy}" / "ses-01" / "anat"
        truth = target / "derivatives" / "truth" / f"sub-real{copy}" / "ses-01" / "anat"
        write_volume(folder / f"{name}_FLAIR.nii.gz", read_volume(flair))
        write_volume(truth / f"{name}_space-orig_label-L_mask.nii.gz", lesions)
        write_volume(
            truth / f"{name}_space-orig_seg-truth_dseg.nii.gz", Volume(instances, lesions.grid)
        )


def make_data(real: Path, out: Path, workers: int) -> Path:
    """The training data set, made once."""
    for name, patients, seed, style, with_masks in PARTS:
        simulate(
            out / name,
            patients,
            1,
            seed,
            style=style,  # type: ignore[arg-type]
            lesion_masks=real / "derivatives" / "lesions" if with_masks else None,
            exclude_masks=(NEVER_SEEN,),
            workers=workers,
            progress=lambda stage, done, total, name=name: print(name, done, total, flush=True),
        )
    target = out / "dataset"
    for name, _, seed, _, _ in PARTS:
        adopt(out / name, target, name, seed)
    add_real(real, target)
    write_dataset_description(target, "Training data of the shipped models", derivative=False)
    return target


def ship(run: Path, name: str) -> None:
    """Put the weights and the record of a run beside the package's code."""
    described = read_run(run)
    if described["status"] != "done":
        sys.exit(f"{run}: its training has not ended")
    shutil.copyfile(run / WEIGHTS, MODELS / f"{name}.safetensors")
    write_json(MODELS / f"{name}.json", described)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("real", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    dataset = make_data(given.real, given.out, given.workers)
    validation = sorted(p.name for p in dataset.glob("sub-validation*"))
    prepared = given.out / "prepared"
    prepare(
        "conflunet",
        dataset,
        prepared,
        workers=given.workers,
        progress=lambda stage, done, total: print(stage, done, total, flush=True),
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    for recipe in RECIPES:
        before: tuple[str, ...] = ()
        for phase, minutes, shared, heads in PHASES:
            folder = given.out / f"{recipe}-{phase}"
            settings = (*SETTINGS, *shared, *(heads if recipe == "conflunet" else ()))
            command = [
                *(sys.executable, "-m", "lesionwise.cli", "train", recipe, str(prepared)),
                *("-o", str(folder), "--device", "cpu", "--workers", "1"),
                *("--max-minutes", str(minutes), *before),
                *(part for name in validation for part in ("--validation", name)),
                *(part for setting in settings for part in ("--set", setting)),
            ]
            subprocess.run(command, env=environment, check=True)
            before = ("--initial", str(folder))
        ship(folder, recipe)


if __name__ == "__main__":
    main()
