"""Overfitting to one pair of visits: does a row's whole path reproduce its own truth?

    lesionwise simulate -o PAIRS --patients 8 --visits 2 --seed 600 --lesion-change 4 \\
      --spacing 1.2 1.2 1.2
    python benchmarks/overfit.py PAIRS iqda pre-unet … --subject sim0001 --minutes 3 --work FOLDER

The two whole heads are prepared by the recipe's own steps, learned by the recipe's method around
the largest new lesion and found again through the same call as ``lesionwise predict``. The truth is
what lies in a cube around that lesion: new lesions, or all lesions for recipes of one visit.
The Dice is that of the mask on the follow-up's grid. Its ceiling is that of the truth itself in
place of what the networks find: carried to the prepared grid and back, cut at the recipe's
threshold and, where each visit is segmented by itself, compared by the recipe's rule; where a
network only sees crops around candidates, confined to these; where the method drops lesions at the
border of the brain or small ones, without these; with ``--minutes 0`` that is all. What
was reduced, so that two cores get somewhere, is printed beside it. Prepared arrays are kept in
FOLDER.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from small import BATCHES_PER_EPOCH, by_heart

from lesionwise.instances.components import ConnectedComponents
from lesionwise.instances.reference import instances_of, reference_of
from lesionwise.io.bids import read_dataset
from lesionwise.io.prepared import read_prepared, write_prepared
from lesionwise.learning.candidate_crops import boxes_of
from lesionwise.learning.spatial_transforms import crop
from lesionwise.methods.candidate_network import CandidateNetwork
from lesionwise.methods.clean_maps import CleanMaps
from lesionwise.methods.composite import SegmentThenCompare
from lesionwise.preprocess.kept import results_kept
from lesionwise.recipe import Recipe
from lesionwise.run.find_lesions import find_lesions
from lesionwise.run.learned_steps import fit_steps, load_steps, shared_steps
from lesionwise.run.load_model import LoadedModel
from lesionwise.types import (
    Grid,
    LesionMaps,
    Predictor,
    RunContext,
    Study,
    TrainingData,
    Volume,
)

FIELD = "field"
"""The label of the cube in which everything that is to be found is known."""


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
class Known:
    """A method that returns the truth of what it is to find."""

    task: str
    scan: str

    def fit(self, data: TrainingData, run: RunContext) -> None:
        """There is nothing to learn."""

    def load(self, run: RunContext) -> Predictor:
        """The truth as a probability of 0 or 1."""

        def predict(study: Study) -> LesionMaps:
            found = reference_of(study, self.task)
            soft = np.issubdtype(found.dtype, np.floating)  # fractions are what is to be found
            truth = found if soft else found > 0
            return LesionMaps(truth.astype(np.float32), study.followup.scans[self.scan].grid)

        return predict


@dataclass(frozen=True)
class KnownInCrops(Known):
    """The truth within the crops around candidates, which is all that their network can show."""

    method: CandidateNetwork

    def load(self, run: RunContext) -> Predictor:
        """The candidates of a study with the truth in their crops, merged."""
        truth_of_study, crops = super().load(run), self.method.crops

        def predict(study: Study) -> LesionMaps:
            maps, labels = truth_of_study(study), crops.propose(study)
            judged = (
                (number, box, crop(maps.probability, box.start, box.size))
                for number, _, box in boxes_of(labels, crops.boxes, crops.size_vox)
            )
            return LesionMaps(self.method.merge(judged, labels, maps.grid), maps.grid)

        return predict


def knowing(recipe: Recipe, run: RunContext) -> Predictor:
    """The recipe's method with the truth in place of its networks."""
    if isinstance(recipe.method, CandidateNetwork):
        return KnownInCrops(recipe.task, recipe.scans[0], recipe.method).load(run)
    if isinstance(recipe.method, CleanMaps):
        return replace(recipe.method, method=Known(recipe.task, recipe.scans[0])).load(run)
    if isinstance(recipe.method, SegmentThenCompare):
        return replace(recipe.method, method=Known("lesions", recipe.scans[0])).load(run)
    return Known(recipe.task, recipe.scans[0]).load(run)


def truth_of(study: Study) -> np.ndarray:
    """What is to be found: new lesions of two visits, all lesions of one."""
    if len(study.visits) == 1:
        return np.asarray(study.followup.labels["instances"].array) > 0
    return np.asarray(study.changes["new"].array) > 0


def around(study: Study, patch: tuple[int, ...]) -> Box:
    """The box in which all that is to be found is labeled, at least as large as a patch.

    A patch of two numbers is one of slices along the last axis.
    """
    where = np.argwhere(np.asarray(study.followup.labels[FIELD].array) > 0)
    shape = study.followup.scans["flair"].grid.shape
    start, stop = [], []
    for axis, least in enumerate((*patch, 1)[:3]):
        low, high = int(where[:, axis].min()), int(where[:, axis].max()) + 1
        size = min(least, shape[axis])
        missing = max(0, size - (high - low))
        low = max(0, min(low - missing // 2, shape[axis] - size))
        start.append(low)
        stop.append(min(shape[axis], max(high, low + size)))
    return Box(tuple(start), tuple(stop))


def overfit(
    name: str, patient: Study, work: Path, minutes: float, field_mm: float
) -> dict[str, object]:
    """Prepare, learn and find again; one row of the table."""
    recipe, patch, reduced = by_heart(name)
    patient = limited(patient, field_mm, recipe.visits)
    kept = work / name / "prepared"
    started = time.perf_counter()
    if not (kept / "study.json").is_file():
        study = patient
        for step in shared_steps(recipe.preprocess):
            study = step(study)
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_prepared(study, kept)
    prepared = time.perf_counter() - started
    study = read_prepared(kept)
    box = around(study, patch)
    recipe, _, _ = by_heart(name, box)
    folder = work / name / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run = RunContext(folder, seed=0, device="cpu", max_minutes=minutes)

    # the prepared study again, so that registration is not paid for twice
    # and on the follow-up's grid, where the truth lies, whatever grid the recipe names
    output = replace(recipe.output, grid="followup")
    shown = replace(recipe, preprocess=(lambda _: study, box), output=output)
    best = replace(shown, to_instances=ConnectedComponents(), refine=())
    ceiling = dice_of(patient, LoadedModel(best, knowing(recipe, run), name, "", {}))
    dsc, taken = float("nan"), 0.0
    if minutes > 0:
        started = time.perf_counter()
        recipe.method.fit(fit_steps(recipe.preprocess, TrainingData([box(study)]), run), run)
        taken = (time.perf_counter() - started) / 60
        learned = load_steps(recipe.preprocess, run)[len(shared_steps(recipe.preprocess)) :]
        predictor = recipe.method.load(run)

        def predict(prepared: Study) -> LesionMaps:
            for step in learned:
                prepared = step(prepared)
            return predictor(prepared)

        dsc = dice_of(patient, LoadedModel(shown, predict, name, "", {}))
    return {
        "recipe": name,
        "dsc": dsc,
        "ceiling": ceiling,
        "prepared": prepared,
        "minutes": taken,
        "steps": steps_of(folder),
        "voxels": int(truth_of(patient).sum()),
        "reduced": reduced,
    }


def steps_of(folder: Path) -> str:
    """How far a run's last network came; nnU-Net's log tells epochs, trees have none."""
    trees = folder / "training.json"
    if trees.is_file() and "trees" in (written := json.loads(trees.read_text(encoding="utf-8"))):
        return f"{written['trees']} trees"
    logs = sorted(folder.rglob("log.csv"), key=lambda path: path.stat().st_mtime)
    if not logs:
        return "0 steps"
    last = pd.read_csv(logs[-1]).iloc[-1]
    return f"{int(last['steps'] if 'steps' in last else last['epoch'] * BATCHES_PER_EPOCH)} steps"


def dice_of(patient: Study, model: LoadedModel) -> float:
    """Of the mask a model finds, on the grid it returns."""
    found, truth = find_lesions(patient, model).mask.array, truth_of(patient)
    return 2 * int((found & truth).sum()) / (int(found.sum()) + int(truth.sum()))


def limited(patient: Study, field_mm: float, visits: int) -> Study:
    """What is to be found, only in a cube around the largest new lesion."""
    new = patient.changes["new"]
    parts = instances_of(np.asarray(new.array) > 0)
    largest = int(np.argmax(np.bincount(parts.ravel())[1:])) + 1
    middle = np.argwhere(parts == largest).mean(axis=0)
    reach = field_mm / 2 / np.array(new.grid.spacing_mm)
    where = tuple(
        slice(max(0, int(m - r)), int(m + r) + 1) for m, r in zip(middle, reach, strict=True)
    )

    def within(volume: Volume) -> Volume:
        array = np.zeros_like(volume.array)
        array[where] = volume.array[where]
        return Volume(array, volume.grid)

    last = patient.followup
    field = {FIELD: within(Volume(np.ones(new.grid.shape, dtype=bool), new.grid))}
    if visits == 2:
        followup = replace(last, labels={**last.labels, **field})
        known = {**patient.changes, "new": within(new)}
        return replace(patient, visits=(*patient.visits[:-1], followup), changes=known)
    labels = {name: within(volume) for name, volume in last.labels.items()}
    return replace(patient, visits=(replace(last, labels={**labels, **field}),))


def main() -> None:
    """Print one line per recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("recipes", nargs="+", metavar="RECIPE")
    parser.add_argument("--subject", required=True)
    parser.add_argument("--minutes", type=float, default=3.0, help="of learning, for each")
    parser.add_argument("--field-mm", type=float, default=60.0)
    parser.add_argument("--work", type=Path, default=Path("overfit"))
    arguments = parser.parse_args()
    studies = read_dataset(arguments.dataset, scans=("flair",))
    patient = studies[studies.subjects.index(arguments.subject)]
    work = arguments.work / arguments.subject
    print(f"threads {torch.get_num_threads()}; cube of {arguments.field_mm:g} mm", flush=True)
    for name in arguments.recipes:
        with results_kept(work / "steps"):  # recipes that begin alike share them
            row = overfit(name, patient, work, arguments.minutes, arguments.field_mm)
        print(
            f"{row['recipe']:<22} DSC {row['dsc']:.3f} of {row['ceiling']:.3f}  "
            f"prepared in {row['prepared']:.0f} s  {row['minutes']:.1f} min  "
            f"{row['steps']}  {row['voxels']} voxels  {row['reduced']}",
            flush=True,
        )


if __name__ == "__main__":
    main()
