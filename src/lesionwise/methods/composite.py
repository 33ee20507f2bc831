"""Methods made of methods: ensembles, lesions compared between visits.

Each member learns in a folder of its own below the run's; one that has ended is not learned
again when the run is resumed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lesionwise.inference.weights import INITIAL, WEIGHTS, copy_matching
from lesionwise.instances.components import DEFAULT_CONNECTIVITY, connected_components
from lesionwise.instances.filters import SIZE_ROUNDING
from lesionwise.instances.reference import reference_of
from lesionwise.instances.table import overlap_table
from lesionwise.io.files import write_text
from lesionwise.methods.members import (
    chosen,
    deal,
    fit_once,
    hold_out,
    mean_maps,
    member_run,
    of_visits,
    single_visit,
)
from lesionwise.types import (
    BoolArray,
    FloatArray,
    InputError,
    LazyStudies,
    LesionMaps,
    Method,
    Predictor,
    RunContext,
    Study,
    TrainingData,
    Visit,
    scan_of,
)


@dataclass(frozen=True)
class Ensemble:
    """Several methods asked at once.

    Member n learns in ``member-n`` of the run's folder with a seed of its own and an equal
    share of the time limit. Write ``Ensemble((method,) * 5)`` for five trainings of one method.
    Where the run begins with weights (``Pretrained``), all members do.

    Attributes:
        methods: what is combined.
        combine: "mean" averages probabilities, and center heatmaps and offsets where every
            member gives them; "vote" returns the share of members whose probability exceeds
            ``threshold``, so that a mask of more than 0.5 is the strict majority.
        folds: 0 lets every member learn from all training studies. Otherwise their subjects
            are dealt into so many parts (fewer where there are fewer subjects), and member n
            learns without part n modulo ``folds``, which validates it instead of the run's
            validation studies. Those are then used by no member.
        threshold: of one vote.

    """

    methods: tuple[Method, ...]
    combine: Literal["mean", "vote"] = "mean"
    folds: int = 0
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not self.methods:
            raise ValueError("an ensemble needs a member")

    @property
    def uses_validation(self) -> bool:
        """False where each fold is validated on the part that it leaves out."""
        return self.folds < 2 and any(member.uses_validation for member in self.methods)

    def members(self) -> tuple[Method, ...]:
        """The methods, in order."""
        return self.methods

    def fit(self, data: TrainingData, run: RunContext) -> None:
        """Fit every member.

        Raises:
            InputError: If a member cannot learn from its data; the message begins with which.
        """
        part_of = deal(data.training, self.folds, run.seed)
        parts = len(set(part_of.values()))
        for number, member in enumerate(self.methods):
            seen = data if not parts else hold_out(data, part_of, number % parts)
            own = member_run(run, number, len(self.methods))
            if (run.folder / INITIAL).is_file():
                own.folder.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(run.folder / INITIAL, own.folder / INITIAL)
            with _named(number, len(self.methods)):
                fit_once(member, seen, own)

    def load(self, run: RunContext) -> Predictor:
        """All members at once."""
        predictors = []
        for number, member in enumerate(self.methods):
            with _named(number, len(self.methods)):
                predictors.append(member.load(member_run(run, number, len(self.methods))))

        def predict(study: Study) -> LesionMaps:
            if self.combine == "mean":
                return mean_maps(predictor(study) for predictor in predictors)
            return mean_maps(_vote(predictor(study), self.threshold) for predictor in predictors)

        return predict


@dataclass(frozen=True)
class SegmentThenCompare:
    """All lesions of each visit, found by one method; new is what was not there before.

    The method learns from every visit that has a lesion mask, as a study of its own, and is
    asked about the first and the last visit. Both must lie on one grid. Each connected
    component of the last visit's mask is new if no more than ``max_overlap`` of its voxels
    lie in the first visit's mask, and old otherwise. Small components of either visit are
    dropped before. The result is the last visit's probability with 0 on all components of its
    mask that are not new; around the mask it stays as it is, so that a border is not moved when
    the result is resampled.

    Attributes:
        method: finds all lesions of a single visit.
        threshold: a visit's mask is probability > threshold.
        max_overlap: share in [0, 1); 0 lets a new lesion share no voxel with an old one.
            Lesions side by side do not overlap.
        min_volume_mm3: smaller components of each visit are dropped; one of exactly this volume
            stays.
        connectivity: of components: 6, 18 or 26.
    """

    method: Method
    threshold: float = 0.5
    max_overlap: float = 0.0
    min_volume_mm3: float = 10.0
    connectivity: int = DEFAULT_CONNECTIVITY

    @property
    def uses_validation(self) -> bool:
        """As the method does."""
        return self.method.uses_validation

    def members(self) -> tuple[Method, ...]:
        """The method."""
        return (self.method,)

    def fit(self, data: TrainingData, run: RunContext) -> None:
        """Fit the method on visits.

        Raises:
            InputError: If no visit has a lesion mask.
        """
        self.method.fit(of_visits(data), run)

    def load(self, run: RunContext) -> Predictor:
        """The method on both visits, and their difference."""
        predictor = self.method.load(run)

        def predict(study: Study) -> LesionMaps:
            before = predictor(single_visit(study, study.baseline))
            after = predictor(single_visit(study, study.followup))
            if not before.grid.matches(after.grid):
                raise InputError(f"sub-{study.subject}: its visits are on different grids")
            found = after.probability > self.threshold
            min_vox = self.min_volume_mm3 / after.grid.voxel_volume_mm3
            new = new_components(
                before.probability > self.threshold,
                found,
                max_overlap=self.max_overlap,
                min_vox=min_vox,
                min_vox_before=min_vox,
                connectivity=self.connectivity,
            )
            return LesionMaps(_without(after.probability, found & ~new), after.grid)

        return predict


@dataclass(frozen=True)
class NewByVisitMaps:
    """New lesions that maps of all lesions of both visits confirm, component by component.

    Each connected component of the method's mask stays if it shares a voxel with the lesions of
    the last visit, and no more than ``max_overlap`` of its voxels with those of the first. What
    does not stay gets a probability of 0; voxels outside components keep theirs.

    Attributes:
        method: finds new lesions.
        scan: name of the map that both visits have, such as a step ``AddMaps`` appends.
        threshold: lesions of a visit are where the map exceeds it.
        mask_above: the method's mask is probability > ``mask_above``; the recipe's threshold.
        max_overlap: in [0, 1); 0 lets a component share no voxel with the first visit's lesions.
        connectivity: of components: 6, 18 or 26.
    """

    method: Method
    scan: str
    threshold: float = 0.5
    mask_above: float = 0.5
    max_overlap: float = 0.0
    connectivity: int = DEFAULT_CONNECTIVITY

    @property
    def uses_validation(self) -> bool:
        """As the method does."""
        return self.method.uses_validation

    def members(self) -> tuple[Method, ...]:
        """The method."""
        return (self.method,)

    def fit(self, data: TrainingData, run: RunContext) -> None:
        """Fit the method; the comparison learns nothing."""
        self.method.fit(data, run)

    def load(self, run: RunContext) -> Predictor:
        """The method, and the comparison of what it finds with both visits."""
        predictor = self.method.load(run)

        def predict(study: Study) -> LesionMaps:
            maps = predictor(study)
            found = maps.probability > self.mask_above
            not_old = new_components(
                self._lesions(study, study.baseline, maps),
                found,
                max_overlap=self.max_overlap,
                min_vox=1,
                connectivity=self.connectivity,
            )
            # Components that the last visit's own lesions do not touch at all.
            unseen = new_components(
                self._lesions(study, study.followup, maps),
                found,
                max_overlap=0.0,
                min_vox=1,
                connectivity=self.connectivity,
            )
            dropped = found & ~(not_old & ~unseen)
            return replace(maps, probability=_without(maps.probability, dropped))

        return predict

    def _lesions(self, study: Study, visit: Visit, maps: LesionMaps) -> BoolArray:
        volume = scan_of(study, visit, self.scan)
        if not volume.grid.matches(maps.grid):
            raise InputError(f"sub-{study.subject}: its visits are on different grids")
        return np.asarray(volume.array > self.threshold)


@dataclass(frozen=True)
class Pretrained:
    """A network that begins with the weights of another training, or with some of them.

    ``first`` learns in ``pretrained`` of the run's folder, and ``then`` begins with its weights;
    a time limit is shared equally. Where ``first`` needs an auxiliary set that was not given,
    ``then`` begins as it would alone, and ``pretrained/skipped.txt`` says so.

    Attributes:
        first, then: methods whose networks have the same weights below ``only``.
        auxiliary: the set that ``first`` learns from; None lets it take what its samples name.
        only: the beginning of the names of the weights that are carried over, such as
            ``encoder.``; empty carries all.
    """

    first: Method
    then: Method
    auxiliary: str | None = "lesions"
    only: str = ""

    @property
    def uses_validation(self) -> bool:
        """As the later method does."""
        return self.then.uses_validation

    def members(self) -> tuple[Method, ...]:
        """Both methods, in time order."""
        return (self.first, self.then)

    def fit(self, data: TrainingData, run: RunContext) -> None:
        """Fit ``first`` where there is something for it, then ``then``."""
        before = replace(run, folder=run.folder / "pretrained")
        given = data.auxiliary.get(self.auxiliary, ()) if self.auxiliary else ()
        if self.auxiliary is None or len(given):
            if run.max_minutes is not None:
                run = replace(run, max_minutes=run.max_minutes / 2)
                before = replace(before, max_minutes=run.max_minutes)
            seen = data if self.auxiliary is None else TrainingData(given, data.validation)
            fit_once(self.first, seen, before)
            copy_matching(before.folder / WEIGHTS, run.folder / INITIAL, self.only)
        else:
            before.folder.mkdir(parents=True, exist_ok=True)
            reason = f"no auxiliary set {self.auxiliary} was given: nothing was learned first"
            write_text(before.folder / "skipped.txt", reason + "\n")
            run.progress(reason, 0, 0)
        self.then.fit(data, run)

    def load(self, run: RunContext) -> Predictor:
        """What ``then`` learned."""
        return self.then.load(run)


@dataclass(frozen=True)
class PositiveCases:
    """A method that is shown no study in which there is nothing to find.

    Validation studies are chosen alike; if none would remain, all of them validate.

    Attributes:
        method: what learns.
        task: what has to be there.
    """

    method: Method
    task: str = "new"

    @property
    def uses_validation(self) -> bool:
        """As the method does."""
        return self.method.uses_validation

    def members(self) -> tuple[Method, ...]:
        """The method."""
        return (self.method,)

    def fit(self, data: TrainingData, run: RunContext) -> None:
        """Fit the method on the positive studies.

        Raises:
            InputError: If there are none to learn from.
        """
        training = self._positive(data.training)
        if not len(training):
            raise InputError("no training study has a lesion to learn from")
        validation = self._positive(data.validation)
        seen = replace(data, training=training)
        if len(validation):
            seen = replace(seen, validation=validation)
        self.method.fit(seen, run)

    def load(self, run: RunContext) -> Predictor:
        """The method."""
        return self.method.load(run)

    def _positive(self, studies: Sequence[Study]) -> LazyStudies:
        found = [n for n, study in enumerate(studies) if reference_of(study, self.task).any()]
        return chosen(studies, found)


def new_components(
    before: BoolArray,
    after: BoolArray,
    *,
    max_overlap: float,
    min_vox: float,
    min_vox_before: float = 0,
    connectivity: int = DEFAULT_CONNECTIVITY,
) -> BoolArray:
    """Components of one mask that hardly overlap another, and are large enough.

    Args:
        before, after: (I, J, K) bool.
        max_overlap: a component is kept if at most this share of its voxels lies in ``before``.
        min_vox: least size; one of exactly this size, up to rounding, is kept.
        min_vox_before: the same for components of ``before``; smaller ones do not count.
        connectivity: 6, 18 or 26.

    Returns:
        (I, J, K) bool: the kept components whole, with any voxels they share with ``before``.
    """
    if min_vox_before > 1:
        earlier = connected_components(before, connectivity)
        sizes = np.bincount(earlier.ravel())
        sizes[0] = 0
        before = (sizes >= min_vox_before * (1 - SIZE_ROUNDING))[earlier]
    labels = connected_components(after, connectivity)
    table = overlap_table(labels, before.astype(np.uint8))
    # The components are the table's reference side, the other mask its only predicted lesion.
    size, shared = table.reference_voxels, np.zeros(len(table.reference_ids), dtype=np.int64)
    shared[table.reference_rows] = table.common
    kept = (shared <= max_overlap * size) & (size >= min_vox * (1 - SIZE_ROUNDING))
    return np.isin(labels, table.reference_ids[kept])


def _without(probability: FloatArray, dropped: BoolArray) -> NDArray[np.float32]:
    """The probability with 0 where something is dropped."""
    return np.where(dropped, np.float32(0), probability).astype(np.float32, copy=False)


@contextmanager
def _named(number: int, members: int) -> Iterator[None]:
    """Whatever a member complains of, with which member it was."""
    try:
        yield
    except InputError as error:
        if members == 1:
            raise
        raise InputError(f"member {number + 1} of {members}: {error}") from error


def _vote(maps: LesionMaps, threshold: float) -> LesionMaps:
    return LesionMaps((maps.probability > threshold).astype(np.float32), maps.grid)
