"""Before any result is believed: how fit the scans are, and whether the visits belong together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionwise.io.bids import FoundScan
from lesionwise.io.names import parse_name
from lesionwise.io.nifti import header_notes
from lesionwise.io.sidecar import acquired, parse_time, read_sidecar
from lesionwise.io.visit_order import check_visit_order
from lesionwise.preprocess.alignment import Alignment
from lesionwise.preprocess.geometry import resample_to, respaced
from lesionwise.preprocess.quality import Grade, Quality, graded, protocol_changes, scan_quality
from lesionwise.report.page import QualityNote
from lesionwise.types import InputError, Matrix, Visit, Volume

if TYPE_CHECKING:
    from lesionwise.io.dicom_series import Series

SHORTEST_FLAIR_ECHO_S = 0.05
"""T2-weighted FLAIR has echo times of 0.07 s and more, T1-weighted scans of 0.03 s and less."""
OTHER_KINDS = ("T1w", "T2w", "PDw", "PD", "T2star", "T2starw", "bold", "dwi", "inplaneT1")
MIN_SHARED, WELL_SHARED = 0.3, 0.85
"""Share of the smaller brain that lies in the other; 0.97 to 0.99 in the real pairs measured."""
WORKING_MM = 4.0
SAME_WITHIN = 0.1
"""Times of two protocols that differ by less than this share count as one."""

_SCANNER = ("Manufacturer", "ManufacturersModelName", "MagneticFieldStrength")
_TIMES = ("EchoTime", "InversionTime", "RepetitionTime")


@contextmanager
def named_as_typed(scan: FoundScan, name: str) -> Iterator[None]:
    """Faults within the block carry the path that the user gave.

    Steps of preprocessing know a scan as ``subject session name``; an error that begins so begins
    with the scan's path instead, and any other stays as it is.
    """
    label = " ".join(part for part in (scan.subject, scan.session, name) if part)
    try:
        yield
    except InputError as error:
        text = str(error)
        if not text.startswith(f"{label}: "):
            raise
        raise type(error)(f"{scan.path}{text[len(label) :]}") from error


def scan_note(
    scan: FoundScan,
    visit: Visit,
    brain: Volume | None,
    name: str,
    measured: Quality | None = None,
) -> QualityNote:
    """How fit one scan is, from its voxels, its name and what stands beside it.

    Args:
        visit: as read.
        brain: its mask, as ``scan_quality`` takes it.
        name: of the scan within the visit; a FLAIR is held against what a FLAIR looks like.
        measured: what its voxels say, where it is known.
    """
    found = measured
    if found is None:
        found = scan_quality(visit.scans[name], brain, flair=name == "flair")
    problems = [(True, reason) for reason in _wrong_kind(scan.path, name)]
    problems += [(False, reason) for reason in header_notes(scan.path)]
    if problems:
        first = graded(problems, {})
        grade: Grade = "poor" if "poor" in (first.grade, found.grade) else "fair"
        found = Quality(grade, (*first.reasons, *found.reasons), found.measures)
    title = " ".join(f"{key}-{value}" for key, value in scan.entities.pairs().items())
    return QualityNote(f"{name} of {title}", found.grade, found.reasons, found.measures)


def _wrong_kind(path: Path, name: str) -> list[str]:
    if name != "flair":
        return []
    reasons = []
    entities = parse_name(path)
    if entities is not None and entities.suffix in OTHER_KINDS:
        reasons.append(f"its name says {entities.suffix}, not FLAIR")
    try:
        echo_s = read_sidecar(path).get("EchoTime")
    except InputError as error:
        return [*reasons, str(error)]
    if isinstance(echo_s, int | float) and 0 < echo_s < SHORTEST_FLAIR_ECHO_S:
        reasons.append(
            f"its sidecar states an echo time of {1000 * echo_s:.0f} ms, too short for a FLAIR"
        )
    return reasons


def change_notes(
    scans: Sequence[FoundScan],
    visits: Sequence[Visit],
    brains: Sequence[Volume],
    notes: Sequence[QualityNote],
    to_first: Sequence[Matrix],
    name: str,
) -> tuple[QualityNote, ...]:
    """What changed between consecutive visits that no lesion is to blame for, a note a pair.

    Voxel size, contrast, noise; scanner and times of the sequence, where sidecars state them; the
    part of the brain that both visits show; and whether both visits are one scan. Only pairs with
    a reason get a note.

    Args:
        notes: of each scan, as ``scan_note`` gave them.
        to_first: world mm of the first visit to world mm of each visit.

    Raises:
        InputError: If two visits share less than ``MIN_SHARED`` of a brain.
    """
    found = []
    for one, two in pairwise(range(len(scans))):
        before, after = scans[one], scans[two]
        names = f"{before.session} and {after.session}"
        pair = (visits[one], visits[two])
        judged = [Quality(n.grade, (), n.measures) for n in (notes[one], notes[two])]
        reasons = list(protocol_changes(pair, name, judged))
        reasons += [f"{what} between {names}" for what in _header_changes(before.path, after.path)]
        # From the earlier visit to the later one, by way of the first visit.
        shared = shared_fraction(
            brains[one], brains[two], to_first[two] @ np.linalg.inv(to_first[one])
        )
        if shared < MIN_SHARED:
            raise InputError(
                f"{after.path}: only {100 * shared:.0f} % of the brain overlaps with that of "
                f"{before.path.name}; the visits do not overlap or cannot be registered"
            )
        if shared < WELL_SHARED:
            reasons.append(
                f"{names} share {100 * shared:.0f} % of the brain: "
                "lesions outside of the shared part are equivocal"
            )
        # What makes a comparison wrong, not merely less sure.
        severe = []
        same = [np.asarray(visit.scans[name].array) for visit in pair]
        if same[0].shape == same[1].shape and np.array_equal(same[0], same[1]):
            severe.append(f"{names} hold the same scan")
        grade: Grade = "poor" if severe else "fair"
        if severe or reasons:
            found.append(
                QualityNote(
                    f"{before.session} to {after.session}",
                    grade,
                    (*severe, *reasons),
                    {"shared_fraction": shared},
                )
            )
    return tuple(found)


def alignment_notes(
    scans: Sequence[FoundScan], alignments: Sequence[Alignment]
) -> tuple[QualityNote, ...]:
    """A note for each later visit that does not fit on the first.

    Args:
        alignments: of each later visit with the first.

    Raises:
        InputError: If left and right are exchanged in one of the two.
    """
    notes = []
    for scan, found in zip(scans[1:], alignments, strict=True):
        measures = {"similarity": found.similarity, "unregistered": found.unregistered}
        if np.isfinite(found.mirrored):
            measures["mirrored"] = found.mirrored
        if found.exchanged:
            raise InputError(f"{scan.path}: compared with {scans[0].path}, {found.reason}")
        if found.reason is not None:
            about = f"{scans[0].session} to {scan.session}"
            notes.append(QualityNote(about, "poor", (found.reason,), measures))
    return tuple(notes)


def shared_fraction(one: Volume, two: Volume, world: Matrix) -> float:
    """Share of the smaller of two brains that lies in the other; 0 where a mask is empty.

    Args:
        world: (4, 4), world mm of ``one`` to world mm of ``two``.
    """
    coarse = [resample_to(v, respaced(v.grid, WORKING_MM), order=0) for v in (one, two)]
    moved = resample_to(two, coarse[0].grid, order=0, world=world)
    here = coarse[0].array.astype(bool)
    counts = [int(np.count_nonzero(v.array)) for v in coarse]
    if not min(counts):
        return 0.0
    both = int(np.count_nonzero(here & moved.array.astype(bool)))
    return min(1.0, both / min(counts))


def _header_changes(before: Path, after: Path) -> list[str]:
    try:
        one, two = read_sidecar(before), read_sidecar(after)
    except InputError:
        return []  # the scan's own note has it
    changes = []
    stated = [(str(one[key]), str(two[key])) for key in _SCANNER if key in one and key in two]
    if any(a.strip().lower() != b.strip().lower() for a, b in stated):
        changes.append("the scanner changed")
    for key in _TIMES:
        a, b = one.get(key), two.get(key)
        if not (isinstance(a, int | float) and isinstance(b, int | float) and min(a, b) > 0):
            continue
        if max(a, b) / min(a, b) > 1 + SAME_WITHIN:
            words = key.removesuffix("Time").lower()
            changes.append(f"{words} times differ ({a:g} s and {b:g} s)")
    return changes


def _acquired(scan: FoundScan) -> datetime | None:
    try:
        return acquired(scan.path)
    except InputError:
        return None  # a malformed sidecar is named in the scan's own note


def check_one_patient(scans: Sequence[FoundScan], series: Sequence[Series | None]) -> None:
    """Pass unless headers or sidecars of two visits state different patients.

    Raises:
        InputError: If they do; the error names files, never people.
    """
    known: list[tuple[str, str]] = []
    for scan, one in zip(scans, series, strict=True):
        who = one.patient if one is not None else _stated_patient(read_sidecar(scan.path))
        if who:
            known.append((str(scan.path), who))
    for path, who in known[1:]:
        if who != known[0][1]:
            raise InputError(
                f"{path}: its header names another patient than {known[0][0]}; "
                "use --same-patient if they are the same person"
            )


def check_order(scans: Sequence[FoundScan], series: Sequence[Series | None] = ()) -> None:
    """Pass unless two visits that follow each other run backwards, by their dates or names.

    Sessions count where the files' names state them, and else the files' names themselves.

    Args:
        series: of each scan where it came from DICOM; empty if none did.

    Raises:
        InputError: As for ``check_visit_order``.
    """
    paths = [scan.path for scan in scans]
    stated = [parse_name(path) for path in paths]
    sessions = [entities.ses for entities in stated if entities is not None and entities.ses]
    of_scans = list(series) or [None] * len(scans)
    times = [
        _acquired(scan) if one is None else parse_time(one.acquired)
        for scan, one in zip(scans, of_scans, strict=True)
    ]
    check_visit_order(paths, times, sessions if len(sessions) == len(scans) else ())


def _stated_patient(about: Mapping[str, Any]) -> str:
    who = str(about.get("PatientID") or "")
    return hashlib.sha256(who.encode()).hexdigest() if who else ""


def lines(notes: Sequence[QualityNote]) -> list[str]:
    """What a terminal shows before results: a line for each note, at most twenty.

    Of many notes, those without a problem are counted instead.
    """
    shown = list(notes) if len(notes) <= 20 else [note for note in notes if note.grade != "good"]
    text = [
        f"{note.about}: {note.grade}" + (f" ({'; '.join(note.reasons)})" if note.reasons else "")
        for note in shown[:20]
    ]
    if len(shown) > 20:
        text.append(f"… and {len(shown) - 20} more that are not good; scans.tsv lists them")
    if len(shown) < len(notes):
        text.append(f"{len(notes) - len(shown)} of {len(notes)} are good")
    return text
