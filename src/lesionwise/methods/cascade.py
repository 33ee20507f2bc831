"""Cascades: steps that append a learned method's maps to the scans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lesionwise.io.checked import read_checked
from lesionwise.io.files import write_json
from lesionwise.methods.members import (
    chosen,
    deal,
    fit_once,
    mean_maps,
    member_run,
    of_visits,
    single_visit,
)
from lesionwise.types import (
    Auxiliary,
    InputError,
    Method,
    Predictor,
    RunContext,
    Step,
    Study,
    TrainingData,
    Visit,
    Volume,
)

PARTS = "parts.json"


@dataclass(frozen=True)
class AddMaps:
    """A learned step that appends a method's probability to the scans: the stage of a cascade.

    Attributes:
        method: what makes the maps.
        name: of the scan that is appended, such as ``flair_lesions``.
        auxiliary: the set of ``data.auxiliary`` to learn from, or its name, which asks for labeled
            visits. None, or a set that is absent or empty, learns from the training studies.
        folds: the subjects of the training studies are dealt into so many parts (fewer where there
            are fewer subjects), and one method learns without each; in training a study then
            gets the maps of the method that has not seen its subject. In validation and
            prediction every study gets the mean of all, whatever its subject's name.
            A method that learned from an auxiliary set has seen no training study and needs no
            parts.
            Below 2, one method learns from all and makes all maps: what follows is then trained
            on maps that are better than those of new patients.
        per_visit: True shows the method one visit at a time, all of them in training too (those
            with a lesion mask), and every visit gets its map; False shows it the whole study
            and the last visit alone gets the map.
    """

    method: Method
    name: str
    auxiliary: str | Auxiliary | None = None
    folds: int = 4
    per_visit: bool = True

    def members(self) -> tuple[Method, ...]:
        """The method."""
        return (self.method,)

    def __call__(self, study: Study) -> Study:
        """Refuse: the step has to be fitted or loaded first."""
        raise RuntimeError(f"AddMaps({self.name}) was not fitted")

    def fit(self, data: TrainingData, run: RunContext) -> Step:
        """Learn, and return the step that appends the maps.

        Raises:
            InputError: If there is nothing to learn from.
        """
        elsewhere = data.auxiliary.get(self._set, ()) if self._set else ()
        source = replace(data, training=elsewhere) if len(elsewhere) else data
        part_of = {} if len(elsewhere) else deal(data.training, self.folds, run.seed)
        parts = len(set(part_of.values()))
        write_json(run.folder / PARTS, part_of)
        for number in range(max(1, parts)):
            seen = source
            if parts:
                kept = [n for n, s in enumerate(data.training) if part_of[s.subject] != number]
                seen = replace(data, training=chosen(data.training, kept))
            if self.per_visit:
                seen = self._visits(seen)
            fit_once(self.method, seen, member_run(run, number, max(1, parts)))
        return self.resume(run)

    def _visits(self, seen: TrainingData) -> TrainingData:
        try:
            return of_visits(seen)
        except InputError as error:
            if not self._set or len(seen.auxiliary.get(self._set, ())):
                raise
            raise InputError(
                f"{error}, and no auxiliary set {self._set} was given "
                f"(--auxiliary {self._set}=DATA)"
            ) from error

    @property
    def _set(self) -> str:
        """The name of the auxiliary set; empty for none."""
        return (
            self.auxiliary.name if isinstance(self.auxiliary, Auxiliary) else self.auxiliary or ""
        )

    def resume(self, run: RunContext) -> FittedAddMaps:
        """The step that ``fit`` returned.

        Raises:
            InputError: If the run's folder does not hold one.
        """
        path = run.folder / PARTS
        part_of = read_checked(path, dict[str, int])
        parts = max(1, len(set(part_of.values())))
        predictors = tuple(self.method.load(member_run(run, n, parts)) for n in range(parts))
        return FittedAddMaps(self.name, predictors, part_of, self.per_visit)

    def load(self, run: RunContext) -> FittedAddMaps:
        """The step for other studies: each gets the mean of all methods.

        Another data set may name a patient as the training's did, so names are not looked up.

        Raises:
            InputError: If the run's folder does not hold a step that was fitted.
        """
        return replace(self.resume(run), part_of={})


@dataclass(frozen=True, eq=False)
class FittedAddMaps:
    """``AddMaps``, fitted.

    Attributes:
        name: of the scan that is appended.
        predictors: one for each part.
        part_of: by subject, which predictor has not seen it; other subjects get the mean of all.
        per_visit: as in ``AddMaps``.
    """

    name: str
    predictors: tuple[Predictor, ...]
    part_of: Mapping[str, int]
    per_visit: bool

    def __call__(self, study: Study) -> Study:
        """The study with one more scan in each visit, or in its last."""
        unseen = self.part_of.get(study.subject)
        asked = self.predictors if unseen is None else (self.predictors[unseen],)

        def added(visit: Visit, shown: Study) -> Visit:
            maps = mean_maps(predictor(shown) for predictor in asked)
            return replace(
                visit, scans={**visit.scans, self.name: Volume(maps.probability, maps.grid)}
            )

        if self.per_visit:
            visits = tuple(added(visit, single_visit(study, visit)) for visit in study.visits)
        else:
            visits = (*study.visits[:-1], added(study.followup, study))
        return replace(study, visits=visits)


@dataclass(frozen=True)
class LastVisitOnly:
    """A step that leaves out all visits but the last; what changed is kept.

    For a method that sees the past through maps of the last visit alone.
    """

    def __call__(self, study: Study) -> Study:
        return replace(study, visits=(study.followup,))
