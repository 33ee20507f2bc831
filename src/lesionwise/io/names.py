"""BIDS names: read, composed and found."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lesionwise.types import InputError

ORDER = (
    "sub", "tpl", "ses", "sample", "task", "acq", "ce", "trc", "stain", "rec", "dir", "run", "mod",
    "echo", "flip", "inv", "mt", "part", "proc", "hemi", "space", "split", "chunk", "seg", "res",
    "den", "label", "desc",
)  # fmt: skip
"""Entities in the order in which BIDS writes them; others follow, as they were met."""

EXTENSIONS = (".nii.gz", ".nii", ".json", ".tsv", ".bval", ".bvec", ".txt", ".html")

_NAME = re.compile(r"[A-Za-z0-9]+-[A-Za-z0-9+.]+")


@dataclass(frozen=True)
class Entities:
    """What a BIDS name says; empty text where it says nothing.

    Attributes:
        sub, ses, acq, ce, rec, run, space, seg, res, label, desc: values without their keys.
        suffix: what the file holds: FLAIR, T1w, mask, dseg …
        extension: with its dot.
        other: all remaining entities as (key, value), in the order of the name.
    """

    sub: str = ""
    ses: str = ""
    acq: str = ""
    ce: str = ""
    rec: str = ""
    run: str = ""
    space: str = ""
    seg: str = ""
    res: str = ""
    label: str = ""
    desc: str = ""
    suffix: str = ""
    extension: str = ""
    other: tuple[tuple[str, str], ...] = ()

    def pairs(self) -> dict[str, str]:
        """All stated entities by key, in the order in which BIDS writes them."""
        stated = {key: getattr(self, key) for key in _FIELDS if getattr(self, key)}
        stated.update(self.other)
        rank = {key: place for place, key in enumerate(ORDER)}
        return dict(sorted(stated.items(), key=lambda item: rank.get(item[0], len(ORDER))))

    @property
    def name(self) -> str:
        """The file name."""
        parts = [f"{key}-{value}" for key, value in self.pairs().items()]
        return "_".join([*parts, self.suffix] if self.suffix else parts) + self.extension


_FIELDS = ("sub", "ses", "acq", "ce", "rec", "run", "space", "seg", "res", "label", "desc")


def parse_name(path: str | Path) -> Entities | None:
    """The entities of a file name, or None where it does not follow BIDS.

    A name follows BIDS if it is made of key-value pairs joined by underscores, the first being
    ``sub`` with a value, with an optional suffix and extension behind them.
    """
    name = Path(path).name
    extension = next((e for e in EXTENSIONS if name.lower().endswith(e)), Path(name).suffix)
    stem = name[: len(name) - len(extension)]
    extension = name[len(stem) :]
    parts = stem.split("_")
    suffix = "" if "-" in parts[-1] else parts.pop()
    if not parts or not all(_NAME.fullmatch(part) for part in parts):
        return None
    stated: dict[str, str] = dict(part.split("-", 1) for part in parts)
    if len(stated) < len(parts) or not parts[0].startswith("sub-"):
        return None
    known = {key: stated.pop(key) for key in _FIELDS if key in stated}
    return Entities(**known, suffix=suffix, extension=extension, other=tuple(stated.items()))


def label_text(text: str) -> str:
    """The text as a BIDS value: letters and digits only; ``x`` where nothing is left."""
    return re.sub(r"[^A-Za-z0-9]", "", text) or "x"


def derivative_name(
    source: Entities, suffix: str, extension: str = ".nii.gz", **stated: str
) -> str:
    """The name of a result that was made from a scan.

    What tells the scan from its neighbors (subject, session, acquisition, contrast agent, run …)
    is kept; ``space`` is ``orig``, the scan's own grid, unless stated. For example
    ``sub-01_ses-M12_space-orig_label-L_mask.nii.gz``.

    Args:
        suffix: mask, probseg, dseg …
        stated: entities to set; an empty value removes one.

    Raises:
        ValueError: If a value is not made of letters and digits.
    """
    return _derived(source, suffix, extension, stated).name


def derivative_path(
    root: str | Path, source: Entities, suffix: str, extension: str = ".nii.gz", **stated: str
) -> Path:
    """Where a result belongs: ``root/sub-…/[ses-…/]anat/`` and its ``derivative_name``."""
    derived = _derived(source, suffix, extension, stated)
    folder = Path(root) / f"sub-{derived.sub}"
    if derived.ses:
        folder /= f"ses-{derived.ses}"
    return folder / "anat" / derived.name


def _derived(source: Entities, suffix: str, extension: str, stated: dict[str, str]) -> Entities:
    changes: dict[str, Any] = {"space": source.space or "orig", "seg": "", "label": "", "desc": ""}
    changes.update(stated)
    for key, value in changes.items():
        if value and not re.fullmatch(r"[A-Za-z0-9+]+", value):
            raise ValueError(f"{key}-{value}: a BIDS value has only letters and digits")
    other = {key: value for key, value in changes.items() if key not in _FIELDS and value}
    known = {key: value for key, value in changes.items() if key in _FIELDS}
    kept = tuple((key, value) for key, value in source.other if key not in changes)
    return replace(
        source, suffix=suffix, extension=extension, other=(*kept, *other.items()), **known
    )


@dataclass(frozen=True)
class BidsFile:
    """A file with a BIDS name."""

    path: Path
    entities: Entities


def walk(
    root: Path, extensions: tuple[str, ...] = (".nii", ".nii.gz"), subject: str = ""
) -> Iterator[BidsFile]:
    """Every file with a BIDS name in the subject folders of a data set, in the order of names.

    Hidden files and folders are passed over, and so are everything outside ``sub-*`` and what the
    data set's ``.bidsignore`` names (patterns as in ``.gitignore``, without exceptions).

    Args:
        subject: the only one whose folder is read, without ``sub-``; all if empty.

    Raises:
        InputError: If a file's name and its folder name different subjects or sessions.
    """
    try:
        found = [root / f"sub-{subject}"] if subject else list(root.iterdir())
    except OSError as error:
        raise InputError(f"{root}: cannot be read ({error.strerror})") from error
    found = [p for p in found if p.name.startswith("sub-") and p.is_dir()]
    ignored = _ignored(root)
    for top in sorted(found, key=lambda p: natural(p.name)):
        for folder, folders, names in os.walk(top):
            folders[:] = sorted((f for f in folders if not f.startswith(".")), key=natural)
            for name in sorted(names, key=natural):
                if name.startswith(".") or not name.lower().endswith(extensions):
                    continue
                entities = parse_name(name)
                if entities is None:
                    continue
                path = Path(folder) / name
                parts = path.relative_to(root).parts
                if ignored is not None and ignored.search("/".join(parts)):
                    continue
                session = next((part[4:] for part in parts[:-1] if part.startswith("ses-")), "")
                if f"sub-{entities.sub}" != parts[0] or (session and entities.ses != session):
                    raise InputError(f"{path}: the name and the folder name different visits")
                yield BidsFile(path, entities)


def _ignored(root: Path) -> re.Pattern[str] | None:
    """Matches paths below a data set's root that its ``.bidsignore`` names; None without one."""
    try:
        lines = (root / ".bidsignore").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{root / '.bidsignore'}: cannot be read ({error})") from error
    patterns = []
    for line in map(str.strip, lines):
        if not line or line[0] in "#!":
            continue
        folder_only, line = line.endswith("/"), line.rstrip("/")
        start = "^" if "/" in line else "(?:^|/)"  # a slash ties a pattern to the root
        pieces = re.split(r"(\*\*/?|\*|\?)", line.lstrip("/"))
        glob = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
        body = "".join(glob.get(piece, re.escape(piece)) for piece in pieces)
        patterns.append(f"{start}{body}{'/' if folder_only else '(?:/|$)'}")
    return re.compile("|".join(patterns)) if patterns else None


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key by which ``ses-2`` comes before ``ses-10``."""
    parts = re.split(r"(\d+)", text)
    return tuple((1, int(p), p) if p.isdigit() else (0, 0, p) for p in parts if p)
