"""Trains the shipped models on real scans and simulated heads.

    python tools/train_shipped_model.py REAL THICK OUT --minutes 120 [--hold-out thick03,thick11]

REAL and THICK are the two folders of openly licensed scans and masks that
src/lesionwise/models/conflunet.md names. OUT gets the data set (made once, kept), the prepared
arrays and the run. The same call continues where it stopped; ``--initial RUN`` begins a further
phase with the weights of an earlier one; ``unet-cc`` may begin with those of a run of
``conflunet``. ``--ship`` copies the weights into the package.

Every real scan becomes several studies that differ in their brain mask: tight, loose by some
millimeters, and absent (the whole head), so that the network forgives what brain extraction does.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file
from scipy import ndimage

from lesionwise.inference.weights import WEIGHTS
from lesionwise.io.bids import write_dataset_description
from lesionwise.io.files import write_json
from lesionwise.io.nifti import read_mask, read_volume, write_volume
from lesionwise.preprocess.geometry import resample_to, respaced
from lesionwise.printing import progress_shown
from lesionwise.run.load_model import read_run
from lesionwise.run.prepare import prepare
from lesionwise.run.simulate import simulate
from lesionwise.run.train import train
from lesionwise.simulate.masks import split_at_maxima
from lesionwise.simulate.scanner import Style
from lesionwise.types import BoolArray, LabelArray, Volume

MODELS = Path(__file__).parents[1] / "src" / "lesionwise" / "models"


@dataclass(frozen=True)
class Part:
    """Simulated patients of one kind.

    Attributes:
        masks: real lesion masks are planted.
        load: times the ordinary number of lesions.
        tissue_maps: heads from real tissue maps.
        caps: bright normal tissue at the ventricles.
    """

    name: str
    patients: int
    seed: int
    style: Style
    spacing_mm: tuple[float, float, float] | None
    masks: bool = False
    load: float = 1.0
    tissue_maps: bool = False
    caps: bool = False


PARTS = (
    Part("realistic", 8, 111, "realistic", (1.0, 1.0, 1.0)),
    Part("faint", 6, 112, "realistic", (1.0, 1.0, 1.0), masks=True),
    Part("masks", 12, 113, "randomized", None, masks=True),
    Part("thick", 10, 114, "randomized", (0.9, 0.9, 6.5)),
    Part("few", 4, 115, "randomized", (0.9, 0.9, 5.0), load=0.15),
    Part("more", 10, 116, "realistic", (1.0, 1.0, 1.0)),
    Part("healthy", 6, 117, "randomized", (0.9, 0.9, 5.5), load=0.0),
    Part("clear", 4, 118, "realistic", (1.0, 1.0, 1.0), load=0.0),
    Part("fat", 8, 119, "clinical", (0.9, 0.9, 6.0)),
    Part("quiet", 6, 120, "realistic", (1.0, 1.0, 1.0), load=0.15),
    Part("calm", 6, 121, "clinical", (0.9, 0.9, 6.5), load=0.15),
    Part("none", 4, 122, "clinical", (0.9, 0.9, 6.5), load=0.0),
    Part("folded", 16, 123, "realistic", (1.0, 1.0, 1.0), load=0.3, tissue_maps=True),
    Part("folds", 8, 124, "randomized", (1.0, 1.0, 1.0), tissue_maps=True),
    Part("capped", 10, 125, "clinical", (0.9, 0.9, 6.5), load=0.5, caps=True),
    Part("banded", 6, 126, "realistic", (1.0, 1.0, 1.0), load=0.3, caps=True),
    Part("hooded", 6, 127, "randomized", (0.9, 0.9, 6.0), caps=True),
    Part("horns", 4, 128, "clinical", (0.9, 0.9, 6.5), load=0.0, caps=True),
)
REAL = re.compile(r"(thick|open)\d\dv\d")
"""The subjects that are copies of a real scan."""
LOOSE_MM = ((-1.0, 1.0), (1.0, 5.0), (5.0, 14.0))
"""How far each copy's mask lies outside the brain; one more copy has no mask at all."""

SETTINGS = (
    "method.network.features=[16,32,64,128]",
    "method.network.norm=instance",
    "method.samples.size_vox=[64,64,64]",
    "method.samples.batch_size=2",
    "method.samples.per_epoch=200",
    "method.samples.sampling.lesion_fraction=0.5",
    "method.samples.augmentation.intensity.effects.4.probability=0.5",
    "method.samples.augmentation.intensity.effects.0.probability=0.25",
    "method.samples.augmentation.intensity.effects.3.probability=0.3",
    "method.samples.augmentation.lesion_contrast.probability=0.5",
    "method.optimization.learning_rate=1e-3",
    "method.optimization.warmup=0.01",
    "method.selection.every=8",
    "method.selection.top_k=3",
)
HEADS = ("method.objective.loss.heatmap=100.0", "method.objective.loss.offsets=0.1")
"""Of ``conflunet``: with the published weights from the start the mask is not learned in hours."""


def bordered(
    brain: BoolArray,
    spacing_mm: tuple[float, float, float],
    out_mm: tuple[float, float],
    rng: np.random.Generator,
) -> BoolArray:
    """A brain mask whose border lies between two distances outside the brain, smoothly varying."""
    inside = ndimage.distance_transform_edt(brain, sampling=spacing_mm)
    outside = ndimage.distance_transform_edt(~brain, sampling=spacing_mm)
    knots = tuple(max(2, int(n * s / 30)) for n, s in zip(brain.shape, spacing_mm, strict=True))
    coarse = rng.uniform(*out_mm, knots)
    zoom = [n / c for n, c in zip(brain.shape, coarse.shape, strict=True)]
    reach = ndimage.zoom(coarse, zoom, order=1, grid_mode=True, mode="nearest")
    return np.asarray(inside - outside + reach > 0)


def whole_head(scan: Volume) -> BoolArray:
    """What is brighter than the air around the head, filled slice by slice."""
    array = np.asarray(scan.array, dtype=np.float32)
    head = ndimage.binary_opening(array > 0.08 * np.percentile(array, 98))
    labels, count = ndimage.label(head)
    if count > 1:
        head = labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1
    return np.stack([ndimage.binary_fill_holes(s) for s in np.moveaxis(head, 2, 0)], axis=2)


def instances_at_1mm(mask: Volume) -> LabelArray:
    """Instances of a mask on any grid: split at 1 mm by shape, and carried back."""
    fine = respaced(mask.grid, 1.0)
    near = resample_to(Volume(mask.array.astype(np.float32), mask.grid), fine, order=1)
    split = split_at_maxima(near.array > 0.5)
    if not split.any():
        return ndimage.label(mask.array, np.ones((3, 3, 3)))[0]  # type: ignore[no-any-return]
    # every voxel of the fine grid takes the nearest instance; the mask decides which count
    where = ndimage.distance_transform_edt(split == 0, return_distances=False, return_indices=True)
    nearest = Volume(split[tuple(where)], fine)
    carried = resample_to(nearest, mask.grid, order=0)
    return np.where(mask.array, carried.array, 0).astype(np.int32)


def write_study(
    target: Path, subject: str, scan: Volume, brain: BoolArray, lesions: Volume, labels: LabelArray
) -> None:
    """One study of the training set with its truth."""
    name = f"sub-{subject}_ses-01"
    anat = target / f"sub-{subject}" / "ses-01" / "anat"
    truth = target / "derivatives" / "truth" / f"sub-{subject}" / "ses-01" / "anat"
    write_volume(truth / f"{name}_space-orig_label-L_mask.nii.gz", lesions)
    write_volume(truth / f"{name}_space-orig_seg-truth_dseg.nii.gz", Volume(labels, scan.grid))
    write_volume(truth / f"{name}_space-orig_desc-brain_mask.nii.gz", Volume(brain, scan.grid))
    write_volume(anat / f"{name}_FLAIR.nii.gz", scan)


def add_thick(thick: Path, target: Path) -> None:
    """The thick-slice scans, each with four masks."""
    for number, folder in enumerate(sorted(thick.glob("sub-thick*"))):
        subject = folder.name.removeprefix("sub-")
        if (target / f"sub-{subject}v4" / "ses-01" / "anat").exists():
            continue
        scan = read_volume(next(folder.rglob("*_FLAIR.nii.gz")))
        lesions = read_mask(next((thick / "derivatives/lesions" / folder.name).rglob("*.nii.gz")))
        silver = read_mask(next((thick / "derivatives/brains" / folder.name).rglob("*.nii.gz")))
        labels = instances_at_1mm(lesions)
        rng = np.random.default_rng([7, number])
        masks = [bordered(silver.array, scan.grid.spacing_mm, mm, rng) for mm in LOOSE_MM]
        masks.append(whole_head(scan) | silver.array)
        for copy, brain in enumerate(masks, 1):
            write_study(target, f"{subject}v{copy}", scan, brain | lesions.array, lesions, labels)


def add_stripped(real: Path, target: Path, copies: int = 4) -> None:
    """The two 1 mm scans whose skull was removed, each several times: one tight, others tighter."""
    for subject in ("open07", "open19"):
        if (target / f"sub-{subject}v{copies}" / "ses-01" / "anat").exists():
            continue
        scan = read_volume(next((real / f"sub-{subject}").rglob("*_FLAIR.nii.gz")))
        lesions = read_mask(
            next((real / "derivatives" / "lesions" / f"sub-{subject}").rglob("*_mask.nii.gz"))
        )
        labels = split_at_maxima(lesions.array)
        rng = np.random.default_rng([8, int(subject[-2:])])
        brain = ndimage.binary_fill_holes(scan.array != 0)
        for copy in range(1, copies + 1):
            mask = brain
            if copy > 1:
                mask = bordered(brain, scan.grid.spacing_mm, (-2.0, 0.5), rng)
            write_study(target, f"{subject}v{copy}", scan, mask, lesions, labels)


def adopt(part: Path, target: Path, prefix: str, seed: int) -> None:
    """Put the simulated subjects into the data set, three of four with another brain mask."""
    for index, subject in enumerate(sorted(part.glob("sub-*"))):
        old = subject.name.removeprefix("sub-")
        new = f"{prefix}{old.removeprefix('sim')}"
        truth = part / "derivatives" / "truth" / subject.name
        rng = np.random.default_rng([seed, index])
        for source, root in ((truth, target / "derivatives" / "truth"), (subject, target)):
            for file in sorted(source.rglob("*.nii.gz")):
                name = str(file.relative_to(source.parent)).replace(f"sub-{old}", f"sub-{new}")
                copy = root / name
                if copy.exists():
                    continue
                copy.parent.mkdir(parents=True, exist_ok=True)
                if file.name.endswith("desc-brain_mask.nii.gz") and index % 4:
                    brain = read_mask(file)
                    reach = LOOSE_MM[index % 4 - 1]
                    mask = bordered(brain.array, brain.grid.spacing_mm, reach, rng)
                    write_volume(copy, Volume(mask, brain.grid))
                else:
                    shutil.copyfile(file, copy)


def _print_progress(name: str, stage: str, done: int, total: int) -> None:
    print(name, done, total, flush=True)


def make_data(real: Path, thick: Path, out: Path, workers: int) -> Path:
    """The training data set, made once."""
    target = out / "dataset"
    write_dataset_description(target, "Training data of the shipped models", derivative=False)
    add_thick(thick, target)
    add_stripped(real, target)
    for part in PARTS:
        simulate(
            out / part.name,
            part.patients,
            1,
            part.seed,
            style=part.style,
            spacing_mm=part.spacing_mm,
            lesion_load=part.load,
            lesion_masks=real / "derivatives" / "lesions" if part.masks else None,
            exclude_masks=("open19",),
            tissue_maps=real / "derivatives" / "labelmaps" if part.tissue_maps else None,
            exclude_tissue_maps=("open07",),  # so that its scan can be held out
            caps=part.caps,
            workers=workers,
            progress=partial(_print_progress, part.name),
        )
        adopt(out / part.name, target, part.name, part.seed)
    return target


def ship(run: Path, name: str, decided: Sequence[str] = ()) -> None:
    """Put the weights and the record of a run beside the package's code.

    Args:
        decided: settings that act when the model is applied, chosen after the training, such as
            ``min_peak=0.7``.
    """
    described = read_run(run)
    if described["status"] != "done":
        sys.exit(f"{run}: its training has not ended")
    described["overrides"] = [*described["overrides"], *decided]
    described["settings"] |= {k: json.loads(v) for k, _, v in (d.partition("=") for d in decided)}
    shutil.copyfile(run / WEIGHTS, MODELS / f"{name}.safetensors")
    write_json(MODELS / f"{name}.json", described)


def mask_weights(run: Path, target: Path) -> Path:
    """The weights of a run of ``conflunet`` as a beginning for ``unet-cc``: those of the mask.

    The backbones are the same; the first two channels of the last layer are the mask's.
    """
    weights = load_file(run / WEIGHTS)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {k: v[:2].clone() if k.startswith("head.") else v for k, v in weights.items()}, target
    )
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("real", type=Path)
    parser.add_argument("thick", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", default="conflunet", choices=("conflunet", "unet-cc"))
    parser.add_argument("--run", default="phase-1", help="name of the run's folder")
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--max-steps", type=int, help="most optimizer steps, whatever the time")
    parser.add_argument("--hold-out", default="", help="real scans that validate: thick03,open19")
    parser.add_argument("--simulated-only", action="store_true", help="no real scans at all")
    parser.add_argument("--initial", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="further")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--ship", action="store_true")
    parser.add_argument("--decide", action="append", default=[], help="min_peak=0.7, with --ship")
    given = parser.parse_args()
    dataset = make_data(given.real, given.thick, given.out, max(1, given.workers))
    prepared = given.out / "prepared"
    prepare(
        "conflunet",
        dataset,
        prepared,
        workers=given.workers,
        progress=lambda stage, done, total: print(stage, done, total, flush=True),
    )
    subjects = sorted(p.name.removeprefix("sub-") for p in dataset.glob("sub-*"))
    held = tuple(name for name in given.hold_out.split(",") if name)
    # the tight mask validates, every copy is kept from training
    left = [s for s in subjects if held and s.startswith(held)]
    validation = [s for s in left if s.endswith("v1")]
    name = "-".join(held) or "all"
    if given.simulated_only:
        left, validation, name = [s for s in subjects if REAL.fullmatch(s)], [], "simulated"
    folder = given.out / f"{given.recipe}-{given.run}"
    arrays = given.out / f"arrays-{name}"
    if not arrays.exists():
        shutil.copytree(prepared, arrays, copy_function=os.link)
        for subject in left:
            if subject not in validation:
                shutil.rmtree(arrays / f"sub-{subject}")
    initial = given.initial
    if initial is not None and given.recipe == "unet-cc" and initial.name.startswith("conflunet-"):
        initial = mask_weights(initial, given.out / "initial" / f"{initial.name}.safetensors")
    settings = (*SETTINGS, *(HEADS if given.recipe == "conflunet" else ()), *given.further)
    with progress_shown() as progress:
        train(
            given.recipe,
            arrays,
            folder,
            overrides=settings,
            validation_subjects=validation,  # none: trains on all
            device="cpu",
            workers=given.workers,
            max_minutes=given.minutes,
            max_steps=given.max_steps,
            initial=initial,
            progress=progress,
        )
    if given.ship:
        ship(folder, given.recipe, given.decide)


if __name__ == "__main__":
    main()
