"""BIDS names: read and composed."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lesionwise.io.labels import label_text as label_text
from lesionwise.io.labels import unique_labels as unique_labels

ORDER = (
    "sub", "tpl", "ses", "sample", "task", "acq", "ce", "trc", "stain", "rec", "dir", "run", "mod",
    "echo", "flip", "inv", "mt", "part", "proc", "hemi", "space", "split", "chunk", "seg", "res",
    "den", "label", "desc",
)  # fmt: skip
"""Entities in the order in which BIDS writes them; others follow, as they were met."""

EXTENSIONS = (".nii.gz", ".nii", ".json", ".tsv", ".bval", ".bvec", ".txt", ".html")

_NAME = re.compile(r"[A-Za-z0-9]+-[A-Za-z0-9+.]+")
_VALUE = r"[A-Za-z0-9+]+"


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

    Example:
        >>> parse_name("sub-01_ses-M12_FLAIR.nii.gz").ses
        'M12'
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

    Example:
        >>> derivative_name(parse_name("sub-01_FLAIR.nii.gz"), "mask", label="L")
        'sub-01_space-orig_label-L_mask.nii.gz'
    """
    return _derived(source, suffix, extension, stated).name


def derivative_path(
    root: str | Path, source: Entities, suffix: str, extension: str = ".nii.gz", **stated: str
) -> Path:
    """Where a result belongs: ``root/sub-…/[ses-…/]anat/`` and its ``derivative_name``.

    Example:
        >>> derivative_path("out", parse_name("sub-01_FLAIR.nii.gz"), "mask", label="L").as_posix()
        'out/sub-01/anat/sub-01_space-orig_label-L_mask.nii.gz'
    """
    derived = _derived(source, suffix, extension, stated)
    folder = Path(root) / f"sub-{derived.sub}"
    if derived.ses:
        folder /= f"ses-{derived.ses}"
    return folder / "anat" / derived.name


def _derived(source: Entities, suffix: str, extension: str, stated: dict[str, str]) -> Entities:
    space = source.space or "orig"
    if not re.fullmatch(_VALUE, space):  # such as MNI.v2
        space = label_text(space)
    changes: dict[str, Any] = {"space": space, "seg": "", "label": "", "desc": ""}
    changes.update(stated)
    for key, value in changes.items():
        if value and not re.fullmatch(_VALUE, value):
            raise ValueError(f"{key}-{value}: a BIDS value has only letters and digits")
    other = {key: value for key, value in changes.items() if key not in _FIELDS and value}
    known = {key: value for key, value in changes.items() if key in _FIELDS}
    kept = tuple((key, value) for key, value in source.other if key not in changes)
    return replace(
        source, suffix=suffix, extension=extension, other=(*kept, *other.items()), **known
    )


def natural(text: str) -> tuple[tuple[int, int, str, str], ...]:
    """A sort key by which ``ses-2`` comes before ``ses-10``, for any text.

    Example:
        >>> sorted(["ses-10", "ses-2"], key=natural)
        ['ses-2', 'ses-10']
    """
    parts = re.split(r"([0-9]+)", text)
    return tuple(
        (1, len(p.lstrip("0")), p.lstrip("0"), p) if p[0] in "0123456789" else (0, 0, p, p)
        for p in parts
        if p
    )
