"""Gray levels brought onto a scale that was learned from the training scans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesionwise.io.checked import printable, read_checked
from lesionwise.io.files import write_json
from lesionwise.preprocess.each_scan import Within, mask_of, outside, scan_name, values_of
from lesionwise.preprocess.pair import piecewise_linear
from lesionwise.preprocess.visits import each_visit
from lesionwise.types import BoolArray, InputError, RunContext, Study, TrainingData, Visit, Volume

LANDMARKS = "landmarks.json"
DECILES = (1.0, *(10.0 * n for n in range(1, 10)), 99.0)

OwnScale = Callable[[NDArray[np.float64], str], NDArray[np.float64]]
"""(percentiles of one scan, its name) -> the same in a unit that all scans share."""


@dataclass(frozen=True)
class ToLandmarks:
    """Every scan with its percentiles at the learned landmarks, linearly in between.

    Below the lowest and above the highest, the outermost slope goes on. Raises InputError for a
    scan without contrast, without brain, or of a kind that was not in training.

    Attributes:
        landmarks: for each kind of scan its name and the target of each percentile.
        percentiles: those, rising.
        within: the voxels they are taken from.
        zero_outside: set the voxels outside to 0; with ``tissue`` those outside the brain.
    """

    landmarks: tuple[tuple[str, tuple[float, ...]], ...]
    percentiles: tuple[float, ...]
    within: Within = "brain"
    zero_outside: bool = False

    def __call__(self, study: Study) -> Study:
        targets = {key: np.array(values) for key, values in self.landmarks}

        def standardized(visit: Visit, key: str, volume: Volume) -> Volume:
            name = scan_name(study, visit, key)
            if key not in targets:
                raise InputError(f"{name}: no scan of this kind was in training")
            mask = mask_of(visit, volume, self.within, name)
            own = _percentiles(volume, mask, self.within, self.percentiles, name)
            out = piecewise_linear(volume.array, own, targets[key])
            return Volume(outside(out, mask, self.zero_outside), volume.grid)

        def visit_with(visit: Visit) -> Visit:
            scans = {k: standardized(visit, k, v) for k, v in visit.scans.items()}
            return replace(visit, scans=scans)

        return each_visit(study, visit_with)


@dataclass(frozen=True)
class Nyul:
    """Histograms with their deciles where training scans have them on average.

    Learning: each training scan's percentiles are mapped linearly so that the first falls on
    ``scale[0]`` and the last on ``scale[1]``, and averaged over all training scans of its kind, all
    visits alike. The result is a ``ToLandmarks``.

    Attributes:
        percentiles: 1, 10, 20 … 90, 99, as Shah et al.
        scale: where the first and the last percentile go.
        within: the voxels they are taken from.
        zero_outside: set the voxels outside to 0.

    Source: Nyul, Udupa and Zhang 2000; Shah et al. 2011.
    """

    percentiles: tuple[float, ...] = DECILES
    scale: tuple[float, float] = (1.0, 100.0)
    within: Within = "brain"
    zero_outside: bool = False

    def __post_init__(self) -> None:
        _check_percentiles(self.percentiles)
        if not self.scale[1] > self.scale[0]:
            raise ValueError(f"the scale must rise, got {self.scale}")

    def __call__(self, study: Study) -> Study:
        raise RuntimeError("Nyul learns its landmarks: call fit or load first")

    def fit(self, data: TrainingData, run: RunContext) -> ToLandmarks:
        """Average the training scans' landmarks; ``landmarks.json`` in the run's folder."""
        low, high = self.scale

        def own_scale(percentiles: NDArray[np.float64], name: str) -> NDArray[np.float64]:
            span = percentiles[-1] - percentiles[0]
            return np.asarray(low + (high - low) * (percentiles - percentiles[0]) / span)

        return _learn(self, own_scale, data, run)

    def load(self, run: RunContext) -> ToLandmarks:
        """What ``fit`` learned."""
        return _load(self, run.folder)


@dataclass(frozen=True)
class MatchHistogramToTraining:
    """Histograms matched to the mean histogram of the training scans.

    Learning: each training scan's percentiles, in units of its median, are averaged over all
    training scans of its kind, all visits alike; so bright scans count no more than dark ones. The
    result is a ``ToLandmarks``. Against ``Nyul`` it has many more points, reaches into the tails,
    and pins the median instead of the ends.

    Attributes:
        percentiles: 0.5, 1.5 … 99.5.
        within: the voxels they are taken from.
        zero_outside: set the voxels outside to 0.

    The MSSEG-2 chapter on MSDetector cites such a method and does not spell it out.
    """

    percentiles: tuple[float, ...] = tuple(n + 0.5 for n in range(100))
    within: Within = "brain"
    zero_outside: bool = False

    def __post_init__(self) -> None:
        _check_percentiles(self.percentiles)

    def __call__(self, study: Study) -> Study:
        raise RuntimeError("MatchHistogramToTraining learns a histogram: call fit or load first")

    def fit(self, data: TrainingData, run: RunContext) -> ToLandmarks:
        """Average the training scans' histograms; ``landmarks.json`` in the run's folder."""

        def own_scale(percentiles: NDArray[np.float64], name: str) -> NDArray[np.float64]:
            median = float(np.interp(50, self.percentiles, percentiles))
            if not median > 0:
                raise InputError(f"{name}: the median is not positive")
            return percentiles / median

        return _learn(self, own_scale, data, run)

    def load(self, run: RunContext) -> ToLandmarks:
        """What ``fit`` learned."""
        return _load(self, run.folder)


def _learn(
    step: Nyul | MatchHistogramToTraining, own_scale: OwnScale, data: TrainingData, run: RunContext
) -> ToLandmarks:
    totals: dict[str, NDArray[np.float64]] = {}
    counts: dict[str, int] = {}
    for number, study in enumerate(data.training):
        for visit in study.visits:
            for key, volume in visit.scans.items():
                name = scan_name(study, visit, key)
                mask = mask_of(visit, volume, step.within, name)
                found = _percentiles(volume, mask, step.within, step.percentiles, name)
                scaled = own_scale(found, name)
                totals[key] = totals[key] + scaled if key in totals else scaled
                counts[key] = counts.get(key, 0) + 1
        run.progress("landmarks", number + 1, len(data.training))
    if not totals:
        raise InputError("the training set is empty: no landmarks can be learned")
    learned = {key: (totals[key] / counts[key]).tolist() for key in sorted(totals)}
    write_json(
        run.folder / LANDMARKS,
        {
            "step": type(step).__name__,
            "percentiles": list(step.percentiles),
            "within": step.within,
            "scans": counts,
            "landmarks": learned,
        },
    )
    return _load(step, run.folder)


@dataclass(frozen=True)
class _Stored:
    """What ``landmarks.json`` holds."""

    step: str
    percentiles: tuple[float, ...]
    within: str
    landmarks: dict[str, tuple[float, ...]]


def _load(step: Nyul | MatchHistogramToTraining, folder: Path) -> ToLandmarks:
    path = folder / LANDMARKS
    stored = read_checked(path, _Stored)
    expected = {
        "step": type(step).__name__,
        "percentiles": tuple(step.percentiles),
        "within": step.within,
    }
    for key, value in expected.items():
        if getattr(stored, key) != value:
            raise InputError(f"{path}: learned with another setting of {key}")
    for name, values in stored.landmarks.items():
        if len(values) != len(step.percentiles):
            raise InputError(f"{path}: landmarks of {printable(name)}: not one per percentile")
    landmarks = tuple(stored.landmarks.items())
    return ToLandmarks(landmarks, step.percentiles, step.within, step.zero_outside)


def _percentiles(
    volume: Volume, mask: BoolArray, within: Within, percentiles: tuple[float, ...], name: str
) -> NDArray[np.float64]:
    values = values_of(volume.array, mask, within, name)
    found = np.percentile(values.astype(np.float64), percentiles)
    if not found[-1] > found[0]:
        raise InputError(f"{name}: every voxel between the percentiles has the same value")
    return np.asarray(found)


def _check_percentiles(percentiles: tuple[float, ...]) -> None:
    rising = np.diff(percentiles) > 0
    if len(percentiles) < 2 or not rising.all() or percentiles[0] < 0 or percentiles[-1] > 100:
        raise ValueError(f"percentiles must rise within [0, 100], got {percentiles}")
