"""Which prediction belongs to which reference, by the names of the files.

In folders, files of NIfTI type are found at any depth, and hidden ones are skipped. Names
that hold ``sub-`` are paired by subject and session (BIDS). All others are paired by their
path below the folder, without extension and without words that say what a file is (mask, seg,
pred, gt …) at the start or end of the name, so that ``case01_gt.nii.gz`` meets
``case01_pred.nii.gz`` and ``case01/mask.nii.gz`` meets ``case01.nii.gz``. Where that would give
two files of one folder the same name, these keep their words.

Where one subject and session has several files, label files (``_mask``, ``_dseg``) go before
others, lesion labels (``label-L``, ``seg-…``) before others, files without ``desc-`` before
others, and instance maps before masks. Files that still tie are a fault, since either could
be meant.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from lesionwise.io.nifti import is_nifti_name
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
OTHER_LABELS = re.compile(r"(label-(?!L\b|L_)|desc-(brain|tissue))")
_ENTITY = re.compile(r"(?:^|_)(sub|ses)-([a-zA-Z0-9]+)")


@dataclass(frozen=True)
class Pairs:
    """The references found, in order, and the prediction of each.

    Attributes:
        files: by case: reference and prediction.
        faults: by case: one line about what is missing or ambiguous.
    """

    files: dict[str, tuple[Path, Path]]
    faults: dict[str, str] = field(default_factory=dict)


def pair_files(reference: Path, prediction: Path, kind: Kind = "auto") -> Pairs:
    """Pair two files, or the files of two folders.

    A path whose last part holds ``*`` or ``?`` stands for the files of the folder before it
    whose names match, as in ``out/*seg-acls*``.

    Raises:
        InputError: If a path is missing, if one is a file and the other a folder, if a folder
            has no label file, or if nothing matches.
    """
    (ref_root, ref_files), (pred_root, pred_files) = _listed(reference), _listed(prediction)
    if reference.is_file() and prediction.is_file():
        return Pairs({_file_case(reference): (reference, prediction)})
    if reference.is_file() or prediction.is_file():
        file, folder = sorted((reference, prediction), key=Path.is_dir)
        raise InputError(f"{file}: is a file, but {folder} is a folder; give two of one kind")
    references = _by_case(ref_root, ref_files, kind)
    predictions = _by_case(pred_root, pred_files, kind)
    pairs = Pairs({})
    for case in sorted(references):
        found, wanted = references[case], predictions.get(case, [])
        if len(found) > 1:
            pairs.faults[case] = f"{case}: several references: {_names(found)}"
        elif not wanted:
            pairs.faults[case] = f"{case}: {prediction} has no prediction for {found[0].name}"
        elif len(wanted) > 1:
            pairs.faults[case] = f"{case}: several predictions in {prediction}: {_names(wanted)}"
        else:
            pairs.files[case] = (found[0], wanted[0])
    for case in sorted(set(predictions) - set(references)):
        name = _names(predictions[case])
        pairs.faults[case] = f"{case}: {reference} has no reference for {name}"
    if not pairs.files:
        example = next(iter(pairs.faults.values()))
        raise InputError(f"{prediction}: nothing in it pairs with {reference} ({example})")
    return pairs


def bare_name(path: Path) -> str:
    """A file's name without extension and without words that say what it is; may be empty."""
    parts = re.split(r"([_\-. ]+)", stem(path))
    while parts and (parts[0].lower() in WORDS or not parts[0].strip("_-. ")):
        parts.pop(0)
    while parts and (parts[-1].lower() in WORDS or not parts[-1].strip("_-. ")):
        parts.pop()
    return "".join(parts)


def _file_case(path: Path) -> str:
    return bids_case(path) or bare_name(path) or path.absolute().parent.name


def stem(path: Path) -> str:
    """A file's name without .nii or .nii.gz."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def bids_case(path: Path) -> str:
    """``sub-01`` or ``sub-01_ses-02`` where the name holds them, else empty."""
    entities = dict(_ENTITY.findall(stem(path)))
    if "sub" not in entities:
        return ""
    return "_".join(f"{name}-{entities[name]}" for name in ("sub", "ses") if name in entities)


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


def _plain_name(path: Path) -> str:
    """The last part of a path without extension and without the signs of a pattern."""
    return re.sub(r"[*?]", "", stem(path)).strip("_-.") or stem(path)


def _listed(path: Path) -> tuple[Path, list[Path]]:
    """The folder a path names and the NIfTI files below it."""
    root, pattern = path, "*"
    signs = [number for number, part in enumerate(path.parts) if _has_sign(part)]
    if signs and not path.exists():
        root, pattern = Path(*path.parts[: signs[0]]), "/".join(path.parts[signs[0] :])
    if root.is_file():
        return root.parent, [root]
    if not root.is_dir():
        raise InputError(f"{root}: no such file or folder")
    try:
        named = sorted(set(root.rglob(pattern)))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    files = [
        file
        for file in named
        if file.is_file() and is_nifti_name(file) and not _hidden(file.relative_to(root))
    ]
    if not files:
        raise InputError(f"{path}: holds no .nii or .nii.gz file")
    return root, files


def _has_sign(part: str) -> bool:
    return "*" in part or "?" in part


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _by_case(root: Path, files: list[Path], kind: Kind) -> dict[str, list[Path]]:
    cases: dict[str, list[Path]] = {}
    for file in files:
        name = bids_case(file) or (file.relative_to(root).parent / stem(file)).as_posix()
        cases.setdefault(name, []).append(file)
    short = {case: _short_name(case, found[0], root) for case, found in cases.items()}
    taken = Counter(short.values())
    return {
        short[case] if taken[short[case]] == 1 else case: _preferred(found, kind)
        for case, found in cases.items()
    }


def _short_name(case: str, file: Path, root: Path) -> str:
    """A case's name without telling words; the name itself for BIDS or where nothing is left."""
    if bids_case(file):
        return case
    short = (file.relative_to(root).parent / bare_name(file)).as_posix()
    return case if short == "." else short


def _preferred(files: list[Path], kind: Kind) -> list[Path]:
    order: list[Callable[[str], bool]] = [
        lambda name: name.endswith(("_mask", "_dseg")),
        lambda name: not OTHER_LABELS.search(name),
        lambda name: "label-L" in name or "_seg-" in name,
        lambda name: "desc-" not in name,
        lambda name: name.endswith("_mask" if kind == "mask" else "_dseg"),
    ]
    for better in order:
        if len(files) > 1:
            files = [file for file in files if better(stem(file))] or files
    return files


def _names(files: list[Path]) -> str:
    return ", ".join(file.name for file in files)
