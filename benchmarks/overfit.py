"""One simulated patient learned by heart: does a row's whole path lead to its own truth?

    python benchmarks/overfit.py iqda pre-unet … --minutes 3 --work FOLDER

A patient is simulated, prepared by the recipe's own steps, learned by the recipe's method and
found again through the same call as ``lesionwise predict``. The Dice is that of the mask (of new
lesions where the recipe takes two visits) on the grid it returns, over the whole scan. What was
reduced, so that two cores get somewhere, is printed beside it. Prepared arrays are kept in FOLDER.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lesionwise.learning.dataset import read_prepared, write_prepared
from lesionwise.learning.samplers import PatchSampling
from lesionwise.learning.targets import instances_of
from lesionwise.learning.window import SlidingWindow
from lesionwise.methods.cascade import AddMaps
from lesionwise.methods.combine import Ensemble, SegmentThenCompare
from lesionwise.methods.network import NetworkMethod
from lesionwise.methods.nnunet import Augmentation, AugmentedCopies, NnunetMethod
from lesionwise.methods.positive import PositiveCases
from lesionwise.recipe import Recipe
from lesionwise.run.find import find_lesions
from lesionwise.run.predict import LoadedModel
from lesionwise.run.recipes import find_recipe
from lesionwise.run.steps import fit_steps, load_steps, shared_steps
from lesionwise.simulate.patient import simulate_patient
from lesionwise.types import Grid, LesionMaps, Method, RunContext, Study, TrainingData, Volume

MARGIN_VOX = 12


@dataclass(frozen=True)
class Box:
    """A step: every volume cut to the same voxels."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    def __call__(self, study: Study) -> Study:
        def cut(volume: Volume) -> Volume:
            part = tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
            shift = np.eye(4)
            shift[:3, 3] = self.start
            array = volume.array[part]
            return Volume(array, Grid(array.shape, volume.grid.affine @ shift))

        visits = tuple(
            replace(
                visit,
                scans={name: cut(v) for name, v in visit.scans.items()},
                labels={name: cut(v) for name, v in visit.labels.items()},
                brain=None if visit.brain is None else cut(visit.brain),
            )
            for visit in study.visits
        )
        return replace(
            study, visits=visits, changes={name: cut(v) for name, v in study.changes.items()}
        )


@dataclass(frozen=True)
class Reduction:
    """How a row's networks are made small: keywords of its network, patch, rate, batch."""

    network: dict[str, object]
    patch: int
    rate: float
    batch: int = 2

    def of(self, method: NetworkMethod) -> NetworkMethod:
        """The method with published loss, targets, optimizer and schedule."""
        whole = method.whole_volume
        return replace(
            method,
            network=partial(method.network.func, **{**method.network.keywords, **self.network}),
            patch_size_vox=(self.patch,) * 3,
            learning_rate=self.rate,
            batch_size=self.batch,
            patches_per_epoch=10 * self.batch,
            epochs=10_000,
            sampling=PatchSampling(lesion_share=0.9),
            spatial=None,
            intensity=None,
            validate_every=10_000,
            stop=None,
            whole_volume=whole,
            window=SlidingWindow(overlap=0.5, windows_per_batch=4),
        )

    def __str__(self) -> str:
        kept = ", ".join(f"{name} {value}" for name, value in self.network.items())
        return (
            f"{kept}; patch {self.patch}; batch {self.batch}; learning rate {self.rate:g}; "
            "no augmentation, patches around lesions"
        )


@dataclass(frozen=True)
class NnunetReduction:
    """How a row of nnU-Net is made small; its patch may have two numbers."""

    patches: tuple[int, ...]
    rate: float
    features: int = 8
    batch: int = 2
    spacing_mm: tuple[float, ...] | None = None

    @property
    def patch(self) -> int:
        return max(self.patches)

    def of(self, method: NnunetMethod) -> NnunetMethod:
        """The method with published loss, optimizer, schedule, dropout and heads."""
        return replace(
            method,
            plans=replace(
                method.plans,
                patch_size_vox=self.patches,
                spacing_mm=self.spacing_mm,
                base_features=self.features,
                batch_size=self.batch,
            ),
            learning=replace(
                method.learning,
                learning_rate=self.rate,
                epochs=10_000,
                batches_per_epoch=20,
                validation_batches=1,
                oversample_lesions=0.9,
            ),
            augmentation=Augmentation(
                rotation_deg=0.0, scaling=(1.0, 1.0), intensity=False, mirror=()
            ),
            case_steps=tuple(s for s in method.case_steps if not isinstance(s, AugmentedCopies)),
        )

    def __str__(self) -> str:
        spacing = f"; spacing {self.spacing_mm}" if self.spacing_mm else ""
        return (
            f"base features {self.features}; patch {self.patches}{spacing}; batch {self.batch}; "
            f"learning rate {self.rate:g}; no augmentation, patches around lesions"
        )


REDUCTIONS = {
    "conflunet-nnunet": NnunetReduction((32, 32, 32), 2e-3),
    "nnunet-2d": NnunetReduction((96, 96), 1e-2, features=16, batch=8),
    "nnunet-longitudinal": NnunetReduction((32, 32, 32), 2e-3),
    "nnunet-empenn": NnunetReduction((32, 32, 32), 1e-2, spacing_mm=(1.0, 1.0, 1.0)),
    "nnunet-subtraction": Reduction({"features": (8, 16, 32, 64, 64)}, 48, 2e-3),
    "iqda": Reduction({"features": (8, 16, 32, 64)}, 48, 2e-3),
    "pre-unet": Reduction({"features": (8, 16, 32, 64)}, 48, 2e-3),
    "antialias-unet": Reduction({"features": (8, 8, 16, 16, 24)}, 48, 2e-2),
    "cascade-probability": Reduction({"features": (8, 16, 32, 64, 64, 64)}, 64, 2e-3),
    "segresnet-ensemble": Reduction({"features": 8}, 32, 2e-3),
}


def reduced(method: Method, change: Callable[..., Method]) -> Method:
    """The method with every network changed, one member of each ensemble, nothing pre-trained."""
    if isinstance(method, NetworkMethod | NnunetMethod):
        return change(method)
    if isinstance(method, Ensemble):
        kinds = tuple(dict.fromkeys(method.members))
        return replace(method, members=tuple(reduced(m, change) for m in kinds), folds=0)
    if isinstance(method, SegmentThenCompare):
        return replace(method, method=reduced(method.method.then, change))
    if isinstance(method, PositiveCases):
        return replace(method, method=reduced(method.method, change))
    raise TypeError(type(method).__name__)


def small(recipe: Recipe, reduction: Reduction | NnunetReduction, box: Box) -> Recipe:
    """The recipe as it is trained here; ``box`` is cut after the steps that do not learn."""
    shared = shared_steps(recipe.preprocess)
    learned = tuple(
        replace(step, method=reduced(step.method, reduction.of))
        if isinstance(step, AddMaps)
        else step
        for step in recipe.preprocess[len(shared) :]
    )
    return replace(
        recipe,
        preprocess=(*shared, box, *learned),
        method=reduced(recipe.method, reduction.of),
    )


def truth_of(study: Study) -> np.ndarray:
    """What is to be found: new lesions of two visits, all lesions of one."""
    if len(study.visits) == 1:
        return np.asarray(study.followup.labels["instances"].array) > 0
    return np.asarray(study.changes["new"].array) > 0


def around(study: Study, patch: int) -> Box:
    """The box around all that is to be found, at least as large as a patch."""
    where = np.argwhere(truth_of(study))
    shape = study.followup.scans["flair"].grid.shape
    start, stop = [], []
    for axis in range(3):
        low, high = int(where[:, axis].min()) - MARGIN_VOX, int(where[:, axis].max()) + MARGIN_VOX
        size = min(patch, shape[axis])
        missing = max(0, size - (high - low))
        low = max(0, min(low - missing // 2, shape[axis] - size))
        start.append(low)
        stop.append(min(shape[axis], max(high, low + size)))
    return Box(tuple(start), tuple(stop))


def overfit(name: str, patient: Study, work: Path, minutes: float) -> dict[str, object]:
    """Prepare, learn and find again; one row of the table."""
    reduction = REDUCTIONS[name]
    recipe = find_recipe(name)
    patient = replace(patient, visits=patient.visits[-recipe.visits :])
    kept = work / name / "prepared"
    if not (kept / "study.json").is_file():
        study = patient
        for step in shared_steps(recipe.preprocess):
            study = step(study)
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_prepared(study, kept)
    study = read_prepared(kept)
    box = around(study, reduction.patch)
    recipe = small(recipe, reduction, box)
    folder = work / name / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run = RunContext(folder, seed=0, device="cpu", max_minutes=minutes)
    started = time.perf_counter()
    recipe.method.fit(fit_steps(recipe.preprocess, TrainingData([box(study)]), run), run)
    taken = (time.perf_counter() - started) / 60
    learned = load_steps(recipe.preprocess, run)[len(shared_steps(recipe.preprocess)) :]
    predictor = recipe.method.load(run)

    def predict(prepared: Study) -> LesionMaps:
        for step in learned:
            prepared = step(prepared)
        return predictor(prepared)

    # the prepared study again, so that registration is not paid for twice
    shown = replace(recipe, preprocess=(lambda _: study, box))
    found = find_lesions(patient, LoadedModel(shown, predict, name, "", {}))
    truth = truth_of(patient)
    both = int(found.mask.array.sum()) + int(truth.sum())
    dice = 2 * int((found.mask.array & truth).sum()) / both
    return {"recipe": name, "dsc": dice, "minutes": taken, "reduced": str(reduction)}


def patient_of(seed: int, folder: Path) -> Study:
    """The simulated pair of that seed, kept in a folder."""
    if not (folder / "study.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        patient = simulate_patient(seed, visits=2, with_skull=False, registered=True)
        write_prepared(patient, folder)
    return read_prepared(folder)


def cut(patient: Study, side: int) -> Study:
    """Both scans within a cube around the largest component of what is to be found."""
    parts = instances_of(truth_of(patient))
    largest = int(np.argmax(np.bincount(parts.ravel())[1:])) + 1
    middle = np.argwhere(parts == largest).mean(axis=0).astype(int)
    start = [
        int(np.clip(m - side // 2, 0, max(0, n - side)))
        for m, n in zip(middle, parts.shape, strict=True)
    ]
    i, j, k = start
    return Box((i, j, k), (i + side, j + side, k + side))(patient)


def main() -> None:
    """Print one line per recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="+", choices=sorted(REDUCTIONS))
    parser.add_argument("--minutes", type=float, default=3.0, help="of learning, for each")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--field-vox", type=int, default=0, help="0 keeps the whole scan")
    parser.add_argument("--work", type=Path, default=Path("overfit"))
    arguments = parser.parse_args()
    work = arguments.work / str(arguments.seed)
    patient = patient_of(arguments.seed, work / "patient")
    if arguments.field_vox:
        patient = cut(patient, arguments.field_vox)
        work = work / f"field-{arguments.field_vox}"
        print(f"the scans are cut to {arguments.field_vox} voxels around the largest new lesion")
    new = np.unique(patient.changes["new"].array, return_counts=True)
    print(f"threads {torch.get_num_threads()}; new lesions and their voxels: {new}", flush=True)
    for name in arguments.recipes:
        row = overfit(name, patient, work, arguments.minutes)
        print(
            f"{row['recipe']:<22} DSC {row['dsc']:.3f}  {row['minutes']:.1f} min  {row['reduced']}",
            flush=True,
        )


if __name__ == "__main__":
    main()
