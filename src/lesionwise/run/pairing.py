"""Which prediction belongs to which reference, by the names of the files.

In folders, NIfTI files are found at any depth. Hidden ones are skipped, and so are the consensus
masks that an evaluation wrote, unless their folder or that of the evaluation is named. Names with
``sub-``, in the file or in its folders, are compared entity by entity (BIDS). All other names are
compared as paths below the folder, without extension and without words that say what a file is
(mask, seg, pred, gt …) at the start or end of the name: ``case01_gt.nii.gz`` pairs with
``case01_pred.nii.gz``, and ``case01/mask.nii.gz`` with ``case01.nii.gz``. Where two files of one
folder would get the same name that way, they keep these words.

BIDS names pair when all entities agree except those that describe the label file itself
(``DESCRIPTIVE``). If one side states an entity that the other does not, such as ``acq-3D``, the
two still pair, with a note, provided that each is the only candidate of the other. Entities that
differ never pair, and neither do two names of which each states an entity of the scan that the
other does not, such as ``rec-a`` and ``ce-GD``: those are two scans.

Where one case has several files, label files (``_mask``, ``_dseg``) go before others, lesion
labels (``label-L``, ``seg-…``) before others, files without ``desc-`` before others, and instance
maps before masks. Of several instance maps of lesionwise the main one is taken. Files that still
tie are an error, since either could be meant.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from lesionwise.io.files import read_json
from lesionwise.io.names import ORDER
from lesionwise.io.nifti import is_nifti_name
from lesionwise.results.names import CONSENSUS, EVALUATION
from lesionwise.types import InputError

Kind: TypeAlias = Literal["auto", "mask", "instances"]

WORDS = frozenset(
    [
        *("mask", "masks", "seg", "segs", "segmentation", "dseg", "label", "labels"),
        *("lesion", "lesions", "instance", "instances", "pred", "preds", "prediction"),
        *("predicted", "ref", "reference", "gt", "truth", "groundtruth", "manual", "consensus"),
        *("auto", "result", "output"),
    ]
)
"""Words that say that a file holds labels, in lower case."""

SCANS = frozenset(
    [
        *("flair", "t2flair", "t1", "t1w", "t2", "t2w", "pd", "pdw", "t1ce", "t1c", "t2starw"),
        *("unit1", "mp2rage", "swi", "gre", "dwi", "dir", "bold", "asl", "t1map", "t2map"),
        *("probseg", "image", "img", "brain"),
    ]
)
"""Words that say that a file holds a scan or a map, in lower case."""

DESCRIPTIVE = frozenset(("space", "seg", "res", "den", "label", "desc"))
"""BIDS entities that describe a label file, not the scan it belongs to."""

OF_A_SCAN = frozenset(ORDER) - DESCRIPTIVE
"""BIDS entities that tell one scan from another."""

NUMBERED = frozenset(("run", "echo", "flip", "inv", "split", "chunk"))
"""BIDS entities whose values are whole numbers: ``run-1`` and ``run-01`` are the same."""

OTHER_LABELS = re.compile(r"(label-(?!L\b|L_)|desc-(brain|tissue))")
OF_CONSENSUS = re.compile(r"_desc-(majority|staple)_label-L_mask$")
"""Behind the name of a case in that of its consensus mask."""
MAX_NAMED = 4
"""Unpaired files named in an error message; the others are counted."""


@dataclass(frozen=True)
class Case:
    """What a file name says about the scan that the file belongs to.

    Attributes:
        entities: BIDS entities and values, without ``DESCRIPTIVE`` ones, in BIDS order; empty
            for names that are not BIDS.
        words: parts of the name that are neither entities nor known words, such as a site or
            a tool.
        path: for names that are not BIDS: the path below the folder.
    """

    entities: tuple[tuple[str, str], ...] = ()
    words: tuple[str, ...] = ()
    path: str = ""

    @property
    def name(self) -> str:
        """``sub-01_ses-02_run-1``, or the path of a name that is not BIDS."""
        if not self.entities:
            return self.path
        return "_".join([*(f"{key}-{value}" for key, value in self.entities), *self.words])

    @property
    def subject(self) -> str:
        """``sub-01`` for BIDS names, else empty."""
        return next((f"sub-{value}" for key, value in self.entities if key == "sub"), "")

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for names of the same scan, however its run number is padded."""
        entities = frozenset((key, _number(key, value)) for key, value in self.entities)
        return (entities, self.words, self.path)

    def may_be(self, other: Case) -> bool:
        """Same subject and session, and nothing stated on both sides differs."""
        if not self.entities or not other.entities:
            return False
        own, others = dict(self.entities), dict(other.entities)
        same = all(own.get(key) == others.get(key) for key in ("sub", "ses"))
        shared = own.keys() & others.keys()
        agree = all(_number(key, own[key]) == _number(key, others[key]) for key in shared)
        words = not self.words or not other.words or self.words == other.words
        return same and agree and words

    def is_another(self, other: Case) -> bool:
        """Whether each of the two states an entity of the scan that the other does not."""
        own, others = (
            {key for key, _ in case.entities if key in OF_A_SCAN} for case in (self, other)
        )
        return bool(own - others) and bool(others - own)

    def beyond(self, other: Case) -> str:
        """What this name states and the other does not, such as ``acq-3D``."""
        known = {key for key, _ in other.entities}
        stated = [f"{key}-{value}" for key, value in self.entities if key not in known]
        return "_".join([*stated, *(() if other.words else self.words)])


@dataclass(frozen=True)
class Pairs:
    """The references found, in order, and the prediction of each.

    Attributes:
        files: by case: reference and prediction.
        errors: by case: one line about what is missing or ambiguous.
        notes: by case: one line about a pair that needed a decision.
        subjects: by case: ``sub-01`` for BIDS names; others are missing.
    """

    files: dict[str, tuple[Path, Path]]
    errors: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    subjects: dict[str, str] = field(default_factory=dict)


def pair_files(
    reference: Path, prediction: Path, kind: Kind = "auto", output: Path | None = None
) -> Pairs:
    """Pair two files, or the files of two folders.

    A path whose last part holds ``*`` or ``?`` stands for the files of the folder before it
    whose names match, as in ``out/*seg-acls*``. Two files are a pair whatever their names; a
    note says where these contradict each other.

    Args:
        output: where results of this call go; consensus masks in it are not searched.

    Raises:
        InputError: If a path is missing, if one is a file and the other a folder, if a folder
            has no label file, or if nothing matches.
    """
    ref_root, ref_files = _listed(reference, output)
    pred_root, pred_files = _listed(prediction, output)
    if reference.is_file() and prediction.is_file():
        return _two_files(reference, prediction)
    if reference.is_file() or prediction.is_file():
        file, folder = sorted((reference, prediction), key=Path.is_dir)
        raise InputError(
            f"{file}: is a file, but {folder} is a folder; give two files or two folders"
        )
    pairs = Pairs({})
    references = _by_case(ref_root, ref_files, kind, pairs.errors)
    predictions = _by_case(pred_root, pred_files, kind, pairs.errors)
    same = {case.key: case for case in predictions}
    partners = {case: same[case.key] for case in references if case.key in same}
    partners |= _only_candidates(references, predictions, partners)
    for case in sorted(references, key=lambda case: case.name):
        partner = partners.get(case)
        _add_pair(pairs, case, partner, references, predictions, prediction)
    for case in sorted(set(predictions) - set(partners.values()), key=lambda case: case.name):
        error = f"{case.name}: {reference} has no reference for {_names(predictions[case])}"
        pairs.errors.setdefault(case.name, error + _alternatives(case, references))
    if not pairs.files:
        errors = list(pairs.errors.values())
        more = f"; and {len(errors) - MAX_NAMED} more" if len(errors) > MAX_NAMED else ""
        listed = "; ".join(errors[:MAX_NAMED])
        raise InputError(f"{prediction}: nothing in it pairs with {reference} ({listed}{more})")
    return pairs


def case_of(path: Path, root: Path | None = None) -> Case | None:
    """The case that a BIDS name states; None for names without ``sub-``.

    Values may hold ``_`` and ``-`` although BIDS forbids it, as in ``sub-MS_001_mask``: a part
    with a digit and without a key belongs to the value before it.

    Args:
        root: folders between it and the file may state ``sub-`` and ``ses-`` too.

    Raises:
        InputError: If the folders and the file name state different subjects or sessions.
    """
    entities: dict[str, str] = {}
    words: list[str] = []
    last = ""
    for part in stem(path).split("_"):
        keyed = re.fullmatch(r"([a-z]+)-(.+)", part)
        if keyed:
            last = keyed[1]
            entities.setdefault(last, keyed[2])
        elif part.lower() in WORDS | SCANS or not part:
            continue
        elif last and re.search(r"\d", part):
            entities[last] += f"_{part}"
        else:
            words.append(part)
    for folder in path.relative_to(root).parts[:-1] if root is not None else ():
        stated = re.fullmatch(r"(sub|ses)-(.+)", folder)
        if stated and entities.setdefault(stated[1], stated[2]) != stated[2]:
            raise InputError(
                f"{path}: the folder says {folder}, the file {stated[1]}-{entities[stated[1]]}"
            )
    if "sub" not in entities:
        return None
    rank = {key: place for place, key in enumerate(ORDER)}
    kept = [(key, value) for key, value in entities.items() if key not in DESCRIPTIVE]
    kept.sort(key=lambda item: rank.get(item[0], len(ORDER)))
    return Case(tuple(kept), tuple(words))


def bare_name(path: Path) -> str:
    """A file's name without extension and without words that say what it is; may be empty."""
    parts = re.split(r"([_\-. ]+)", OF_CONSENSUS.sub("", stem(path)))
    while parts and (parts[0].lower() in WORDS or not parts[0].strip("_-. ")):
        parts.pop(0)
    while parts and (parts[-1].lower() in WORDS or not parts[-1].strip("_-. ")):
        parts.pop()
    return "".join(parts)


def stem(path: Path) -> str:
    """A file's name without .nii or .nii.gz."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def method_names(predictions: Iterable[Path]) -> dict[str, Path]:
    """A short name for each prediction: the last parts of its path that tell it from the others.

    Raises:
        InputError: If a prediction is given twice.
    """
    paths = list(predictions)
    parts = [
        [*(part for part in path.absolute().parts[1:-1] if not _has_sign(part)), _plain_name(path)]
        for path in paths
    ]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return dict(zip(names, paths, strict=True))
    twice = next(path for path in paths if paths.count(path) > 1)
    raise InputError(f"{twice}: given twice")


def listed_files(path: Path) -> list[Path]:
    """The NIfTI files that a file, a folder or a pattern names, sorted.

    Raises:
        InputError: If there are none.
    """
    return _listed(path)[1]


def label_cases(folder: Path, files: Sequence[Path]) -> tuple[dict[str, Path], dict[str, str]]:
    """The lesion mask of each case of a folder, and one line of error by case or file.

    Args:
        files: those of the folder that count.
    """
    errors: dict[str, str] = {}
    cases: dict[str, Path] = {}
    for case, found in _by_case(folder, list(files), "mask", errors).items():
        if len(found) > 1:
            errors[case.name] = f"{case.name}: several maps in {folder}: {_names(found)}"
        else:
            cases[case.name] = found[0]
    return cases, errors


def named_differently(one: Path, other: Path) -> bool:
    """Whether BIDS names of two files state different subjects or sessions."""
    cases = [case_of(path) for path in (one, other)]
    first, second = (dict(case.entities) if case else {} for case in cases)
    return any(first[key] != second[key] for key in ("sub", "ses") if key in first.keys() & second)


def _two_files(reference: Path, prediction: Path) -> Pairs:
    case, other = case_of(reference), case_of(prediction)
    name = case.name if case else bare_name(reference) or reference.absolute().parent.name
    pairs = Pairs({name: (reference, prediction)}, subjects={name: case.subject} if case else {})
    if case and other and not case.may_be(other):
        pairs.notes[name] = (
            f"{prediction.name}: is named {other.name}, its reference {case.name}; "
            "scored as the two files were given"
        )
    return pairs


def _only_candidates(
    references: Iterable[Case], predictions: Iterable[Case], partners: Mapping[Case, Case]
) -> dict[Case, Case]:
    """Pairs that are not named alike, each the only candidate of the other."""
    left = [case for case in references if case not in partners]
    taken = set(partners.values())
    free = [case for case in predictions if case not in taken]
    candidates = {
        case: [other for other in free if case.may_be(other) and not case.is_another(other)]
        for case in left
    }
    wanted = Counter(other for found in candidates.values() for other in found)
    return {
        case: found[0]
        for case, found in candidates.items()
        if len(found) == 1 and wanted[found[0]] == 1
    }


def _add_pair(
    pairs: Pairs,
    case: Case,
    partner: Case | None,
    references: Mapping[Case, Sequence[Path]],
    predictions: Mapping[Case, Sequence[Path]],
    folder: Path,
) -> None:
    """Add what becomes of one reference: a pair or an error."""
    name, found = case.name, references[case]
    wanted = predictions[partner] if partner else ()
    if len(found) > 1:
        pairs.errors[name] = f"{name}: several references: {_names(found)}"
    elif not wanted:
        error = f"{name}: {folder} has no prediction for {found[0].name}"
        pairs.errors[name] = error + _alternatives(case, predictions)
    elif len(wanted) > 1:
        pairs.errors[name] = f"{name}: several predictions in {folder}: {_names(wanted)}"
    else:
        pairs.files[name] = (found[0], wanted[0])
        if case.subject:
            pairs.subjects[name] = case.subject
        if partner and partner.key != case.key:
            stated = " and ".join(filter(None, (partner.beyond(case), case.beyond(partner))))
            pairs.notes[name] = (
                f"{wanted[0].name}: paired with {found[0].name}, "
                f"although only one of the two says {stated}"
            )


def _alternatives(case: Case, others: Mapping[Case, Sequence[Path]]) -> str:
    """The files of the same subject and session, which do not fit."""
    own = dict(case.entities)
    near = [
        file.name
        for other, files in others.items()
        for file in files
        if case.entities
        and all(own.get(key) == dict(other.entities).get(key) for key in ("sub", "ses"))
    ]
    return f" (there is {', '.join(sorted(near)[:MAX_NAMED])})" if near else ""


def _plain_name(path: Path) -> str:
    """The last part of a path without extension and without the signs of a pattern."""
    return re.sub(r"[*?]", "", stem(path)).strip("_-.") or stem(path)


def _listed(path: Path, output: Path | None = None) -> tuple[Path, list[Path]]:
    """The folder a path names and the NIfTI files below it, without those of evaluations."""
    root, pattern = path, ""
    signs = [number for number, part in enumerate(path.parts) if _has_sign(part)]
    if signs and not path.exists():
        root, pattern = Path(*path.parts[: signs[0]]), "/".join(path.parts[signs[0] :])
    if root.is_file():
        return root.parent, [root]
    if not root.is_dir():
        raise InputError(f"{root}: no such file or folder")
    try:
        named = sorted(set(root.rglob(pattern) if pattern else _below(root)))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    found = [
        file
        for file in named
        if file.is_file() and is_nifti_name(file) and not _hidden(file.relative_to(root))
    ]
    files = [file for file in found if not _is_consensus(file, root, output)]
    if not files:
        but = " but the consensus of an evaluation" if found else ""
        raise InputError(f"{path}: holds no .nii or .nii.gz file{but}")
    return root, files


def _is_consensus(file: Path, root: Path, output: Path | None) -> bool:
    """Whether an evaluation below the folder that was named, or this one, wrote the file."""
    above = file.relative_to(root).parts[:-1]
    for depth, name in enumerate(above):
        place = root.joinpath(*above[:depth])
        if name == CONSENSUS and (
            (depth > 0 and (place / EVALUATION).is_file())
            or (output is not None and os.path.realpath(place) == os.path.realpath(output))
        ):
            return True
    return False


def _below(root: Path) -> Iterator[Path]:
    """All files below a folder, also in linked folders; a link to a folder above it ends there."""
    outside = {str(folder) for folder in Path(os.path.realpath(root)).parents}
    for folder, inner, files in os.walk(root, followlinks=True):
        place = Path(folder)
        above = place.relative_to(root).parts
        reached = {os.path.realpath(root.joinpath(*above[:n])) for n in range(len(above))}
        if os.path.realpath(place) in reached | outside:
            inner.clear()
            continue
        yield from (place / name for name in files)


def _has_sign(part: str) -> bool:
    return "*" in part or "?" in part


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _by_case(
    root: Path, files: list[Path], kind: Kind, errors: dict[str, str]
) -> dict[Case, list[Path]]:
    """The files of each case, without scans and other labels that lie among them."""
    bids: dict[tuple[object, ...], tuple[Case, list[Path]]] = {}
    named: dict[str, list[Path]] = {}
    for file in label_files(files):
        try:
            case = case_of(file, root)
        except InputError as error:
            errors[file.relative_to(root).as_posix()] = str(error)
            continue
        if case:
            bids.setdefault(case.key, (case, []))[1].append(file)
        else:
            path = (file.relative_to(root).parent / stem(file)).as_posix()
            named.setdefault(path, []).append(file)
    short = {path: _short_name(path, found[0], root) for path, found in named.items()}
    taken = Counter(short.values())
    cases = dict(bids.values())
    for path, found in named.items():
        cases[Case(path=short[path] if taken[short[path]] == 1 else path)] = found
    return {case: _preferred(found, kind) for case, found in cases.items()}


def label_files(files: list[Path]) -> list[Path]:
    """The files that may hold lesions; all of them if no name says so."""
    scans = [file for file in files if stem(file).rsplit("_", 1)[-1].lower() in SCANS]
    labels = [file for file in files if file not in set(scans)] or files
    return [file for file in labels if not OTHER_LABELS.search(stem(file))] or labels


def _short_name(path: str, file: Path, root: Path) -> str:
    """A path without words that say what a file is; the path itself where nothing is left."""
    short = (file.relative_to(root).parent / bare_name(file)).as_posix()
    return path if short == "." else short


def _preferred(files: list[Path], kind: Kind) -> list[Path]:
    order: list[Callable[[str], bool]] = [
        lambda name: name.endswith(("_mask", "_dseg")),
        lambda name: "label-L" in name or "_seg-" in name,
        lambda name: "desc-" not in name,
        lambda name: name.endswith("_mask" if kind == "mask" else "_dseg"),
    ]
    masks = [file for file in files if stem(file).endswith("_label-L_mask")]
    for better in order:
        if len(files) > 1:
            files = [file for file in files if better(stem(file))] or files
    main = _main_method(masks) if len(files) > 1 else ""
    return [file for file in files if f"_seg-{main}_" in stem(file)] or files if main else files


def _main_method(masks: Sequence[Path]) -> str:
    """The main separation method of a scan's results, from the sidecar of its lesion mask."""
    for mask in masks:
        sidecar = mask.with_name(f"{stem(mask)}.json")
        # os.path: a name that is too long is no file
        stated = read_json(sidecar) if os.path.isfile(sidecar) else None
        methods = stated.get("Methods") if isinstance(stated, dict) else None
        if isinstance(methods, list) and methods:
            return str(methods[0])
    return ""


def _number(key: str, value: str) -> str:
    return value.lstrip("0") or "0" if key in NUMBERED and value.isdigit() else value


def _names(files: Sequence[Path]) -> str:
    return ", ".join(file.name for file in files)
