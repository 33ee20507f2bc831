"""A method that writes down what it was shown, and studies of one value to show it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lesionwise.types import (
    Grid,
    LesionMaps,
    Predictor,
    RunContext,
    Study,
    TrainingData,
    Visit,
    Volume,
)

GRID = Grid((4, 3, 2), np.diag([1.0, 2.0, 3.0, 1.0]))


@dataclass(frozen=True)
class Witness:
    """Writes down what it was shown; its probability is ``of(study)``."""

    of: Callable[[Study], np.ndarray]

    def fit(self, data: TrainingData, run: RunContext) -> None:
        shown = {
            "training": sorted({study.subject for study in data.training}),
            "validation": sorted({study.subject for study in data.validation}),
            "visits": [[visit.session for visit in study.visits] for study in data.training],
            "seed": run.seed,
            "minutes": run.max_minutes,
        }
        times = len(list(run.folder.glob("shown*")))
        (run.folder / f"shown-{times}.json").write_text(json.dumps(shown))

    def load(self, run: RunContext) -> Predictor:
        number = float(
            run.folder.name.removeprefix("member-") if "member" in run.folder.name else 0
        )

        def predict(study: Study) -> LesionMaps:
            return LesionMaps((self.of(study) + number).astype(np.float32), GRID)

        return predict


def flair(study: Study) -> np.ndarray:
    return np.asarray(study.followup.scans["flair"].array)


def study(subject: str, *values: float, labeled: bool = True) -> Study:
    visits = []
    for number, value in enumerate(values):
        array = np.full(GRID.shape, value, dtype=np.float32)
        labels = {"lesions": Volume(array > 0, GRID)} if labeled else {}
        visits.append(Visit({"flair": Volume(array, GRID)}, labels, session=f"M{number}"))
    return Study(subject, tuple(visits))


def shown(folder: Path) -> dict:
    return json.loads((folder / "shown-0.json").read_text())
