"""The command ``evaluate``: predictions against a reference, files or folders of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from lesionwise import defaults
from lesionwise.instances.components import connected_components
from lesionwise.io.checked import file_named, printable, read_checked, read_rows
from lesionwise.io.files import write_json
from lesionwise.io.nifti import read_grid, read_labels, read_volume, write_volume
from lesionwise.io.space import on_grid, same_space
from lesionwise.metrics.case import Options, evaluate_case
from lesionwise.metrics.evaluation import Evaluation, ScoredCase
from lesionwise.metrics.raters import cohen_kappa, fleiss_kappa, majority, staple
from lesionwise.metrics.slices import Overlap, Plane, SliceTable, slice_table
from lesionwise.processes import map_processes, own_cores
from lesionwise.report.evaluation_tables import (
    EVALUATION_FILES,
    clear_figures,
    write_evaluation_tables,
)
from lesionwise.results.folder import check_own_folder
from lesionwise.results.names import CONSENSUS, EVALUATION
from lesionwise.run.images import find_images
from lesionwise.run.label_maps import LabelledLesions, Side, labels_by_side, lesions_of
from lesionwise.run.pairing import MAX_NAMED, Kind, method_names, pair_files
from lesionwise.types import InputError, Instances, Progress, Volume, no_progress

Consensus: TypeAlias = Literal["majority", "staple"]
ASKED = EVALUATION
"""What was asked for, so that ``evaluate_again`` can ask the same."""


@dataclass(frozen=True)
class SliceOptions:
    """How slices are cut and judged: see ``metrics.slices``."""

    plane: Plane = "axial"
    overlap: Overlap = "lesion"


@dataclass(frozen=True)
class Request:
    """What was asked for, as ``evaluate.json`` holds it; the fields are arguments of ``evaluate``.

    Attributes:
        predictions: paths by name of the method.
    """

    reference: tuple[str, ...]
    predictions: dict[str, str]
    options: Options
    kind: Kind
    consensus: Consensus
    seed: int
    label: dict[Side, int | None] | None = None
    slices: SliceOptions | None = None
    images: str | None = None
    patients: str | None = None
    figures: bool = False


@dataclass(frozen=True)
class _PatientRow:
    case: str
    patient: str


@dataclass(frozen=True)
class _Task:
    """Everything one process needs to score one case by every method.

    Attributes:
        references: file of each rater, of one or several.
        predictions: file of each method that has one.
        kinds: how the files of a method, or under "" those of the reference, are read, where
            that differs from ``kind``.
        notes: by method, about the pair of files.
        patient: whose case it is.
    """

    case: str
    references: tuple[tuple[str, Path], ...]
    predictions: tuple[tuple[str, Path], ...]
    options: Options = field(default_factory=Options)
    kind: Kind = "auto"
    labels: Mapping[Side, int | None] = field(default_factory=dict)
    consensus: Consensus = defaults.CONSENSUS
    slices: SliceOptions | None = None
    consensus_folder: Path | None = None
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    patient: str = ""

    @property
    def consensus_file(self) -> Path | None:
        """Where the consensus of several raters is written."""
        if self.consensus_folder is None or len(self.references) == 1:
            return None
        return self.consensus_folder / f"{self.case}_desc-{self.consensus}_label-L_mask.nii.gz"


@dataclass(frozen=True, eq=False)
class _Done:
    """The scores of one case; ``by_content`` as ``kinds`` of its task, where content decided."""

    case: str
    scored: tuple[ScoredCase, ...]
    failures: dict[str, str]
    raters: tuple[Mapping[str, Any], ...]
    by_content: frozenset[str] = frozenset()


def evaluate(
    reference: Path | Sequence[Path],
    predictions: Path | Sequence[Path],
    output: Path | None = None,
    *,
    options: Options | None = None,
    kind: Kind = "auto",
    label: int | Mapping[Side, int | None] | None = None,
    consensus: Consensus = defaults.CONSENSUS,
    slices: SliceOptions | None = None,
    names: Sequence[str] = (),
    images: Path | None = None,
    patients: Path | None = None,
    figures: bool = False,
    workers: int | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Evaluation:
    """Score predictions against a reference, compare them, and write tables and a page.

    Two files make one case. Two folders are paired by the names of their files (see
    ``run.pairing``). Grids that differ by rounding are taken as equal and the same voxels in
    another axis order are brought into one; both are noted. Needs no torch.

    Masks are split into connected components, and the labels of instance maps are lesions. Which
    of the two a file is, and whether its labels are classes, is decided as in
    ``run.label_maps.lesions_of``; a note says where that took a decision. ``kind`` and ``label``
    override it.

    With ``output`` it writes ``evaluate.json`` (what was asked for), ``metrics.json`` (every
    number), ``methods.txt`` (paragraphs to quote), ``cases.tsv``, ``lesions.tsv``,
    ``relations.tsv`` (lesions split and merged), ``evaluation.html``, and where there is
    reason for them ``comparison.tsv``, ``slices.tsv``, ``slice_scores.tsv``, ``raters.tsv``,
    the consensus masks in ``consensus`` and ``failures.tsv``. What an earlier evaluation wrote
    there and this one does not is removed.

    Args:
        reference: a file or a folder; several are raters, and their consensus is the reference.
        predictions: one or more of the same sort.
        options: None takes the defaults.
        kind: "mask" or "instances" for all files; "auto" decides file by file.
        label: the label that marks lesions, where others mark something else; one number for all
            files, or one for "reference" or "prediction".
        consensus: of several raters: ``majority`` (ties are background) or ``staple`` (> 0.5);
            its lesions are connected components.
        slices: also score slices, as Arian Darestani et al. 2025 do; None leaves them out.
        images: the scans, a file, folder or pattern (``run.images``): the page then shows the
            best, the median and the worst case over them.
        patients: a table with the columns case and patient, for cases whose names do not say whose
            they are; the sessions of a patient are averaged before intervals and tests. By default
            the subject of a BIDS name; any other case is a patient of its own. Notes name rows
            that fit no case, and cases without a row.
        figures: also write every chart as SVG and PDF into ``figures``.
        names: of the methods, in the order of the predictions; by default from their paths.
        workers: processes; None takes one per core, 1 stays in this process. More than one
            needs a script that guards its start with ``if __name__ == "__main__"``.

    Raises:
        InputError: If there is one case and it cannot be scored, or no case can. Among several,
            those that cannot are listed in ``failures`` and the others continue. Also if the
            table of patients names two patients for one case, or fits no case, and if results
            would be written among the input.

    Example:
        >>> done = evaluate(Path("reference"), [Path("a"), Path("b")], workers=1)  # doctest: +SKIP
        >>> done.cohort["a"]["dsc"].mean  # doctest: +SKIP
        0.71
    """
    references = (reference,) if isinstance(reference, Path) else tuple(reference)
    given = (predictions,) if isinstance(predictions, Path) else tuple(predictions)
    if not references or not given:
        raise InputError("evaluate: needs a reference and at least one prediction")
    options = options or Options()
    methods = _named(given, names)
    whose = _patients(patients) if patients is not None else {}
    if output is not None:
        check_own_folder(output, (*references, *given), mark=ASKED, files=EVALUATION_FILES)
        if len(references) > 1:
            _check_consensus_folder(output / CONSENSUS, (*references, *given))
    labels = labels_by_side(label)
    if kind == "instances" and any(labels.values()):
        raise InputError("label: a label selects a mask, so it cannot be used with kind instances")
    # A label makes a mask of any map, so files are paired as masks then.
    pairs, failures = _paired(references, methods, "mask" if any(labels.values()) else kind, output)
    about_patients: tuple[str, ...] = ()
    if patients is not None:
        unpaired = {
            name.removesuffix(f" ({method})") for name in failures for method in ("", *methods)
        }
        cases = [task.case for task in pairs]
        about_patients = _compared_with_cases(patients, whose, cases, unpaired)
    folder = output / CONSENSUS if output is not None else None
    tasks = [
        replace(
            task,
            options=options,
            kind=kind,
            labels=labels,
            consensus=consensus,
            slices=slices,
            consensus_folder=folder,
        )
        for task in pairs
    ]
    scans = {}
    if images is not None:
        scans = find_images(images, {task.case: task.references[0][1] for task in tasks})
    # The content of all files decides how files of one side are read, so some are read twice.
    done = _alike(_run(tasks, workers, progress), tasks)
    for result in done:
        failures |= result.failures
    scored = tuple(
        replace(case, patient=whose.get(case.case, case.patient))
        for result in done
        for case in result.scored
    )
    # Nothing was scored, so there is at least one failure: the first one says why.
    if not scored:
        raise InputError(next(iter(failures.values())))
    evaluation = Evaluation(
        reference=references,
        predictions=methods,
        options=options,
        cases=scored,
        failures=failures,
        notes=(*_gathered(scored), *about_patients),
        raters=tuple(row for result in done for row in result.raters),
        seed=seed,
        folder=output,
    )
    if output is None:
        return evaluation
    progress("writing", 0, 1)
    if (output / ASKED).exists():
        clear_figures(output / "figures")
        made = {
            task.consensus_file for task, result in zip(tasks, done, strict=True) if result.raters
        }
        _clear_consensus(output / CONSENSUS, made, (*references, *given))
    asked = Request(
        reference=tuple(_absolute(path) for path in references),
        predictions={name: _absolute(path) for name, path in methods.items()},
        options=options,
        kind=kind,
        label=labels,
        consensus=consensus,
        slices=slices,
        images=None if images is None else _absolute(images),
        patients=None if patients is None else _absolute(patients),
        figures=figures,
        seed=seed,
    )
    write_json(output / ASKED, asdict(asked))
    write_evaluation_tables(evaluation, output)
    shown = {task.case: task for task in tasks}
    page = _write_page(evaluation, output, shown, scans, output / "figures" if figures else None)
    progress("writing", 1, 1)
    return evaluation.amended(page=page)


def evaluate_again(folder: Path, progress: Progress = no_progress) -> Evaluation:
    """What ``evaluate`` wrote into a folder, written again from the same files.

    The page shows voxels, so the predictions are scored anew; the answers are the same as long as
    the files are.

    Raises:
        InputError: If the folder does not say what was asked for, or as ``evaluate``.
    """
    asked = read_checked(folder / ASKED, Request)
    return evaluate(
        [file_named(path) for path in asked.reference],
        [file_named(path) for path in asked.predictions.values()],
        folder,
        options=asked.options,
        kind=asked.kind,
        label=asked.label,
        consensus=asked.consensus,
        slices=asked.slices,
        names=list(asked.predictions),
        images=None if asked.images is None else file_named(asked.images),
        patients=None if asked.patients is None else file_named(asked.patients),
        figures=asked.figures,
        seed=asked.seed,
        progress=progress,
    )


def _patients(path: Path) -> dict[str, str]:
    """The patient of each case, from a table.

    Raises:
        InputError: If it cannot be read, or names two patients for one case.
    """
    whose: dict[str, str] = {}
    for row in read_rows(path, _PatientRow):
        if whose.setdefault(row.case, row.patient) != row.patient:
            raise InputError(
                f"{path}: names two patients for the case {row.case}: {whose[row.case]} and "
                f"{row.patient}"
            )
    return whose


def _compared_with_cases(
    path: Path, whose: Mapping[str, str], cases: Sequence[str], unpaired: Set[str]
) -> tuple[str, ...]:
    """Notes on the rows of a table of patients that fit no case, and on cases without a row.

    Args:
        unpaired: cases that lack a file; their rows fit.

    Raises:
        InputError: If no row fits a case.
    """
    unused = [case for case in whose if case not in cases and case not in unpaired]
    without = [case for case in cases if case not in whose]
    if cases and len(without) == len(cases):
        raise InputError(
            f"{path}: no row fits a case; the table names {_first(unused) or 'none'}, "
            f"the cases are {_first(cases)}"
        )
    notes = []
    if unused:
        notes.append(f"{path.name}: rows that fit no case: {_first(unused)}")
    if without:
        notes.append(
            f"{path.name}: cases without a row, whose patients follow from their names: "
            f"{_first(without)}"
        )
    return tuple(notes)


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(map(printable, names[:MAX_NAMED])) + more


def _check_consensus_folder(folder: Path, inputs: Sequence[Path]) -> None:
    """Refuse to write consensus masks where input lies.

    Raises:
        InputError: If a file or folder of the input is that folder or lies in it.
    """
    for given in inputs:
        if _lies_in(folder, given):
            raise InputError(
                f"{given}: the consensus of this evaluation would be among these input files; "
                "choose another output folder"
            )


def _lies_in(folder: Path, path: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _clear_consensus(folder: Path, made: Set[Path | None], inputs: Sequence[Path]) -> None:
    """Remove the masks of an earlier evaluation that this one did not make, except its input."""
    if any(_lies_in(folder, given) for given in inputs):
        return
    for name in get_args(Consensus):
        for file in folder.rglob(f"*_desc-{name}_label-L_mask.nii.gz"):
            if file not in made:
                file.unlink()
    for part in sorted((part for part in folder.rglob("*") if part.is_dir()), reverse=True):
        if not any(part.iterdir()):
            part.rmdir()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _absolute(path: Path) -> str:
    """A file, folder or pattern, wherever it is read again from."""
    return str(Path(path).absolute())


def _named(given: Sequence[Path], names: Sequence[str]) -> dict[str, Path]:
    if not names:
        return {printable(name): path for name, path in method_names(given).items()}
    for name in names:
        if not name.strip() or printable(name) != name:
            raise InputError(f"name: {printable(repr(name))} is empty or holds control characters")
    if len(names) != len(given) or len(set(names)) != len(names):
        raise InputError(f"names: {len(given)} different names are needed, got {list(names)}")
    return dict(zip(names, given, strict=True))


def _paired(
    references: Sequence[Path], methods: Mapping[str, Path], kind: Kind, output: Path | None
) -> tuple[list[_Task], dict[str, str]]:
    """One task per case that has every reference and any prediction, and what is missing."""
    raters = method_names(references) if len(references) > 1 else {"reference": references[0]}
    truths: dict[str, dict[str, Path]] = {}
    found: dict[str, dict[str, Path]] = {}
    notes: dict[str, dict[str, str]] = {}
    subjects: dict[str, str] = {}
    failures: dict[str, str] = {}
    several = len(methods) > 1
    for rater, folder in raters.items():
        for method, path in methods.items():
            pairs = pair_files(folder, path, kind, output)
            for case, (truth, prediction) in pairs.files.items():
                truths.setdefault(case, {})[rater] = truth
                found.setdefault(case, {})[method] = prediction
            subjects |= pairs.subjects
            for case, note in pairs.notes.items():
                notes.setdefault(case, {})[method] = note
            for case, error in pairs.errors.items():
                failures.setdefault(f"{case} ({method})" if several else case, error)
    tasks = []
    for case in sorted(truths):
        missing = [rater for rater in raters if rater not in truths[case]]
        if missing:
            failures[case] = f"{case}: no reference of {', '.join(missing)}"
            continue
        task = _Task(
            case=case,
            references=tuple((rater, truths[case][rater]) for rater in raters),
            predictions=tuple((m, found[case][m]) for m in methods if m in found[case]),
            notes=notes.get(case, {}),
            patient=subjects.get(case, case),
        )
        tasks.append(task)
    return tasks, failures


def _alike(done: Sequence[_Done], tasks: Sequence[_Task]) -> list[_Done]:
    """The results, with all files of one side read in one way.

    Where some files of a method (or of the reference) turned out to hold classes, the others, in
    which no label happens to lie in several parts, hold classes too and are scored again.
    """
    classes = {
        side
        for result in done
        for case in result.scored
        for side, kind in ((case.method, case.prediction_kind), ("", case.reference_kind))
        if kind == "classes"
    }
    alike = []
    for result, task in zip(done, tasks, strict=True):
        other = result.by_content & classes
        again = replace(task, kinds=dict.fromkeys(other, "mask"))
        alike.append(_score(again) if other else result)
    return alike


def _run(tasks: Sequence[_Task], workers: int | None, progress: Progress) -> list[_Done]:
    """Results in the order of the tasks."""
    progress("scoring", 0, len(tasks))
    return map_processes(
        _score,
        tasks,
        workers or own_cores(),
        lambda done: progress("scoring", done, len(tasks)),
    )


def _score(task: _Task) -> _Done:
    """Score one case by every method; an error in its files is listed, not raised."""
    failures: dict[str, str] = {}
    try:
        truth, raters = _read_reference(task)
        if task.consensus_file is not None:
            agreed = Volume(truth.lesions.labels > 0, truth.lesions.grid)
            write_volume(task.consensus_file, agreed, grid=read_grid(task.references[0][1]))
    except InputError as error:
        return _Done(task.case, (), {task.case: str(error)}, ())
    scored = []
    others: dict[str, Instances] = {}
    by_content = {""} if truth.by_content else set()
    for method, path in task.predictions:
        try:
            found = _read_prediction(task, method, path, truth.lesions)
            scored.append(_scored(task, method, path, truth, found))
            others[method] = found.lesions
            by_content |= {method} if found.by_content else set()
        except InputError as error:
            name = f"{task.case} ({method})" if len(task.predictions) > 1 else task.case
            failures[name] = str(error)
    if len(raters) == 1:
        return _Done(task.case, tuple(scored), failures, (), frozenset(by_content))
    rows = tuple(_rater_rows(task, raters, {"consensus": truth.lesions, **others}))
    return _Done(task.case, tuple(scored), failures, rows, frozenset(by_content))


def _scored(
    task: _Task, method: str, path: Path, truth: LabelledLesions, found: LabelledLesions
) -> ScoredCase:
    reference, prediction = truth.lesions, found.lesions
    voxel_mm3 = reference.grid.voxel_volume_mm3
    table: SliceTable | None = None
    if task.slices is not None:
        table = slice_table(
            reference,
            prediction,
            case=task.case,
            plane=task.slices.plane,
            overlap=task.slices.overlap,
            hd95="pooled" if task.options.hd95 == "pooled" else "larger_directed",
        )
    about_pair = [task.notes[method]] if method in task.notes else []
    return ScoredCase(
        case=task.case,
        method=method,
        reference=tuple(reference for _, reference in task.references),
        prediction=path,
        reference_kind=truth.kind,
        prediction_kind=found.kind,
        reference_volume_mm3=float(np.count_nonzero(reference.labels) * voxel_mm3),
        prediction_volume_mm3=float(np.count_nonzero(prediction.labels) * voxel_mm3),
        result=evaluate_case(reference, prediction, task.options),
        notes=(*about_pair, *truth.notes, *found.notes),
        slices=table,
        patient=task.patient,
    )


def _read_reference(task: _Task) -> tuple[LabelledLesions, dict[str, Instances]]:
    """The reference, or the raters' consensus, and each rater's lesions."""
    connectivity = task.options.connectivity
    notes: list[str] = []
    raters: dict[str, Instances] = {}
    first_path = task.references[0][1]
    first = read_labels(first_path)
    kind, label = task.kinds.get("", task.kind), task.labels.get("reference")
    read = lesions_of(first, first_path, connectivity, kind, label)
    for rater, path in task.references:
        if path != first_path:
            volume, resolved = _on_reference(read_labels(path), path, first, first_path)
            notes += resolved
            read = lesions_of(volume, path, connectivity, kind, label)
        notes += read.notes
        raters[rater] = read.lesions
    if len(raters) == 1:
        return read, raters
    masks = [lesions.labels > 0 for lesions in raters.values()]
    agreed = majority(masks) if task.consensus == "majority" else staple(masks).probability > 0.5
    consensus = Instances(connected_components(agreed, connectivity), first.grid)
    how = f"{task.consensus} of {len(raters)} raters"
    return LabelledLesions(consensus, how, notes=tuple(notes)), raters


def _read_prediction(task: _Task, method: str, path: Path, truth: Instances) -> LabelledLesions:
    """The predicted lesions on the reference's grid."""
    reference = Volume(truth.labels, truth.grid)
    volume, notes = _on_reference(read_labels(path), path, reference, task.references[0][1])
    kind, label = task.kinds.get(method, task.kind), task.labels.get("prediction")
    read = lesions_of(volume, path, task.options.connectivity, kind, label)
    return replace(read, notes=(*notes, *read.notes))


def _on_reference(
    volume: Volume, path: Path, reference: Volume, reference_path: Path
) -> tuple[Volume, list[str]]:
    """A volume on the reference's grid, and a line where that needed a decision."""
    verdict = same_space(read_grid(path), read_grid(reference_path))
    moved = on_grid(volume, reference.grid, f"{path} against {reference_path}")
    return moved, [f"{path.name}: {verdict.reason}"] if verdict.reason else []


def _rater_rows(
    task: _Task, raters: Mapping[str, Instances], others: Mapping[str, Instances]
) -> Iterator[dict[str, Any]]:
    """Agreement of every rater with every other one, the consensus and every method."""
    everyone = {**raters, **others}
    all_names = list(everyone)
    kappa = fleiss_kappa([lesions.labels > 0 for lesions in raters.values()])
    for number, first in enumerate(raters):
        for second in all_names[number + 1 :]:
            result = evaluate_case(everyone[first], everyone[second], task.options)
            a, b = everyone[first].labels > 0, everyone[second].labels > 0
            yield {
                "case": task.case,
                "first": first,
                "second": second,
                "dsc": result.values["dsc"],
                "lesion_f1": result.values["lesion_f1"],
                "cohen_kappa": cohen_kappa(a, b),
                "fleiss_kappa_of_raters": kappa,
            }


def _gathered(scored: Sequence[ScoredCase]) -> tuple[str, ...]:
    """One line per sort of note: the first of its sort, and how many more files it concerns."""
    sorts: dict[str, dict[str, None]] = {}
    for case in scored:
        for note in case.notes:
            about = note.partition(": ")[2]
            sorts.setdefault(re.sub(r"[\d.e+-]+", "#", about), {})[f"{case.case}: {note}"] = None
    gathered = []
    for lines in sorts.values():
        first, *more = lines
        gathered.append(f"{first} (and {len(more)} more files alike)" if more else first)
    return tuple(gathered)


def _write_page(
    evaluation: Evaluation,
    folder: Path,
    tasks: Mapping[str, _Task],
    scans: Mapping[str, Path],
    figures: Path | None,
) -> Path:
    from lesionwise.report.evaluation import Picture, write_evaluation_page

    pictures = []
    notes = list(evaluation.notes)
    for title, case in _telling_cases(evaluation):
        task = tasks[case.case]
        task = replace(task, kinds=_read_as_masks(case))
        truth = _read_reference(task)[0].lesions
        found = _read_prediction(task, case.method, case.prediction, truth).lesions
        scan = None
        if case.case in scans:
            path = scans[case.case]
            try:
                scan = on_grid(read_volume(path), truth.grid, str(path))
            except InputError as error:
                notes.append(f"{case.case}: shown without its scan ({error})")
        pictures.append(Picture(title, truth, found, scan))
    shown = evaluation.amended(notes=tuple(notes))
    return write_evaluation_page(shown, folder / "evaluation.html", pictures, figures)


def _read_as_masks(case: ScoredCase) -> dict[str, Kind]:
    """What ``_Task.kinds`` was when the case was scored."""
    kinds = {"": case.reference_kind, case.method: case.prediction_kind}
    return {side: "mask" for side, kind in kinds.items() if kind in ("mask", "classes")}


def _telling_cases(evaluation: Evaluation) -> Iterator[tuple[str, ScoredCase]]:
    """The best, median and worst case of each method by DSC; of one case, that case."""
    for method in evaluation.predictions:
        ranked = sorted(
            (case for case in evaluation.of(method) if case.value("dsc") is not None),
            key=lambda case: float(case.value("dsc") or 0),
        )
        chosen = {"best": -1, "median": (len(ranked) - 1) // 2, "worst": 0} if ranked else {}
        seen: set[str] = set()
        for word, place in chosen.items():
            case = ranked[place]
            if case.case not in seen:
                seen.add(case.case)
                dsc = case.value("dsc")
                which = f"{method}, {word}" if len(ranked) > 1 else method
                yield f"{which}: {case.case}, DSC {dsc:.3f}", case
