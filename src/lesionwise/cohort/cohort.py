"""The command ``cohort``: a BIDS App with a participant and a group level."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd

from lesionwise import defaults
from lesionwise.cohort.cluster import Workers
from lesionwise.cohort.group import group
from lesionwise.cohort.participant import participant
from lesionwise.defaults import Separation
from lesionwise.types import InputError, Progress, no_progress

Level = Literal["participant", "group"]
SHOWN = ("participant_id", "sessions", "lesions", "volume_ml", "new", "quality", "failures")
"""Columns of ``participants.tsv`` that a terminal has room for."""


@dataclass(frozen=True, eq=False)
class CohortResult:
    """What a level did.

    Attributes:
        message: one line about the whole; empty at the group level.
        notes: what else happened, a line each.
        failures: why each subject, scan or comparison gave nothing, one line by its name.
        participants: at the group level a row a subject, with some columns of the table.
        page: at the group level, the page over all.
    """

    message: str
    notes: tuple[str, ...]
    failures: dict[str, str]
    participants: pd.DataFrame | None = None
    page: Path | None = None


def cohort(
    dataset: Path,
    output: Path,
    level: Level,
    *,
    participants: Sequence[str] = (),
    sessions: Sequence[str] = (),
    model: str | Path = defaults.MODEL,
    instances: Separation | None = None,
    brain_extraction: bool = True,
    longitudinal: bool = True,
    device: str = "auto",
    workers: int | None = None,
    threads_per_worker: int | None = None,
    dask: str = "",
    scheduler_file: Path | None = None,
    dashboard: bool = False,
    progress: Progress = no_progress,
) -> CohortResult:
    """Find the lesions of every subject of a BIDS data set, or gather what was found.

    Args:
        level: ``participant`` computes subjects, ``group`` gathers their results into tables
            and one page.
        participants, sessions, model, instances, brain_extraction, longitudinal, device: as for
            ``participant``.
        workers: processes on this machine; None takes as many as cores and memory allow.
        threads_per_worker: None shares the cores out.
        dask: address of a running Dask scheduler, instead of processes of this machine.
        scheduler_file: the file that such a scheduler wrote, instead of its address.
        dashboard: serve Dask's page about the work.

    Raises:
        InputError: If the options contradict each other, or as the level does.
        Stopped: If the participant level was interrupted; the same call continues.
    """
    typed = partial(_as_typed, folders=(output, dataset))
    if level == "group":
        try:
            gathered = group(output, progress)
        except InputError as error:
            raise InputError(typed(str(error))) from error
        table = gathered.participants
        shown = table[[name for name in SHOWN if name in table]]
        failed = {typed(name): typed(error) for name, error in gathered.failed.items()}
        return CohortResult("", (), failed, shown, gathered.page)
    if dask and scheduler_file:
        raise InputError("cohort: give --dask or --scheduler-file, not both")
    if (dask or scheduler_file) and workers:
        raise InputError(
            "cohort: --workers is only for this machine; a Dask cluster has workers of its own"
        )
    try:
        done = participant(
            dataset,
            output,
            participants=participants,
            sessions=sessions,
            model=model,
            instances=instances,
            brain_extraction=brain_extraction,
            longitudinal=longitudinal,
            device=device,
            workers=Workers(workers, threads_per_worker, dask, scheduler_file, dashboard),
            progress=progress,
        )
    except InputError as error:
        raise InputError(typed(str(error))) from error
    message = (
        f"subjects done: {len(done.done)} in {done.seconds:.0f} s; done before: "
        f"{len(done.kept)}; errors: {len(done.failed)}; results in {output}"
    )
    failed = {typed(name): typed(error) for name, error in done.failed.items()}
    return CohortResult(message, tuple(map(typed, done.notes)), failed)


def _as_typed(text: str, folders: Sequence[Path]) -> str:
    """The text with folders as the user typed them; workers know them by their absolute paths."""
    for folder in folders:
        whole = re.escape(str(folder.absolute()))
        parts = re.split(rf"(?<![\w/.-]){whole}(?![\w.-])", text)
        text = str(folder).join(parts)
    return text
