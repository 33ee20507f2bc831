"""BIDS data sets as studies, each read from its files on demand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import pandas as pd

from lesionwise.io.checked import read_checked, reading
from lesionwise.io.files import read_table
from lesionwise.io.names import natural, parse_name
from lesionwise.io.nifti import read_grid, read_labels, read_mask, read_volume
from lesionwise.io.nnunet import NnunetStudies, nnunet_images, read_nnunet
from lesionwise.io.space import on_grid, same_space
from lesionwise.io.tree import BidsFile, Misfit, survey
from lesionwise.io.visit_order import order_visits, visit_times
from lesionwise.types import EMPTY, Grid, InputError, Study, Visit, Volume

SUFFIXES = {"flair": "FLAIR", "t1w": "T1w", "t2w": "T2w", "pd": "PDw", "t1ce": "T1w"}
_SCAN_SUFFIXES = {*SUFFIXES.values(), "PD"}
CHANGES = (
    "new", "disappeared", "enlarging", "gone", "growing", "shrinking", "stable", "merged", "split",
    "change", "changesign", "plausiblenew",
)  # fmt: skip
"""Values of ``desc`` that name a map of change between two visits."""


@dataclass(frozen=True)
class _VisitFiles:
    session: str
    scans: Mapping[str, BidsFile]


@dataclass(frozen=True)
class _StudyFiles:
    subject: str
    visits: tuple[_VisitFiles, ...]
    derived: tuple[BidsFile, ...]


class BidsStudies(Sequence[Study]):
    """The studies of a data set, each read from its files on demand.

    Attributes:
        root: the folder.
        skipped: what was left out, and why, one phrase each.
        errors: of the subjects whose files contradict each other, by subject.
    """

    def __init__(
        self,
        root: Path,
        studies: Sequence[_StudyFiles],
        skipped: Sequence[str],
        errors: Mapping[str, str] = EMPTY,
    ) -> None:
        self.root = root
        self.skipped = tuple(skipped)
        self.errors = dict(errors)
        self._studies = tuple(studies)

    @property
    def subjects(self) -> tuple[str, ...]:
        return tuple(study.subject for study in self._studies)

    def select(self, subjects: Iterable[str]) -> BidsStudies:
        """The studies of these subjects, in the data set's order.

        Raises:
            InputError: If a subject is not there, or cannot be read.
        """
        wanted = {subject.removeprefix("sub-") for subject in subjects}
        for subject in sorted(wanted & set(self.errors)):
            raise InputError(self.errors[subject])
        missing = sorted(wanted - set(self.subjects))
        if missing:
            raise InputError(f"{self.root}: no subject {', '.join(missing)}")
        kept = [study for study in self._studies if study.subject in wanted]
        return BidsStudies(self.root, kept, self.skipped, self.errors)

    def participants(self) -> pd.DataFrame:
        """``participants.tsv`` as text, one row a subject, indexed by subject without ``sub-``.

        Empty where the file is missing.
        """
        path = self.root / "participants.tsv"
        if not path.exists():
            return pd.DataFrame(index=pd.Index([], name="participant_id"))
        table = read_table(path)
        if "participant_id" not in table:
            raise InputError(f"{path}: no column participant_id")
        table["participant_id"] = table["participant_id"].str.removeprefix("sub-")
        return table.set_index("participant_id")

    def __len__(self) -> int:
        return len(self._studies)

    @overload
    def __getitem__(self, index: int) -> Study: ...
    @overload
    def __getitem__(self, index: slice) -> BidsStudies: ...
    def __getitem__(self, index: int | slice) -> Study | BidsStudies:
        if isinstance(index, slice):
            return BidsStudies(self.root, self._studies[index], self.skipped, self.errors)
        return _load(self._studies[index])

    def files(self, index: int) -> list[dict[str, BidsFile]]:
        """The scans of one study by name, one mapping a visit, without reading them."""
        return [dict(visit.scans) for visit in self._studies[index].visits]


def read_dataset(
    root: str | Path,
    scans: Sequence[str] = ("flair",),
    derivatives: Sequence[str | Path] | None = None,
    only: Mapping[str, str] = EMPTY,
) -> BidsStudies:
    """The studies of a BIDS data set, by subject and then in the order of visits.

    A visit needs all of ``scans``; visits and subjects that lack one are listed in ``skipped``.
    A subject with two scans or tables that contradict each other is left out and stands in
    ``errors``, so that it does not stop the others.
    Visits go by ``acq_time`` in ``sub-*_sessions.tsv``, or else the first one in the session's
    ``*_scans.tsv``, where every visit has one, and else by the numbers in their names (2 before
    10).

    Of several scans of one kind in a session, the one with the fewest entities in its name is
    taken (``FLAIR`` before ``acq-3D_FLAIR``), and of those that differ by ``run`` alone the
    last, since a scan is repeated when it failed. Anything else has to be settled by ``only``.

    Maps come from the data set itself and from its derivatives. One belongs to a visit if it
    names the same subject and the same session, or no session, and lies on the grid of the
    visit's first scan in any axis order. Maps in a space of their own are passed over; one that
    states no space, or ``orig``, or the scan's, and still lies on another grid is an error.
    Maps that a command of this package wrote (``is_ours``) are no references: they are passed
    over, and ``skipped`` says so. Known lesions of simulated patients are taken.

    - ``label-L_mask`` or ``label-lesion_mask``: ``labels["lesions"]``, bool. With ``desc-rater1``
      or ``desc-consensus``: ``labels["rater-1"]``, ``labels["consensus"]``.
    - ``seg-*_dseg``: ``labels["instances"]``, int32, from ``seg-truth`` or else from the only one;
      each of several is also there as ``labels["instances-<seg>"]``.
    - ``desc-brain_mask``: ``brain``. A ``dseg`` without ``seg``: ``labels["tissue"]``.
    - ``desc-new``, ``desc-disappeared`` … masks and dsegs on the follow-up's grid: ``changes`` by
      that name; those of an earlier session get ``@session`` behind it. ``desc-newrater1`` is
      ``changes["new-rater-1"]``, what one rater calls new.

    Args:
        scans: names among flair, t1w, t2w, pd, t1ce (T1w with contrast agent), in channel order.
        derivatives: folders, or names of folders in ``root/derivatives``, which are taken whoever
            wrote them; None takes all there but results of this package.
        only: entities that scans must have, such as ``{"acq": "3D"}``.

    Raises:
        InputError: If the folder is no data set or holds no complete visit: where there is one
            subject, with its error. Errors of a file, and two maps that claim the same place,
            appear when the study is read.

    Example:
        >>> import numpy as np
        >>> from lesionwise.io.nifti import write_volume
        >>> scan = Volume(np.eye(4)[None], Grid((1, 4, 4), np.eye(4)))
        >>> write_volume("data/sub-01/anat/sub-01_FLAIR.nii.gz", scan)
        >>> studies = read_dataset("data", scans=("flair",))
        >>> studies[0].subject, studies[0].followup.scans["flair"].grid.spacing_mm
        ('01', (1.0, 1.0, 1.0))
    """
    root = Path(root)
    if not root.is_dir():
        what = "a file, not the folder of a data set" if root.exists() else "no such folder"
        raise InputError(f"{root}: {what}")
    unknown = [name for name in scans if name not in SUFFIXES]
    if unknown or not scans:
        raise InputError(f"scans: {unknown or 'none'} given; known are {', '.join(SUFFIXES)}")
    own, errors, skipped = _own_files(root)
    if not own and not errors:
        raise InputError(f"{root}: not a BIDS data set, it has no images in sub-* folders")
    derived: dict[str, list[BidsFile]] = {subject: [] for subject in own}
    for subject, maps in _maps_beside(root, own).items():
        derived[subject] += maps
    if own and is_ours(root):
        skipped.append(_OWN_RESULTS.format(root))
    for folder in _derivative_folders(root, derivatives):
        found, misfits = survey(folder)
        if derivatives is None and is_ours(folder):
            if any(map(_is_map, found)):
                skipped.append(_OWN_RESULTS.format(folder))
            continue
        skipped += [misfit.reason for misfit in misfits if _misnamed(misfit)]
        for file in found:
            if _is_map(file):
                derived.setdefault(file.entities.sub, []).append(file)
    studies: list[_StudyFiles] = []
    for subject, files in own.items():
        try:
            visits, incomplete = _visits(root, subject, files, scans, only)
        except InputError as error:
            errors[subject] = str(error)
            continue
        skipped += incomplete
        if visits:
            studies.append(_StudyFiles(subject, tuple(visits), tuple(derived[subject])))
    if not studies:
        if errors and len(own | errors) == 1:
            raise InputError(*errors.values())
        reasons = _shortened([*errors.values(), *skipped])
        raise InputError(f"{root}: no session has {' and '.join(scans)} ({reasons})")
    return BidsStudies(root, studies, skipped, errors)


def _visits(
    root: Path,
    subject: str,
    files: Sequence[BidsFile],
    scans: Sequence[str],
    only: Mapping[str, str],
) -> tuple[list[_VisitFiles], list[str]]:
    """The complete visits of a subject in the order of time, and what the others lack."""
    visits, skipped = [], []
    sessions = {file.entities.ses for file in files if not _is_map(file)}
    for session in sorted(sessions, key=natural):
        label = f"sub-{subject}" + (f"_ses-{session}" if session else "")
        here = [file for file in files if file.entities.ses == session]
        chosen = {name: _choose(label, name, here, only) for name in scans}
        complete = {name: file for name, file in chosen.items() if file is not None}
        if len(complete) == len(chosen):
            visits.append(_VisitFiles(session, complete))
        else:
            lacking = [name for name in chosen if name not in complete]
            skipped.append(f"{label}: no {', '.join(lacking)} scan")
    names = {visit.session for visit in visits}
    order = order_visits(names, visit_times(root, subject, names) if len(names) > 1 else {})
    return sorted(visits, key=lambda visit: order.index(visit.session)), skipped


def open_dataset(
    root: str | Path, scans: Sequence[str] = ("flair",), visits: int = 1
) -> BidsStudies | NnunetStudies:
    """The studies of a data set, whether BIDS or nnU-Net raw: that has a ``dataset.json``.

    Args:
        scans: the scans every visit must have.
        visits: how many time points a case must have; in BIDS it is left to the caller.

    Raises:
        InputError: As for ``read_dataset`` and ``read_nnunet``; if the channels of an nnU-Net
            data set are not the scans, or its cases hold another number of visits.

    Example:
        >>> import numpy as np
        >>> from lesionwise.io.nifti import write_volume
        >>> scan = Volume(np.eye(4)[None], Grid((1, 4, 4), np.eye(4)))
        >>> write_volume("data/sub-01/anat/sub-01_FLAIR.nii.gz", scan)
        >>> len(open_dataset("data"))
        1
    """
    root = Path(root)
    if not (root / "dataset.json").is_file():
        return read_dataset(root, scans)
    found = read_nnunet(root)
    missing = [name for name in scans if name not in found.scans]
    if missing:
        has = ", ".join(found.scans)
        raise InputError(f"{root}: no {', '.join(missing)} among its channels ({has})")
    if found.visits != visits:
        raise InputError(f"{root}: its cases hold {found.visits} visits, but {visits} are needed")
    return found


def images_of(root: Path) -> list[Path]:
    """The images that studies of a data set may be read from, with what decides how.

    In a BIDS data set the scans of every kind that ``read_dataset`` knows, by subject and then in
    the order of visits, and the maps beside them and in ``derivatives``, without results of this
    package (``is_ours``). In an nnU-Net raw data set the training cases, and ``dataset.json``.

    Raises:
        InputError: If the folder cannot be read.

    Example:
        >>> Path("sub-01").mkdir()
        >>> for name in ("sub-01_FLAIR.nii.gz", "sub-01_bold.nii.gz"):
        ...     Path("sub-01", name).touch()
        ...
        >>> [path.name for path in images_of(Path("."))]
        ['sub-01_FLAIR.nii.gz']
    """
    if (root / "dataset.json").is_file():
        return [root / "dataset.json", *nnunet_images(root)]
    found = []
    own = _own_files(root)[0]
    beside = _maps_beside(root, own)
    for subject, files in own.items():
        used = [f for f in files if f in beside[subject] or f.entities.suffix in _SCAN_SUFFIXES]
        sessions = {file.entities.ses for file in used if not _is_map(file)}
        try:
            order = order_visits(sessions, visit_times(root, subject, sessions))
        except InputError:  # then the subject is left out, whatever its order
            order = order_visits(sessions, {})
        place = {session: number for number, session in enumerate(order)}
        found += sorted(used, key=lambda file: place.get(file.entities.ses, -1))
    for folder in _derivative_folders(root, None):
        if not is_ours(folder):
            found += [file for file in survey(folder)[0] if _is_map(file)]
    return [file.path for file in found]


_OWN_RESULTS = "{}: results of lesionwise are not taken as references"


def _maps_beside(
    root: Path, own: Mapping[str, Sequence[BidsFile]]
) -> dict[str, tuple[BidsFile, ...]]:
    """The maps of each subject that lie beside its scans; none in a folder of results."""
    passed = is_ours(root)
    return {
        subject: () if passed else tuple(file for file in files if _is_map(file))
        for subject, files in own.items()
    }


def is_ours(folder: Path) -> bool:
    """Whether a command of this package wrote its results into the folder before.

    Example:
        >>> from lesionwise.io.bids import write_dataset_description
        >>> is_ours(Path("."))
        False
        >>> write_dataset_description(Path("."), "lesionwise segment")
        >>> is_ours(Path("."))
        True
    """
    try:
        about = read_checked(folder / "dataset_description.json", dict[str, Any])
    except InputError:
        return False
    makers = about.get("GeneratedBy")
    by_us = isinstance(makers, list) and any(
        isinstance(maker, dict) and maker.get("Name") == "lesionwise" for maker in makers
    )
    named = str(about.get("Name", "")).startswith("lesionwise ")
    return by_us and named and about.get("DatasetType") == "derivative"


def _own_files(root: Path) -> tuple[dict[str, list[BidsFile]], dict[str, str], list[str]]:
    """Files and errors by subject, in the order of names, and what else was passed over."""
    with reading(root):
        places = [p for p in root.iterdir() if p.name.startswith("sub-") and p.is_dir()]
    found: dict[str, list[BidsFile]] = {}
    errors: dict[str, str] = {}
    skipped: list[str] = []
    for place in sorted(places, key=lambda p: natural(p.name)):
        subject = place.name.removeprefix("sub-")
        try:
            files, misfits = survey(root, subject=subject)
        except InputError as error:
            errors[subject] = str(error)
            continue
        misnamed = [misfit.reason for misfit in misfits if _misnamed(misfit)]
        if misnamed:
            errors[subject] = misnamed[0]
        elif files:
            found[subject] = files
            skipped += [misfit.reason for misfit in misfits]
        elif misfits:
            errors[subject] = misfits[0].reason
    return found, errors, skipped


def _misnamed(misfit: Misfit) -> bool:
    """Whether it has a BIDS name, of another subject or session than its folder."""
    return parse_name(misfit.path) is not None


def _is_map(file: BidsFile) -> bool:
    return file.entities.suffix in ("mask", "dseg", "probseg")


def _shortened(phrases: Sequence[str]) -> str:
    if not phrases:
        return "no scans at all"
    return "; ".join(phrases[:3]) + ("; …" if len(phrases) > 3 else "")


def _derivative_folders(root: Path, wanted: Sequence[str | Path] | None) -> Iterator[Path]:
    if wanted is None:
        folder = root / "derivatives"
        if folder.is_dir():
            yield from sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
        return
    for name in wanted:
        inside = root / "derivatives" / name
        folder = inside if inside.is_dir() else Path(name)
        if not folder.is_dir():
            raise InputError(
                f"{name}: neither a folder nor the name of one in {root / 'derivatives'}"
            )
        yield folder


def _choose(
    visit: str, name: str, files: Sequence[BidsFile], only: Mapping[str, str]
) -> BidsFile | None:
    found = [
        file
        for file in files
        if file.entities.suffix in {SUFFIXES[name], "PD" if name == "pd" else SUFFIXES[name]}
        and bool(file.entities.ce) == (name == "t1ce")
        and dict(file.entities.other).get("part") != "phase"
        and only.items() <= file.entities.pairs().items()
    ]
    if len(found) < 2:
        return found[0] if found else None
    fewest = min(len(file.entities.pairs()) for file in found)
    found = [file for file in found if len(file.entities.pairs()) == fewest]
    alike = {replace(file.entities, run="", extension="") for file in found}
    last = max(natural(file.entities.run) for file in found)
    found = found if len(alike) > 1 else [f for f in found if natural(f.entities.run) == last]
    if len(found) > 1:
        names = " and ".join(file.path.name for file in found[:2])
        raise InputError(f"{visit}: more than one {name} scan ({names}); name one of them")
    return found[0]


def _load(files: _StudyFiles) -> Study:
    visits = []
    changes: dict[str, Volume] = {}
    claimed: dict[tuple[str, str], Path] = {}
    last = files.visits[-1].session
    for visit in files.visits:
        scans = {name: read_volume(file.path) for name, file in visit.scans.items()}
        first = next(iter(visit.scans.values()))
        grid = next(iter(scans.values())).grid
        labels: dict[str, Volume] = {}
        brain = None
        for file in files.derived:
            kind = _kind(file, len(files.visits))
            if kind is None or file.entities.ses not in ("", visit.session):
                continue
            is_change = kind.startswith("change:")
            if is_change and file.entities.ses == "" and visit.session != last:
                continue
            if not _belongs(file, first, grid):
                continue
            place = (visit.session, kind)
            if place in claimed:
                raise InputError(
                    f"{file.path}: {claimed[place]} has the name of the same map; "
                    "move one of the two out of the data set"
                )
            claimed[place] = file.path
            reader = read_mask if file.entities.suffix == "mask" else read_labels
            volume = on_grid(reader(file.path), grid, name=str(file.path))
            if kind == "brain":
                brain = volume
            elif is_change:
                name = kind.removeprefix("change:")
                changes[name if visit.session == last else f"{name}@{visit.session}"] = volume
            else:
                labels[kind] = volume
        visits.append(Visit(scans, _with_main_instances(labels), brain, visit.session))
    return Study(files.subject, tuple(visits), changes)


def _kind(file: BidsFile, visits: int) -> str | None:
    """What a map is to a study; None where it is nothing that a study holds."""
    entities = file.entities
    desc, is_mask = entities.desc, entities.suffix == "mask"
    if visits > 1 and desc.startswith("newrater") and len(desc) > len("newrater"):
        return f"change:new-rater-{desc.removeprefix('newrater')}"
    if visits > 1 and (desc in CHANGES or (desc and not entities.ses and desc != "brain")):
        return f"change:{desc}"
    if is_mask and desc == "brain":
        return "brain"
    if is_mask and entities.label in ("L", "lesion"):
        if not desc:
            return "lesions"
        if desc.startswith("rater") and len(desc) > len("rater"):
            return f"rater-{desc.removeprefix('rater')}"
        return desc if desc == "consensus" else None
    if entities.suffix == "dseg" and not desc:
        return f"instances-{entities.seg}" if entities.seg else "tissue"
    return None


def _belongs(file: BidsFile, scan: BidsFile, grid: Grid) -> bool:
    verdict = same_space(read_grid(file.path), grid)
    if verdict.same:
        return True
    own_space = file.entities.space in ("", "orig", scan.entities.space) and not file.entities.res
    if own_space and file.entities.ses == scan.entities.ses:
        raise InputError(f"{file.path}: not on the grid of {scan.path.name}: {verdict.reason}")
    return False


def _with_main_instances(labels: dict[str, Volume]) -> dict[str, Volume]:
    separate = [name for name in labels if name.startswith("instances-")]
    if "instances-truth" in labels:
        labels["instances"] = labels["instances-truth"]
    elif len(separate) == 1:
        labels["instances"] = labels[separate[0]]
    if len(separate) == 1:
        del labels[separate[0]]
    return labels
