"""What a worker does: one subject, from claiming it to setting its results in place."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import lesionwise
from lesionwise import defaults
from lesionwise.cohort.records import (
    RECORD,
    STATE,
    Input,
    Record,
    files_of,
    inputs_of,
    is_whole,
    read_record,
    write_record,
)
from lesionwise.cohort.subjects import CohortSubject
from lesionwise.io.checked import read_checked
from lesionwise.io.files import write_json
from lesionwise.processes import own_peak_gb
from lesionwise.types import InputError

if TYPE_CHECKING:
    from lesionwise.run.find_lesions import FindOptions
    from lesionwise.run.load_model import LoadedModel

Job: TypeAlias = Callable[[CohortSubject, Path, Mapping[str, Any]], Mapping[str, str]]
"""Writes a subject's results into a folder, as ``segment`` or ``compare`` does, given all settings.
Returns why parts of it gave nothing, by their name; raises where nothing could be made at all."""

ATTEMPTS = 3
"""Attempts per subject and run before a subject with dying workers counts as failed."""

_CLAIM = ".claim.json"
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Order:
    """All that a worker needs to know beside the subject.

    Attributes:
        dataset, output: folders that every worker sees under the same path.
        settings: all that decides the results.
        run: name of this call of the participant level.
        threads: of each worker.
    """

    dataset: Path
    output: Path
    settings: Mapping[str, Any]
    run: str
    threads: int


@dataclass(frozen=True)
class Claim:
    """What an attempt leaves in its folder while it works.

    Attributes:
        run: name of the call.
        attempts: how often the subject was begun in this run.
        token: of this attempt alone.
        purpose: settings and inputs.
    """

    run: str
    attempts: int
    token: str
    purpose: dict[str, Any]


@dataclass(frozen=True)
class SubjectResult:
    """How it went: ``error`` is empty, or one line that says why there are no results."""

    subject: str
    error: str = ""
    details: str = ""
    failures: Mapping[str, str] | None = None
    seconds: float = 0.0
    peak_mib: int = 0


def work_on(subject: CohortSubject, order: Order, job: Job) -> SubjectResult:
    """Do one subject and set its results in place; an error is returned, never raised.

    A process does one subject at a time, however many threads it was given.
    """
    start = time.perf_counter()
    try:
        _check_place(order)
        with _one_at_a_time:
            _limit_threads(order.threads)
            record = _done(subject, order, job, start)
    except InputError as error:
        return SubjectResult(subject.label, str(error), seconds=time.perf_counter() - start)
    except MemoryError:
        return SubjectResult(
            subject.label, f"{subject.name}: out of memory", traceback.format_exc()
        )
    except Exception as error:
        said = (str(error).splitlines() or [""])[0]
        line = f"{subject.name}: {type(error).__name__}: {said}"
        return SubjectResult(subject.label, line, traceback.format_exc())
    return SubjectResult(
        subject.label, "", "", record.failures, time.perf_counter() - start, record.peak_mib
    )


def segment_or_compare(
    subject: CohortSubject, folder: Path, settings: Mapping[str, Any], *, device: str = "auto"
) -> Mapping[str, str]:
    """``compare`` for a subject with several visits if the settings say so, else ``segment``.

    Where the comparison cannot be made, each scan is segmented by itself, and the reason is
    among the failures that are returned.

    Raises:
        InputError: If not one of the subject's scans gave results.
    """
    from lesionwise.run.compare import compare
    from lesionwise.run.find_lesions import FindOptions
    from lesionwise.run.segment import segment

    model = _loaded(settings["model"], device)
    options = FindOptions(
        instances=settings["instances"],
        also=defaults.SEPARATIONS,
        extract_brain=settings["brain_extraction"],
    )
    compared = subject.comparable if settings["longitudinal"] else ()
    rest = [scan.path for scan in subject.scans if scan not in compared]
    failures: dict[str, str] = {}
    if settings["longitudinal"] and subject.not_compared:
        failures["comparison"] = subject.not_compared
    if compared:
        try:
            compare([s.path for s in compared], folder, model=model, options=options, device=device)
        except InputError as error:
            failures["comparison"] = f"visits not compared: {error}"
            rest = [scan.path for scan in subject.scans]
            _empty(folder)
        else:
            failures |= _segmented_too(rest, folder, model, options, device)
            return failures
    done = segment(rest, folder, model=model, options=options, device=device)
    if not len(done.summary):
        raise InputError(next(iter(done.failures.values())))
    return {**failures, **done.failures}


def _segmented_too(
    scans: Sequence[Path], folder: Path, model: LoadedModel, options: FindOptions, device: str
) -> Mapping[str, str]:
    """The scans beside those that were compared; why any gave nothing."""
    from lesionwise.run.segment import segment

    if not scans:
        return {}
    try:
        return segment(scans, folder, model=model, options=options, device=device).failures
    except InputError as error:
        return {str(scans[0]): str(error)}


@cache
def _loaded(model: str, device: str) -> LoadedModel:
    """The weights are read once a process, not once a subject."""
    from lesionwise.run.load_model import load_model

    return load_model(model, device=device)


def _check_place(order: Order) -> None:
    host = socket.gethostname()
    if not (order.output / RECORD).is_file():
        raise InputError(f"{order.output}: is another folder on {host}, where a worker runs")
    if order.settings.get("version") != lesionwise.__version__:
        raise InputError(
            f"{host}: a worker has lesionwise {lesionwise.__version__}, "
            f"the call {order.settings.get('version')}"
        )


def _limit_threads(threads: int) -> None:
    if not threads:
        return
    # for what is not imported yet, then for what is
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
    simple_itk: Any = sys.modules.get("SimpleITK")
    if simple_itk is not None:
        simple_itk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


def _done(subject: CohortSubject, order: Order, job: Job, start: float) -> Record:
    inputs = inputs_of(subject, order.dataset)
    target = order.output / subject.name
    there = read_record(target)
    if there is not None and _is_of(there, order, inputs) and is_whole(target, there):
        return there  # done by a worker that died before it could say so
    busy = time.process_time()
    folder, attempts = _claim(subject, order, inputs)
    token = read_checked(folder / _CLAIM, Claim).token
    results = folder / subject.name
    before = read_record(results)
    ready = before is not None and _is_of(before, order, inputs) and is_whole(results, before)
    if before is None or not ready:
        (results / RECORD).unlink(missing_ok=True)
        failures = job(subject, folder, order.settings)
        _gather(folder, results)
        before = Record(
            subject=subject.label,
            compared=(results / "compare.json").exists(),
            settings=dict(order.settings),
            inputs=inputs,
            files=files_of(results),
            failures=dict(failures),
            seconds=round(time.perf_counter() - start, 2),
            cpu_seconds=round(time.process_time() - busy, 2),
            peak_mib=_peak_mib(),
            attempts=attempts,
            host=socket.gethostname(),
        )
        write_record(results, before)
    _install(folder, token, target)
    return before


def _is_of(record: Record, order: Order, inputs: tuple[Input, ...]) -> bool:
    same = _contents(record.inputs) == _contents(inputs)
    return same and dict(record.settings) == dict(order.settings)


def _contents(inputs: tuple[Input, ...]) -> dict[str, str]:
    return {known.path: known.sha256 for known in inputs}


def _claim(subject: CohortSubject, order: Order, inputs: tuple[Input, ...]) -> tuple[Path, int]:
    """A folder of this attempt's own, with what an interrupted one left if that still holds.

    Renaming takes the folder away from an attempt that was believed dead and is not: what that
    writes from then on goes nowhere.
    """
    making = order.output / STATE / "making"
    making.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(4)
    folder = making / f"{subject.name}@{token}"
    purpose = {
        "settings": dict(order.settings),
        "inputs": _contents(inputs),
    }
    attempts = 0
    for left in sorted(making.glob(f"{subject.name}@*")):
        try:
            claim = read_checked(left / _CLAIM, Claim)
            deaths = claim.attempts if claim.run == order.run else 0
            if claim.purpose == purpose and not folder.exists():
                os.rename(left, folder)
        except (InputError, OSError):
            deaths = 0
        attempts = max(attempts, deaths)
        shutil.rmtree(left, ignore_errors=True)
    if attempts >= ATTEMPTS:
        shutil.rmtree(folder, ignore_errors=True)
        raise InputError(died(subject.name))
    folder.mkdir(exist_ok=True)
    write_json(
        folder / _CLAIM,
        {
            "run": order.run,
            "attempts": attempts + 1,
            "token": token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "purpose": purpose,
        },
    )
    return folder, attempts + 1


def died(name: str) -> str:
    """The line for a subject whose worker died too often."""
    return f"{name}: its worker died {ATTEMPTS} times (killed, or out of memory)"


def attempts_of(output: Path, subject: str, run: str) -> int:
    """How often a subject was begun in this run without coming to an end."""
    most = 0
    for left in (output / STATE / "making").glob(f"sub-{subject}@*"):
        try:
            claim = read_checked(left / _CLAIM, Claim)
        except InputError:
            continue
        most = max(most, claim.attempts if claim.run == run else 0)
    return most


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _CLAIM:
            path.unlink()


def _gather(folder: Path, results: Path) -> None:
    """Move pages and tables into the subject's folder; drop what a killed writer left."""
    results.mkdir(exist_ok=True)
    (folder / "dataset_description.json").unlink(missing_ok=True)
    for path in list(folder.iterdir()):
        if path != results and not path.name.startswith("."):
            os.replace(path, results / path.name)
    for path in list(results.rglob(".*")):
        if path.is_file():
            path.unlink()


def _install(folder: Path, token: str, target: Path) -> None:
    """Put the subject's folder in its place, whole; what lay there goes."""
    try:
        ours = read_checked(folder / _CLAIM, Claim).token == token
    except InputError:
        ours = False
    if not ours:
        raise InputError(f"{target.name}: another worker took it over")
    if target.exists():
        os.rename(target, folder / ".before")
    os.rename(folder / target.name, target)
    shutil.rmtree(folder, ignore_errors=True)


def _peak_mib() -> int:
    return int((own_peak_gb() or 0.0) * 1e9 / 2**20)
