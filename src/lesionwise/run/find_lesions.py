"""From one study to the lesions of one visit: the path that every command shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from lesionwise.defaults import Separation
from lesionwise.instances.components import ConnectedComponents
from lesionwise.instances.confluent import Acls
from lesionwise.instances.filters import DropSmall
from lesionwise.instances.mask import lesion_mask
from lesionwise.instances.offsets import OffsetVoting
from lesionwise.preprocess.brain import not_background
from lesionwise.preprocess.geometry import instances_to_grid, resample_to
from lesionwise.preprocess.location import Landmarks
from lesionwise.preprocess.quality import Quality, scan_quality
from lesionwise.preprocess.visits import Beside
from lesionwise.report.stages import Stage, Stages
from lesionwise.run.load_model import LoadedModel
from lesionwise.run.locations import landmarks_beside
from lesionwise.run.stopwatch import Stopwatch
from lesionwise.types import (
    Grid,
    InputError,
    Instances,
    LesionMaps,
    Matrix,
    OnStage,
    Refine,
    Study,
    Visit,
    Volume,
    stage_ignored,
)


@dataclass(frozen=True)
class FindOptions:
    """What a user may set about finding lesions; every value is written beside the results.

    Attributes:
        instances: separation method of the main map; None takes the recipe's.
        also: further ways, computed from the same maps for comparison.
        threshold: the mask is probability > threshold; None takes the recipe's.
        min_peak: a connected region of the mask goes where its highest probability is below this;
            None takes the recipe's.
        min_volume_mm3, min_extent_mm: lesions below either are dropped from the instances,
            never from the mask; None takes the recipe's filters, 0 switches a limit off.
        extract_brain: False takes every voxel for brain that is not background: not the value of
            the first voxel where a fifth of the scan holds that, else not exactly 0.
    """

    instances: Separation | None = None
    also: tuple[Separation, ...] = ()
    threshold: float | None = None
    min_peak: float | None = None
    min_volume_mm3: float | None = None
    min_extent_mm: float | None = None
    extract_brain: bool = True


@dataclass(frozen=True, eq=False)
class VisitResult:
    """The lesions of one visit, on the grid of the scan as read.

    Attributes:
        visit: the visit as read.
        brain: brain mask, bool.
        probability: float32.
        mask: probability > threshold, without what ``min_peak`` drops; no size filter.
        instances: by way of telling them apart; the first is the main one.
        threshold: the one that made the mask.
        seconds: wall time of each stage, in order.
        prepared_grid: the grid that the method saw.
        warnings: what the user should know before believing the result.
        stages: the scan after each preprocessing step, in two slices.
        landmarks, fitness: those of scan and brain (``find_landmarks``, ``scan_quality``), where
            they were asked for.
    """

    visit: Visit
    brain: Volume
    probability: Volume
    mask: Volume
    instances: Mapping[str, Instances]
    threshold: float
    seconds: Mapping[str, float]
    prepared_grid: Grid
    warnings: tuple[str, ...] = field(default=())
    stages: tuple[Stage, ...] = ()
    landmarks: Beside[Landmarks] | None = None
    fitness: Beside[Quality] | None = None

    @property
    def main(self) -> tuple[str, Instances]:
        """Name and instances of the main way."""
        name = next(iter(self.instances))
        return name, self.instances[name]

    def measured_quality(self) -> Quality | None:
        """How fit the scan is, where that was measured already."""
        return None if self.fitness is None else self.fitness.result()


STAGES: Mapping[str, str] = {
    "ExtractBrain": "brain",
    "N4": "bias field",
    "ZScore": "normalize",
    "Resample": "resample",
    "CropToBrain": "resample",
    "JoinToBrain": "given lesions",
}


FIND = "find lesions"
"""The stage in which the model looks at the prepared scans, as progress names it."""


def find_lesions(
    study: Study,
    model: LoadedModel,
    options: FindOptions = FindOptions(),
    on_stage: OnStage = stage_ignored,
    *,
    beside: bool = False,
) -> VisitResult:
    """Find and separate what the model's task is: a study's lesions, or its new ones.

    The recipe's steps prepare the study, its method predicts maps on the prepared grid, and the
    probability returns to the grid that ``recipe.output`` names, a visit's own or the prepared
    one, as that says, and is set to 0 outside the brain, as the recipe's steps leave it (the union
    of two visits' brains where they make one); the threshold makes the mask. ``cc``
    labels that mask. ``offsets`` and ``acls`` work on the prepared grid, where the maps were made,
    and their labels are carried onto the mask: so every mask voxel belongs to one lesion before
    the size filters act. Where steps moved the visit, results find the way back.

    Args:
        beside: find the landmarks of the scan and its fitness beside the steps that follow its
            brain; for models of one visit.

    Raises:
        InputError: If the study has another number of visits than the recipe needs, or cannot
            be prepared (no brain found, constant image …).
    """
    recipe = model.recipe
    if len(study.visits) != recipe.visits:
        raise InputError(
            f"{model.name}: this model takes {recipe.visits} visits of a patient, "
            f"but sub-{study.subject} has {len(study.visits)}"
        )
    watch = Stopwatch()
    if not options.extract_brain:
        study = replace(study, visits=tuple(_stripped(v, recipe.scans[0]) for v in study.visits))
    # The visit on whose scan the lesions are written.
    which = 0 if recipe.output.grid == "baseline" else -1
    native = study.visits[which]
    reference = native.scans[recipe.scans[0]]
    prepared = study
    brain_native: Volume | None = native.brain
    stages = Stages(native, recipe.scans[0])
    beside = beside and recipe.visits == 1 and recipe.output.grid != "prepared"
    measure = partial(scan_quality, flair=recipe.scans[0] == "flair")
    landmarks: Beside[Landmarks] | None = None
    fitness: Beside[Quality] | None = None

    def begin_beside(brain: Volume) -> None:
        nonlocal landmarks, fitness
        if beside:
            landmarks = landmarks_beside(reference, brain)
            fitness = Beside(measure, reference, brain)

    if brain_native is not None:
        begin_beside(brain_native)
    for step in model.steps:
        name = type(step).__name__
        stage = STAGES.get(name, name)
        on_stage(stage)
        before = prepared.visits[which].brain
        with watch.stage(stage):
            prepared = step(prepared)
        visit = prepared.visits[which]
        stages.add(step, visit)
        # The mask is carried back where a step drew it, not from the prepared grid at the end:
        # later steps may crop or resample it.
        if visit.brain is not None and (brain_native is None or _redrawn(before, visit.brain)):
            brain_native = _on_scan_grid(_in_native_space(visit.brain, visit.to_native), reference)
            begin_beside(brain_native)
    on_stage(FIND)
    with watch.stage("network"):
        maps = model.predict(prepared, lambda _, done, total: on_stage(FIND, done, total))
    prepared_grid = maps.grid
    visit = prepared.visits[which]
    if recipe.output.grid == "prepared":
        native, reference = visit, visit.scans[recipe.scans[0]]
        brain_native = visit.brain
    else:
        # Steps that registered the scan moved its world; the maps go back to that of the file.
        grid = Grid(maps.grid.shape, visit.to_native @ maps.grid.affine)
        maps = replace(maps, grid=grid)
    threshold = recipe.threshold if options.threshold is None else options.threshold
    min_peak = recipe.min_peak if options.min_peak is None else options.min_peak
    on_stage("instances")
    with watch.stage("instances"):
        if brain_native is None:
            brain_native = Volume(np.ones(reference.grid.shape, dtype=np.bool_), reference.grid)
        probability = _carried(maps, reference.grid, recipe.output.resample, threshold)
        # In place: a map of a whole head is large.
        np.multiply(probability.array, brain_native.array, out=probability.array)
        mask = lesion_mask(probability.array, threshold, min_peak)
        instances = {}
        for name, separate in _separations(model, maps, options).items():
            # Components are those of the final mask. The other methods need the network's own maps,
            # so they work on the prepared grid and their labels are carried over.
            if isinstance(separate, ConnectedComponents):
                native_maps = LesionMaps(probability.array, reference.grid)
                lesions = separate(native_maps, mask)
            else:
                prepared_mask = lesion_mask(maps.probability, threshold, min_peak)
                lesions = instances_to_grid(separate(maps, prepared_mask), mask, reference.grid)
            for refine in _filters(recipe.refine, options):
                lesions = refine(lesions)
            instances[name] = lesions
    return VisitResult(
        visit=native,
        brain=brain_native,
        probability=probability,
        mask=Volume(mask, reference.grid),
        instances=instances,
        threshold=threshold,
        seconds=watch.seconds,
        prepared_grid=prepared_grid,
        stages=stages.all(),
        landmarks=landmarks,
        fitness=fitness,
    )


def _redrawn(before: Volume | None, after: Volume) -> bool:
    """True where a step gave a visit another brain and did not move it."""
    if before is None or not before.grid.matches(after.grid):
        return False
    return not np.array_equal(before.array, after.array)


def _stripped(visit: Visit, scan: str) -> Visit:
    if visit.brain is not None:
        return visit
    image = visit.scans[scan]
    return replace(visit, brain=Volume(not_background(image.array), image.grid))


def _in_native_space(volume: Volume, to_native: Matrix) -> Volume:
    return Volume(volume.array, Grid(volume.grid.shape, to_native @ volume.grid.affine))


def _carried(
    maps: LesionMaps, grid: Grid, resample: Literal["probability", "logits", "labels"], cut: float
) -> Volume:
    """The probability on another grid.

    Logits are limited to ±16, where a float32 probability no longer differs from 0 or 1. Of
    labels, 1 is where the probability exceeds ``cut``.
    """
    probability = np.asarray(maps.probability, dtype=np.float32)
    if resample == "labels":
        label = Volume(probability > cut, maps.grid)
        return Volume(resample_to(label, grid, order=0).array.astype(np.float32), grid)
    if resample == "logits":
        tiny = np.float32(1.1e-7)
        kept = np.clip(probability, tiny, 1 - tiny)
        logits = Volume(np.log(kept / (1 - kept)), maps.grid)
        moved = resample_to(logits, grid, order=1, fill=-16.0)
        return Volume(1 / (1 + np.exp(-moved.array)), grid)
    moved = resample_to(Volume(probability, maps.grid), grid, order=1)
    return Volume(np.array(moved.array), grid)


def _on_scan_grid(brain: Volume, reference: Volume) -> Volume:
    if brain.grid.matches(reference.grid):
        return Volume(brain.array.astype(np.bool_), reference.grid)
    moved = resample_to(Volume(brain.array.astype(np.float32), brain.grid), reference.grid, order=1)
    return Volume(moved.array > 0.5, reference.grid)


def _separations(model: LoadedModel, maps: LesionMaps, options: FindOptions) -> dict[str, Any]:
    own = model.recipe.to_instances
    ways: dict[str, Any] = {"offsets": OffsetVoting(), "acls": Acls(), "cc": ConnectedComponents()}
    names = {OffsetVoting: "offsets", Acls: "acls", ConnectedComponents: "cc"}
    own_name = names.get(type(own), "recipe")
    ways[own_name] = own
    main = options.instances or own_name
    if main == "offsets" and maps.offsets_vox is None:
        raise InputError(
            f"{model.name}: this model predicts no offsets; use --instances acls or cc"
        )
    wanted = [main, *(name for name in options.also if name != main)]
    return {
        name: ways[name] for name in wanted if name != "offsets" or maps.offsets_vox is not None
    }


def _filters(refine: Sequence[Refine], options: FindOptions) -> tuple[Refine, ...]:
    volume, extent = options.min_volume_mm3, options.min_extent_mm
    if volume is None and extent is None:
        return tuple(refine)

    def limited(step: DropSmall) -> DropSmall:
        return replace(
            step,
            min_volume_mm3=step.min_volume_mm3 if volume is None else volume,
            min_extent_mm=step.min_extent_mm if extent is None else extent,
        )

    if not any(isinstance(step, DropSmall) for step in refine):
        return (*refine, limited(DropSmall(min_volume_mm3=0.0, min_extent_mm=0.0)))
    return tuple(limited(step) if isinstance(step, DropSmall) else step for step in refine)
