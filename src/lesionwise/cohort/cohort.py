"""The command ``cohort``: a BIDS App with a participant and a group level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
        failures: a line for each subject, scan or comparison that gave nothing.
        participants: at the group level a row a subject, with some columns of the table.
        page: at the group level, the page over all.
    """

    message: str
    notes: tuple[str, ...]
    failures: tuple[str, ...]
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
    if level == "group":
        gathered = group(output, progress)
        table = gathered.participants
        shown = table[[name for name in SHOWN if name in table]]
        return CohortResult("", (), gathered.failed, shown, gathered.page)
    if dask and scheduler_file:
        raise InputError("cohort: give --dask or --scheduler-file, not both")
    if (dask or scheduler_file) and workers:
        raise InputError(
            "cohort: --workers is only for this machine; a Dask cluster has workers of its own"
        )
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
    message = (
        f"subjects done: {len(done.done)} in {done.seconds:.0f} s; done before: "
        f"{len(done.kept)}; errors: {len(done.failed)}; results in {output}"
    )
    return CohortResult(message, done.notes, done.failed)
