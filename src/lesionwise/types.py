"""The words of the project as types: what flows between files, steps, networks and tables.

Arrays do not compare as values, so every dataclass that holds one has ``eq=False``.
Axes are always i, j, k. Inside the package they run to the right, to the front and
upward (RAS, or the nearest to it that keeps the voxels); files keep their own order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.floating[Any]]
LabelArray: TypeAlias = NDArray[np.integer[Any]]
BoolArray: TypeAlias = NDArray[np.bool_]
Shape: TypeAlias = tuple[int, int, int]
"""Voxels along i, j, k."""
Matrix: TypeAlias = NDArray[np.float64]
"""(4, 4), world mm to world mm, homogeneous."""
Task: TypeAlias = str
"""What a lesion mask is of: "lesions" of the last visit, "new" ones that were not there before, or
the name of another reference (``instances.reference.reference_of``)."""
Progress: TypeAlias = Callable[[str, int, int], None]
"""Called as progress(stage, done, total); total 0 means that it is not known."""

EMPTY: Mapping[str, Any] = MappingProxyType({})
IDENTITY: Matrix = np.eye(4)
IDENTITY.flags.writeable = False


SHEAR_ROUNDING = 1e-4
"""Cosine between two axes up to which they count as at right angles: 0.01 mm over 100 mm."""


class InputError(ValueError):
    """An error in what the user gave: the message is one line that names the file and the error.

    The command line prints it and exits with status 2; a batch lists it and continues.
    """


def no_progress(stage: str, done: int, total: int) -> None:
    """Report nothing: the default for every ``progress`` argument.

    Example:
        >>> no_progress("train", 1, 10)
    """


class OnStage(Protocol):
    """Called with the name of each stage of one scan, and with parts where a stage counts them."""

    def __call__(self, stage: str, done: int = 0, total: int = 0, /) -> None: ...


def stage_ignored(stage: str, done: int = 0, total: int = 0) -> None:
    """Report nothing: the default for every ``on_stage`` argument.

    Example:
        >>> stage_ignored("find lesions", 6, 24)
    """


def stages_of(title: str, number: int, total: int, progress: Progress) -> OnStage:
    """Progress on the stages of one scan of several.

    Args:
        title: of the scan; stands before the stage.
        number: of the scans that are done.
        total: of all scans.
        progress: told of the scans; while a stage counts its parts, of those.

    Example:
        >>> on_stage = stages_of("sub-01", 0, 2, lambda *told: print(*told))
        >>> on_stage("read")
        sub-01: read 0 2
        >>> on_stage("find lesions", 6, 24)
        sub-01: find lesions 6 24
    """

    def on_stage(stage: str, done: int = 0, parts: int = 0) -> None:
        progress(f"{title}: {stage}", done if parts else number, parts or total)

    return on_stage


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of an array lie.

    Attributes:
        shape: voxels along i, j, k.
        affine: (4, 4) float64, voxel index (i, j, k, 1) to world mm, RAS+ as in NIfTI.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4):
            raise ValueError(f"affine must be 4 x 4, got {affine.shape}")
        affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if len(self.shape) != 3:
            raise ValueError(f"a grid has three axes, got shape {self.shape}")

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighboring voxels along i, j, k."""
        i, j, k = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(i), float(j), float(k)

    @cached_property
    def axes_mm(self) -> NDArray[np.float64]:
        """(3, 3): the steps of one voxel along i, j, k as columns, for distances in mm.

        The spacings on the diagonal where the axes meet at right angles, so that a turned grid
        measures exactly as a straight one; where they are sheared, the columns of the affine.
        """
        steps = self.affine[:3, :3]
        cosines = steps.T @ steps / np.outer(self.spacing_mm, self.spacing_mm) - np.eye(3)
        straight = bool(np.abs(cosines).max() <= SHEAR_ROUNDING)
        return np.diag(self.spacing_mm) if straight else steps

    @cached_property
    def voxel_volume_mm3(self) -> float:
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def world_mm(self, index: NDArray[Any]) -> NDArray[np.float64]:
        """World coordinates of (n, 3) voxel indices, which may be fractional."""
        return np.asarray(index, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def matches(self, other: Grid, tolerance_mm: float = 1e-2) -> bool:
        """True where shapes agree and no voxel center lies further apart than the tolerance.

        Headers written by different programs differ by rounding; a tolerance on the
        corners of the volume accepts that and nothing that could be seen.
        """
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape])).reshape(3, -1).T
        apart = np.linalg.norm(self.world_mm(corners) - other.world_mm(corners), axis=1)
        return bool(apart.max() <= tolerance_mm)


@dataclass(frozen=True, eq=False)
class Volume:
    """One array on its grid: an image, a mask or a label map, (I, J, K)."""

    array: NDArray[Any]
    grid: Grid

    def __post_init__(self) -> None:
        if self.array.shape != self.grid.shape:
            raise ValueError(f"array {self.array.shape} does not fit its grid {self.grid.shape}")


@dataclass(frozen=True, eq=False)
class Visit:
    """The scans of one time point, and what is known or was found about it.

    Attributes:
        scans: by name: flair, t1w, t2w, pd.
        labels: by name: lesions (mask), instances, rater-1 …, consensus, tissue.
        brain: brain mask, bool; None while it is not known.
        session: name of the time point, as in BIDS (without ``ses-``).
        to_native: world mm of these volumes to world mm of the visit as it was read. A step that
            moves a visit composes it, so results find the way back.
    """

    scans: Mapping[str, Volume]
    labels: Mapping[str, Volume] = field(default_factory=lambda: EMPTY)
    brain: Volume | None = None
    session: str = ""
    to_native: Matrix = field(default_factory=lambda: IDENTITY)


@dataclass(frozen=True, eq=False)
class Study:
    """One subject's visits in time order.

    Attributes:
        subject: name, as in BIDS (without ``sub-``).
        visits: one, two or more.
        changes: label volumes of a pair in the space of its last visit, by name: new, disappeared …
    """

    subject: str
    visits: tuple[Visit, ...]
    changes: Mapping[str, Volume] = field(default_factory=lambda: EMPTY)

    @property
    def baseline(self) -> Visit:
        return self.visits[0]

    @property
    def followup(self) -> Visit:
        return self.visits[-1]


def scan_of(study: Study, visit: Visit, name: str) -> Volume:
    """A scan of one of the study's visits.

    Raises:
        InputError: If the visit lacks it; the message names the subject.

    Example:
        >>> visit = Visit({"flair": Volume(np.zeros((1, 1, 2)), Grid((1, 1, 2), np.eye(4)))})
        >>> study = Study("01", (visit,))
        >>> scan_of(study, visit, "flair").grid.shape
        (1, 1, 2)
        >>> scan_of(study, visit, "t1w")
        Traceback (most recent call last):
        ...
        lesionwise.types.InputError: sub-01: no t1w scan
    """
    if name not in visit.scans:
        raise InputError(f"sub-{study.subject}: no {name} scan")
    return visit.scans[name]


def scan_of_both(study: Study, name: str) -> tuple[Volume, Volume]:
    """A scan of the first and of the last visit.

    Raises:
        InputError: If one of them lacks it, or the two are on different grids.

    Example:
        >>> scans = [Volume(np.zeros((1, 1, n)), Grid((1, 1, n), np.eye(4))) for n in (2, 3)]
        >>> scan_of_both(Study("01", tuple(Visit({"flair": scan}) for scan in scans)), "flair")
        Traceback (most recent call last):
        ...
        lesionwise.types.InputError: sub-01: its visits are on different grids
    """
    first, last = (scan_of(study, visit, name) for visit in (study.baseline, study.followup))
    if not first.grid.matches(last.grid):
        raise InputError(f"sub-{study.subject}: its visits are on different grids")
    return first, last


def with_last_scans(study: Study, scans: Mapping[str, Volume]) -> Study:
    """The study with further scans in its last visit.

    Example:
        >>> scan = Volume(np.zeros((1, 1, 2)), Grid((1, 1, 2), np.eye(4)))
        >>> study = Study("01", (Visit({"flair": scan}), Visit({"flair": scan})))
        >>> [sorted(visit.scans) for visit in with_last_scans(study, {"difference": scan}).visits]
        [['flair'], ['difference', 'flair']]
    """
    last = replace(study.followup, scans={**study.followup.scans, **scans})
    return replace(study, visits=(*study.visits[:-1], last))


@dataclass(frozen=True, eq=False)
class LesionMaps:
    """What a method says about every voxel, before any lesion is named.

    Attributes:
        probability: (I, J, K) float32 in [0, 1].
        grid: where the arrays lie.
        center_heatmap: (I, J, K) float32, near 1 at lesion centers; None where the
            method gives none.
        offsets_vox: (3, I, J, K) float32, voxels along i, j, k from each voxel to the
            center of its lesion; None where the method gives none.
        extra: further maps by name (logits, a deformation …).
    """

    probability: FloatArray
    grid: Grid
    center_heatmap: FloatArray | None = None
    offsets_vox: FloatArray | None = None
    extra: Mapping[str, NDArray[Any]] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True, eq=False)
class Instances:
    """Lesion instances: (I, J, K) int32, 0 = background, one positive label per lesion."""

    labels: NDArray[np.int32]
    grid: Grid

    def __post_init__(self) -> None:
        if self.labels.shape != self.grid.shape:
            raise ValueError(f"labels {self.labels.shape} do not fit their grid {self.grid.shape}")


Step: TypeAlias = Callable[[Study], Study]
"""A preprocessing step: pure, returns a new study."""

ToInstances: TypeAlias = Callable[[LesionMaps, BoolArray], Instances]
"""Lesions from the maps and the mask (the thresholded probability)."""

Refine: TypeAlias = Callable[[Instances], Instances]
"""A filter on lesions, such as a minimum size."""


@dataclass(frozen=True, eq=False)
class LazyStudies(Sequence[Study]):
    """Studies that are made one at a time, each when it is asked for, and not kept.

    Attributes:
        sources: what each is made of.
        make: makes a study of its source; a function that other processes can import, or a
            ``functools.partial`` of one, where the studies travel to them.
    """

    sources: Sequence[Any]
    make: Callable[[Any], Study]

    def __len__(self) -> int:
        return len(self.sources)

    @overload
    def __getitem__(self, index: int) -> Study: ...
    @overload
    def __getitem__(self, index: slice) -> LazyStudies: ...
    def __getitem__(self, index: int | slice) -> Study | LazyStudies:
        if isinstance(index, slice):
            return LazyStudies(self.sources[index], self.make)
        return self.make(self.sources[index])


@dataclass(frozen=True)
class TrainingData:
    """What a method learns from; the sequences may load each study on demand."""

    training: Sequence[Study]
    validation: Sequence[Study] = ()
    auxiliary: Mapping[str, Sequence[Study]] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True)
class Auxiliary:
    """A further data set that a part of a method learns from.

    Attributes:
        name: by which ``--auxiliary NAME=DATA`` gives it.
        visits: visits of each of its studies.
        labelled: whether its studies have to say what is to be found.
        scans: that its visits have to have; empty asks for those of the recipe.
        required: False lets the training studies take its place where it is not given.
    """

    name: str
    visits: int = 1
    labelled: bool = True
    scans: tuple[str, ...] = ()
    required: bool = True


@dataclass(frozen=True)
class RunContext:
    """Where and how a method runs: nothing of this changes what is computed, save the seed
    and a limit of the training.

    Attributes:
        folder: the run's folder; a method keeps everything it needs in it.
        seed: for every random choice of the run.
        device: "cpu", "cuda", "cuda:1" …; "auto" takes a GPU where there is one.
        workers: processes that prepare batches; 0 prepares them in the main process.
        resume: continue from the contents of the folder.
        max_minutes: wall time that learning may take; a method that can, fits its schedule
            into it. None: as long as its settings say.
        max_steps: optimizer steps that each network may take; a method of several networks gives
            each the same number. Methods without networks ignore it.
        progress: called with each step.
    """

    folder: Path
    seed: int = 0
    device: str = "auto"
    workers: int = 0
    resume: bool = False
    max_minutes: float | None = None
    max_steps: int | None = None
    progress: Progress = no_progress


Predictor: TypeAlias = Callable[[Study], LesionMaps]


class LearnedStep(Protocol):
    """A preprocessing step that learns from the training studies of a fold.

    ``run.folder`` is the step's own; called before it is fitted, it raises RuntimeError.
    """

    def fit(self, data: TrainingData, run: RunContext) -> Step:
        """Learn, leave what was learned in ``run.folder``, and return the step that applies it."""

    def load(self, run: RunContext) -> Step:
        """The step for new studies, from what ``fit`` left.

        Other data sets may name a subject as the training's did, so it looks at no name.
        """


@runtime_checkable
class OutOfFoldStep(LearnedStep, Protocol):
    """A learned step that treats the studies of its training otherwise than new ones."""

    def resume(self, run: RunContext) -> Step:
        """The step that ``fit`` returned, from what it left."""


class Method(Protocol):
    """One way from prepared studies to lesion maps, such as a trained network or a set of rules.

    Attributes:
        uses_validation: whether validation studies change what is learned (weights are chosen by
            them). Where not, all studies may train.
    """

    @property
    def uses_validation(self) -> bool: ...

    def members(self) -> tuple[Method, ...]:
        """The methods that this one is made of, in order; empty for one that is made of none."""

    def fit(self, data: TrainingData, run: RunContext) -> None:
        """Learn from ``data``; what was learned lies in ``run.folder`` afterwards."""

    def load(self, run: RunContext) -> Predictor:
        """Read what was learned, once, and return what applies it to a prepared study."""


def all_methods(method: Method) -> tuple[Method, ...]:
    """A method and all it is made of, each before its members, equal ones once.

    Example:
        >>> from lesionwise.methods.composite import Ensemble
        >>> from lesionwise.methods.given import GivenLesions
        >>> one, other = GivenLesions(Path("a.nii.gz")), GivenLesions(Path("b.nii.gz"))
        >>> [type(method).__name__ for method in all_methods(Ensemble((one, other, one)))]
        ['Ensemble', 'GivenLesions', 'GivenLesions']
    """
    found = [method]
    for member in method.members():
        found += [other for other in all_methods(member) if other not in found]
    return tuple(found)
