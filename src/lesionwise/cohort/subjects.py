"""Which subjects of a BIDS data set a cohort run works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lesionwise.io.bids import FoundScan
from lesionwise.io.checked import reading
from lesionwise.io.names import Entities, natural
from lesionwise.io.scans import subject_scans
from lesionwise.io.visit_order import in_time_order
from lesionwise.types import InputError


@dataclass(frozen=True)
class CohortSubject:
    """One subject of a data set.

    Attributes:
        label: without ``sub-``.
        scans: its FLAIR scans, sessions in time order as far as that is known.
        error: why there is nothing to work on; empty where there is.
        further: files of other contrasts that the model takes beside its scans.
    """

    label: str
    scans: tuple[FoundScan, ...]
    error: str = ""
    further: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """With ``sub-``, as its folder is called."""
        return f"sub-{self.label}"

    @property
    def files(self) -> tuple[Path, ...]:
        """All that its results are made from."""
        return (*(scan.path for scan in self.scans), *self.further)

    @property
    def comparable(self) -> tuple[FoundScan, ...]:
        """The scans to compare: one of each of two or more sessions; empty where there are none.

        Where sessions hold several scans, those with the same further entities in all of them
        (``acq-3D``), if there is one such set.
        """
        sessions = list(dict.fromkeys(scan.session for scan in self.scans))
        if len(sessions) < 2 or not all(sessions):
            return ()
        kinds: dict[Entities, list[FoundScan]] = {}
        for scan in self.scans:
            kinds.setdefault(replace(scan.entities, ses="", extension=""), []).append(scan)
        if len(self.scans) == len(sessions):
            return self.scans
        whole = [scans for scans in kinds.values() if len(scans) == len(sessions)]
        return tuple(whole[0]) if len(whole) == 1 else ()

    @property
    def not_compared(self) -> str:
        """Why visits are there but none can be compared; empty where they can, or where there is
        one visit."""
        sessions = list(dict.fromkeys(scan.session for scan in self.scans))
        if len(self.scans) < 2 or self.comparable:
            return ""
        if not all(sessions):
            return "visits not compared: a scan has no session in its name"
        if len(sessions) < 2:
            return ""
        twice = next(s for s in sessions if sum(scan.session == s for scan in self.scans) > 1)
        names = ", ".join(scan.path.name for scan in self.scans if scan.session == twice)
        return f"visits not compared: ses-{twice} has several FLAIR scans ({names})"


def find_subjects(
    dataset: Path, participants: Sequence[str] = (), sessions: Sequence[str] = ()
) -> list[CohortSubject]:
    """The subjects of a BIDS data set, in natural order, each with its FLAIR scans.

    A subject without a scan, or with files that contradict their folder, comes with its error,
    so the others continue.

    Args:
        participants: labels to take, with or without ``sub-``; all if empty.
        sessions: labels to take, with or without ``ses-``; all if empty.

    Raises:
        InputError: If the folder holds no subjects, or not one that is asked for.
    """
    if not dataset.is_dir():
        raise InputError(f"{dataset}: no such folder")
    with reading(dataset):
        there = sorted(
            (p.name for p in dataset.iterdir() if p.name.startswith("sub-") and p.is_dir()),
            key=natural,
        )
    labels = [name.removeprefix("sub-") for name in there]
    if not labels:
        raise InputError(f"{dataset}: not a BIDS data set (it has no folder sub-…)")
    wanted = {name.removeprefix("sub-") for name in participants}
    missing = sorted(wanted - set(labels), key=natural)
    if missing:
        known = ", ".join(labels[:8]) + (f" … ({len(labels)} in all)" if len(labels) > 8 else "")
        raise InputError(f"{dataset}: no participant {', '.join(missing)}; there are {known}")
    visits = {name.removeprefix("ses-") for name in sessions}
    subjects = [_subject(dataset, name, visits) for name in labels if not wanted or name in wanted]
    if visits and not any(subject.scans for subject in subjects):
        listed = ", ".join(sorted(visits, key=natural))
        raise InputError(f"{dataset}: no FLAIR scan in session {listed}")
    return subjects


def _subject(dataset: Path, label: str, sessions: set[str]) -> CohortSubject:
    try:
        every = subject_scans(dataset, label)
        chosen = [scan for scan in every if not sessions or scan.session in sessions]
        scans = tuple(in_time_order(dataset, label, chosen))
    except InputError as error:
        return CohortSubject(label, (), str(error))
    if not scans:
        where = f" in session {', '.join(sorted(sessions, key=natural))}" if sessions else ""
        return CohortSubject(label, (), f"sub-{label}: no FLAIR scan{where}")
    names = [tuple(scan.entities.pairs().items()) for scan in scans]
    for name, scan in zip(names, scans, strict=True):
        if names.count(name) > 1:
            return CohortSubject(label, (), f"{scan.path}: there is a second scan of this name")
    return CohortSubject(label, scans)
