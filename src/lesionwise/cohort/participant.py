"""The participant level: every subject once, spread over workers, resumable."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lesionwise
from lesionwise import defaults
from lesionwise.cohort.calls import announced
from lesionwise.cohort.cluster import Workers, dask_client
from lesionwise.cohort.people import keep_people
from lesionwise.cohort.records import (
    RECORD,
    STATE,
    failure_lines,
    failures_of,
    forget_error,
    is_whole,
    read_record,
    same_inputs,
    subject_folders,
    write_error,
    write_failures,
)
from lesionwise.cohort.stopping import StopRequest, heeding_signals
from lesionwise.cohort.subjects import CohortSubject, find_subjects
from lesionwise.cohort.work import (
    ATTEMPTS,
    Job,
    Order,
    SubjectResult,
    attempts_of,
    died,
    segment_or_compare,
    work_on,
)
from lesionwise.io.bids import write_dataset_description
from lesionwise.io.files import check_writable, write_json
from lesionwise.io.record import check_settings
from lesionwise.types import InputError, Progress, no_progress

if TYPE_CHECKING:
    from distributed import Client

    from lesionwise.defaults import Separation

WAIT_S = 0.05
"""How often it is seen whether a subject has ended or the work is to stop."""
REMEDY = "choose another output folder, or delete this one's subjects to make them again"
GATHER_S = 2.0
"""The same while a result is fetched from its worker, which may have died since."""


@dataclass(frozen=True)
class Participants:
    """How a participant level went.

    Attributes:
        done: subjects computed by this call.
        kept: subjects whose results were there already.
        failed: why each subject, scan or comparison gave nothing, one line by its name, of the
            subjects that were asked for.
        seconds: wall time of the work.
        peak_mib: the most memory any worker had held.
        notes: what else happened, a line each.
    """

    done: tuple[str, ...]
    kept: tuple[str, ...]
    failed: dict[str, str]
    seconds: float
    peak_mib: int
    notes: tuple[str, ...]


def participant(
    dataset: Path,
    output: Path,
    *,
    participants: Sequence[str] = (),
    sessions: Sequence[str] = (),
    model: str | Path = defaults.MODEL,
    instances: Separation | None = None,
    brain_extraction: bool = True,
    longitudinal: bool = True,
    device: str = "auto",
    workers: Workers = Workers(),  # noqa: B008  (frozen)
    progress: Progress = no_progress,
) -> Participants:
    """Find the lesions of every subject of a BIDS data set, each subject a task for a worker.

    A subject's results appear at ``output/sub-…`` at once and whole. A subject that is done is
    not done again unless its scans, their number, its record or its results are no longer what
    they were. So the same call continues after a kill at any point.

    Args:
        participants, sessions: labels to take; all if empty.
        longitudinal: compare the visits of a subject that has several; without it, and where a
            session has several scans, each scan is segmented by itself.
        workers: where to compute.

    Raises:
        InputError: If the settings cannot hold, are not those the output folder was made with,
            or the folder holds results that are not a cohort's. A subject with an error is listed
            in ``failures.tsv`` instead, and the others continue.
        Stopped: After Ctrl-C or SIGTERM, when no worker is left; what is done stays.
    """
    from lesionwise.run.load_model import load_model

    dataset, output = dataset.absolute(), output.absolute()
    subjects = find_subjects(dataset, participants, sessions)
    check_apart(dataset, output)
    loaded = load_model(model, device="cpu")
    subjects = [with_further(subject, loaded.recipe.scans) for subject in subjects]
    settings = {
        "model": str(Path(model).absolute()) if Path(model).is_dir() else str(model),
        "weights": loaded.sha256,
        "recipe": str(loaded.run.get("recipe", "")),
        "overrides": [str(text) for text in loaded.run.get("overrides", ())],
        "instances": instances,
        "brain_extraction": brain_extraction,
        "longitudinal": longitudinal,
        "sessions": sorted({name.removeprefix("ses-") for name in sessions}),
        "version": lesionwise.__version__,
    }
    job = partial(segment_or_compare, device=device)
    return run_subjects(subjects, dataset, output, settings, job, workers, progress)


def with_further(subject: CohortSubject, wanted: tuple[str, ...]) -> CohortSubject:
    """The subject with the files that a model takes beside each of its scans.

    Where one is missing, the scan fails by itself later.

    Args:
        wanted: all scans of the model, by name.
    """
    from lesionwise.run.contrasts import further_scans

    found: list[Path] = []
    for scan in subject.scans:
        with suppress(InputError):
            found += further_scans(scan.path, wanted).values()
    return replace(subject, further=tuple(found))


def check_apart(dataset: Path, output: Path) -> None:
    """Refuse an output folder in which results would lie among the scans.

    Raises:
        InputError: If it is the data set itself or lies in the folder of a subject.
    """
    place, root = output.resolve(), dataset.resolve()
    inside = place.is_relative_to(root) and place != root
    if place == root or (inside and place.relative_to(root).parts[0].startswith("sub-")):
        raise InputError(
            f"{output}: results would be among the scans; choose another folder, "
            "such as derivatives/lesionwise"
        )


def run_subjects(
    subjects: Sequence[CohortSubject],
    dataset: Path,
    output: Path,
    settings: Mapping[str, Any],
    job: Job,
    workers: Workers = Workers(),  # noqa: B008  (frozen)
    progress: Progress = no_progress,
) -> Participants:
    """Do the subjects that are not done, with any job.

    Args:
        settings: all that decides the results, as JSON holds it; ``version`` is checked
            against that of each worker.
        job: what makes a subject's results.

    Raises:
        InputError: As for ``participant``.
    """
    start = time.perf_counter()
    check_writable(output)
    waiting, kept, notes = _plan(subjects, dataset, output, settings)
    order = Order(dataset, output, dict(settings), secrets.token_hex(4), 0)
    done: list[SubjectResult] = []
    asked = {subject.name for subject in subjects}
    labels = [subject.label for subject in waiting]
    with announced(output, order.run, labels) if waiting else nullcontext():
        write_json(output / RECORD, {"settings": dict(settings)})
        write_dataset_description(output, "lesionwise cohort")
        notes += keep_people(dataset, output)
        for subject in subjects:
            if subject.error:
                write_error(output, subject.label, subject.error)
        try:
            if waiting:
                done = _compute(waiting, order, job, workers, progress)
        finally:
            records = {p.name.removeprefix("sub-"): read_record(p) for p in subject_folders(output)}
            failures = failures_of(output, records)
            write_failures(output, failures)
        _clear(output, {subject.name for subject in waiting})
    return Participants(
        done=tuple(result.subject for result in done if not result.error),
        kept=tuple(subject.label for subject in kept),
        failed=failure_lines([row for row in failures if row["subject"] in asked]),
        seconds=time.perf_counter() - start,
        peak_mib=max((result.peak_mib for result in done), default=0),
        notes=tuple(notes),
    )


def _clear(output: Path, names: set[str]) -> None:
    """Remove what is left of subjects that came to an end, and of no others: calls may share
    the output folder while they do different subjects."""
    making = output / STATE / "making"
    with suppress(OSError):
        for left in list(making.iterdir()):
            if left.name.split("@")[0] in names:
                shutil.rmtree(left, ignore_errors=True)
        making.rmdir()


def _plan(
    subjects: Sequence[CohortSubject],
    dataset: Path,
    output: Path,
    settings: Mapping[str, Any],
) -> tuple[list[CohortSubject], list[CohortSubject], list[str]]:
    """The subjects to compute, those that are done, and what is worth saying about it."""
    folders = subject_folders(output)
    ours = (output / RECORD).exists() or (output / STATE).is_dir()
    if folders and not ours and not any((folder / RECORD).exists() for folder in folders):
        raise InputError(
            f"{output}: holds {folders[0].name}, which cohort did not write; choose another folder"
        )
    for folder in folders:
        record = read_record(folder)
        if record is not None:
            check_settings(record.settings, settings, output, REMEDY)
    waiting, kept, notes = [], [], []
    for subject in subjects:
        folder = output / subject.name
        record = read_record(folder)
        if subject.error:
            continue
        if not folder.exists():
            waiting.append(subject)
        elif record is None:
            waiting.append(subject)
            notes.append(f"{folder / RECORD}: damaged; the subject is done again")
        elif not same_inputs(record, subject, dataset):
            waiting.append(subject)
            notes.append(f"{subject.name}: its scans have changed; it is done again")
        elif not is_whole(folder, record):
            waiting.append(subject)
            notes.append(f"{folder}: results are missing or cut off; the subject is done again")
        else:
            kept.append(subject)
    return waiting, kept, notes


def _compute(
    waiting: Sequence[CohortSubject],
    order: Order,
    job: Job,
    workers: Workers,
    progress: Progress,
) -> list[SubjectResult]:
    progress("start workers", 0, len(waiting))
    with (
        heeding_signals() as request,
        dask_client(workers, len(waiting)) as (client, threads),
    ):
        order = Order(order.dataset, order.output, order.settings, order.run, threads)
        return _submit(client, waiting, order, job, request, progress)


def _submit(
    client: Client,
    waiting: Sequence[CohortSubject],
    order: Order,
    job: Job,
    request: StopRequest,
    progress: Progress,
) -> list[SubjectResult]:
    """Every subject through the workers; one whose worker dies is begun again, but not for ever."""
    from distributed import KilledWorker, as_completed
    from distributed.client import FutureCancelledError
    from distributed.comm.core import CommClosedError

    start = time.monotonic()
    done: list[SubjectResult] = []
    failed = 0

    def submitted(subject: CohortSubject) -> Any:
        key = f"{subject.name}-{secrets.token_hex(4)}"
        return client.submit(work_on, subject, order, job, key=key, pure=False)

    progress(f"{_workers(client, order.threads)}; the first subjects", 0, len(waiting))
    subjects = {submitted(subject): subject for subject in waiting}
    running = as_completed(list(subjects))
    try:
        for future in _as_they_end(running, request):
            subject = subjects.pop(future)
            try:
                result = _result(client, future, request)
            except KilledWorker:
                if attempts_of(order.output, subject.label, order.run) < ATTEMPTS:
                    again = submitted(subject)
                    subjects[again] = subject
                    running.add(again)
                    continue
                result = SubjectResult(subject.label, died(subject.name))
            except (FutureCancelledError, CommClosedError, TimeoutError) as error:
                raise InputError(
                    "cohort: the connection to the Dask scheduler was lost; "
                    "the same command continues from here"
                ) from error
            except Exception as error:  # the task could not be brought to a worker or back
                said = (str(error).splitlines() or [""])[0]
                result = SubjectResult(
                    subject.label, f"{subject.name}: {type(error).__name__}: {said}"
                )
            future.release()
            done.append(result)
            if result.error:
                failed += 1
                write_error(order.output, result.subject, result.error, result.details)
            else:
                forget_error(order.output, result.subject)
            stage = _stage(result, len(done), len(waiting), failed, time.monotonic() - start)
            progress(stage, len(done), len(waiting))
    finally:
        if subjects:
            client.cancel(list(subjects), force=True)
    return done


def _result(client: Client, future: Any, request: StopRequest) -> SubjectResult:
    """What a subject's job returned; if its worker died with it, once it has run again.

    Raises:
        Stopped: If the work is asked to stop meanwhile: where all workers died, nothing would come.
    """
    while True:
        request.check()
        try:
            result: SubjectResult = future.result(timeout=GATHER_S)
            return result
        except TimeoutError:
            if client.status != "running":
                raise


def _as_they_end(running: Any, request: StopRequest) -> Iterator[Any]:
    """Futures of ``as_completed`` in the order in which they end, those added meanwhile too."""
    while running.count():
        request.check()
        ended = running.next_batch(block=False)
        if not ended:
            time.sleep(WAIT_S)
        for future in ended:
            request.check()
            yield future


def _workers(client: Client, threads: int) -> str:
    number = len(client.scheduler_info(n_workers=-1)["workers"])
    each = f" with {_counted(threads, 'thread')} each" if threads else ""
    return _counted(number, "worker") + each


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _stage(result: SubjectResult, done: int, total: int, failed: int, seconds: float) -> str:
    """One line: the subject, the rate, what remains."""
    how = "failed" if result.error else f"{result.seconds:.0f} s"
    rate = done / max(seconds, 1e-9) * 3600
    left = (total - done) / rate * 60 if rate else 0.0
    remains = f"{left:.0f} min" if left < 120 else f"{left / 60:.1f} h"
    failures = f", {failed} failed" if failed else ""
    return f"sub-{result.subject}: {how}; {rate:.0f} subjects/h, {remains} left{failures}"
