"""Brain masks by a network that learned them from the masks of earlier steps."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from lesionwise.preprocess.brain import largest_filled
from lesionwise.preprocess.geometry import resample_to
from lesionwise.preprocess.kept import kept, results_kept
from lesionwise.types import (
    BoolArray,
    Grid,
    InputError,
    LazyStudies,
    Method,
    Predictor,
    RunContext,
    Study,
    TrainingData,
    Visit,
    Volume,
)

BRAIN = "brain"
"""The name of the reference that the network learns."""
MASKS = "masks"
"""Folder of a fitted step with the masks of the scans that its training asked for."""


@dataclass(frozen=True)
class LearnBrain:
    """A learned step: a network's brain masks in place of those that the visits have.

    The network learns from every visit of the training studies, as a study of its own. What it
    learns is the mask that the visit has, with the cord where that was joined to it. The visit is
    shown without its mask, so the network looks at the whole scan. A new mask is the largest
    face-connected region with a probability above ``above``, its holes filled. Where that is
    smaller than ``least_ml``, the visit keeps the mask that it has, and the log says so.

    Masks that came with the data are replaced too. A training makes the mask of each scan once.
    Raises InputError for a visit without a mask.

    Attributes:
        method: a network whose task is ``BRAIN``.
        above: exclusive.
        least_ml: of a new mask.
    """

    method: Method
    above: float = 0.5
    least_ml: float = 100.0

    def members(self) -> tuple[Method, ...]:
        """The method."""
        return (self.method,)

    def __call__(self, study: Study) -> Study:
        """Refuse: the step has to be fitted or loaded first."""
        raise RuntimeError("LearnBrain learns its masks: call fit or load first")

    def fit(self, data: TrainingData, run: RunContext) -> LearnedBrain:
        """Learn from the visits, and return the step that applies what was learned."""
        shutil.rmtree(run.folder / MASKS, ignore_errors=True)
        seen = TrainingData(single_visits(data.training), single_visits(data.validation))
        self.method.fit(seen, run)
        return self.resume(run)

    def resume(self, run: RunContext) -> LearnedBrain:
        """The step that ``fit`` returned, which keeps its masks in the run's folder."""
        return replace(self.load(run), kept_in=run.folder / MASKS)

    def load(self, run: RunContext) -> LearnedBrain:
        """The step for new studies."""
        return LearnedBrain(self.method.load(run), self.above, self.least_ml)


@dataclass(frozen=True, eq=False)
class LearnedBrain:
    """``LearnBrain``, fitted.

    Attributes:
        predictor: gives the probability of brain for a visit without a mask.
        above, least_ml: as in ``LearnBrain``.
        kept_in: folder of masks that were made before, found by the voxels of their scans; None
            keeps none.
    """

    predictor: Predictor
    above: float = 0.5
    least_ml: float = 100.0
    kept_in: Path | None = None

    def __call__(self, study: Study) -> Study:
        """The study with new masks."""
        # one visit after the other: the network takes all cores
        return replace(study, visits=tuple(self._masked(study, v) for v in study.visits))

    def _masked(self, study: Study, visit: Visit) -> Visit:
        _mask_of(study, visit)
        grid = _grid_of(visit)

        def compute() -> tuple[BoolArray]:
            maps = self.predictor(_alone(study, visit, {}))
            return (largest_filled(maps.probability > self.above),)

        if self.kept_in is None:
            (array,) = compute()
        else:
            scans = tuple(part for item in sorted(visit.scans.items()) for part in item)
            with results_kept(self.kept_in):
                (array,) = kept("learned-brain", scans, compute)
        brain = Volume(array.astype(np.bool_, copy=False), grid)
        found_ml = float(brain.array.sum() * brain.grid.voxel_volume_mm3 / 1000)
        if found_ml >= self.least_ml:
            return replace(visit, brain=brain)
        logging.getLogger("lesionwise").warning(
            "%s: the network found %.0f ml of brain, so the mask from before is kept",
            _name(study, visit),
            found_ml,
        )
        return visit


def single_visits(studies: Sequence[Study]) -> LazyStudies:
    """Every visit as a study of its own, without its brain mask, which becomes the label ``brain``.

    The label lies on the grid of the visit's first scan.

    Raises:
        InputError: When a visit without a mask is asked for.

    Example:
        >>> grid = Grid((1, 1, 2), np.eye(4))
        >>> scan = Volume(np.array([[[5.0, 0.0]]]), grid)
        >>> visit = Visit({"flair": scan}, brain=Volume(scan.array > 0, grid))
        >>> (alone, _) = single_visits([Study("01", (visit, visit))])
        >>> alone.followup.brain, alone.followup.labels["brain"].array.tolist()
        (None, [[[True, False]]])
    """
    places = tuple(
        (number, place)
        for number, study in enumerate(studies)
        for place in range(len(study.visits))
    )
    return LazyStudies(places, partial(_visit_at, studies))


def _visit_at(studies: Sequence[Study], at: tuple[int, int]) -> Study:
    number, place = at
    study = studies[number]
    visit = study.visits[place]
    brain = resample_to(_mask_of(study, visit), _grid_of(visit), order=0)
    return _alone(study, visit, {BRAIN: Volume(brain.array.astype(np.bool_), brain.grid)})


def _alone(study: Study, visit: Visit, labels: Mapping[str, Volume]) -> Study:
    """A visit without its mask, with these labels alone, as a study of its own."""
    return Study(study.subject, (replace(visit, labels=labels, brain=None),))


def _mask_of(study: Study, visit: Visit) -> Volume:
    if visit.brain is None:
        raise InputError(f"{_name(study, visit)}: no brain mask")
    return visit.brain


def _grid_of(visit: Visit) -> Grid:
    return next(iter(visit.scans.values())).grid


def _name(study: Study, visit: Visit) -> str:
    return f"{study.subject} {visit.session}".strip()
