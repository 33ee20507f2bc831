"""Labels for scans of any name: letters and digits, and different where the names differ."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

_LONGEST = 80


def letters(text: str) -> str:
    """The text's ASCII letters and digits alone; two texts may share them.

    Example:
        >>> letters("Müller 01")
        'Mller01'
    """
    return re.sub(r"[^A-Za-z0-9]", "", text)


def label_text(text: str) -> str:
    """The text as a BIDS value (letters, digits and ``+``); texts that differ get different values.

    Letters and digits stay, ``_`` becomes ``+`` and ``-`` becomes ``++``. Where that cannot be
    undone (other signs, two separators in a row or at an end, more than 80 signs) eight digits that
    follow from the whole text stand behind it: ``P1_1`` is ``P1+1``, ``P1.1`` is ``P1+1+ffc43961``.
    A text in another script is those digits behind an ``x``. Composed and decomposed accents count
    as one.

    Example:
        >>> label_text("P01"), label_text("P 01") != label_text("P01")
        ('P01', True)
    """
    text = unicodedata.normalize("NFC", text)
    if len(text) <= _LONGEST and re.fullmatch(r"[A-Za-z0-9]+([_-][A-Za-z0-9]+)*", text):
        return text.replace("_", "+").replace("-", "++")
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(sign for sign in plain if not unicodedata.combining(sign))
    kept = re.sub(r"[^A-Za-z0-9]+", "+", plain).strip("+")
    return f"{kept[:_LONGEST].rstrip('+') or 'x'}+{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def unique_labels(paths: Sequence[str | Path]) -> list[str]:
    """A subject label for each file of any name, different for files that differ.

    The label comes from the file's name by ``label_text``, without its extension. Where the name
    says no more than a contrast or a visit (``FLAIR.nii.gz``, ``2020/T2_FLAIR.nii``), the folders
    above it, up to the first that says more, stand in front: ``pat01+2020+FLAIR``. So a file keeps
    its label whichever others are named with it. Files that would still share one (equal names in
    several folders, ``a.nii`` beside ``a.nii.gz``) all get what tells their folders apart behind
    it, or else digits that follow from the path.

    Args:
        paths: need not exist; links are not followed. A path given twice has one label.

    Example:
        >>> unique_labels(["a/flair.nii.gz", "b/flair.nii.gz"])
        ['a+flair', 'b+flair']
    """
    places = [Path(os.path.abspath(path)) for path in paths]
    labels = {place: _label_by_name(place) for place in places}
    grouped: dict[str, list[Path]] = {}
    for place, label in labels.items():
        grouped.setdefault(label, []).append(place)
    for label, alike in grouped.items():
        if len(alike) > 1:
            for place, distinction in zip(alike, distinguishing_labels(alike), strict=True):
                labels[place] = f"{label}+{distinction}"
    seen: set[str] = set()
    for place, label in labels.items():
        while label in seen:
            label = f"{label}+{_digest(f'{place}{label}')}"
        seen.add(label)
        labels[place] = label
    return [labels[place] for place in places]


def distinguishing_labels(paths: Sequence[Path]) -> list[str]:
    """A different label for each of several absolute paths, from the nearest folder that differs.

    Where no one folder tells them all apart, digits that follow from the whole path.

    Example:
        >>> distinguishing_labels([Path("/data/a/flair.nii"), Path("/data/b/flair.nii")])
        ['a', 'b']
    """
    folders = [[part.name for part in path.parents] for path in paths]
    for level in range(min(map(len, folders))):
        distinctions = [label_text(names[level]) for names in folders if names[level]]
        if len(set(distinctions)) == len(paths):
            return distinctions
    return [_digest(path.name) for path in paths] if _names_differ(paths) else _path_digests(paths)


def _names_differ(paths: Sequence[Path]) -> bool:
    return len({_digest(path.name) for path in paths}) == len(paths)


def _path_digests(paths: Sequence[Path]) -> list[str]:
    return [_digest(str(path)) for path in paths]


_WORDS = re.compile(r"[23]d|[a-z]+\d*|\d+")
_OF_A_CONTRAST = frozenset(
    {
        "2d", "3d", "adc", "anat", "ax", "axial", "bet", "brain", "ce", "cor", "coronal", "dark",
        "data", "dwi", "flair", "fluid", "fse", "gd", "gre", "head", "image", "img", "iso",
        "mprage", "mr", "mri", "n4", "nifti", "nii", "pd", "pdw", "post", "pre", "raw", "sag",
        "sagittal", "scan", "se", "spc", "space", "swi", "t1", "t1w", "t2", "t2w", "tirm", "tra",
        "transversal",
        "tse", "vol", "volume",
    }
)  # fmt: skip
_OF_A_VISIT = re.compile(
    r"(ses|session|visit|time|timepoint|tp|t|m|y|v|w|month|year|week|day|date|exam|study|baseline|"
    r"bl|followup|follow|up|fu|scan|images)?\d*"
)
_FOLDERS_ABOVE = 3


def _label_by_name(place: Path) -> str:
    parts = [stem(place)]
    if _says_little(parts[0]):
        above = [part.name for part in place.parents][:_FOLDERS_ABOVE]
        above = [name for name in above if name]
        telling = next(
            (n for n, name in enumerate(above) if not _says_little(name, of_a_visit=True)), 0
        )
        parts += above[: telling + 1]
    return "+".join(label_text(part) for part in reversed(parts))


def _says_little(name: str, of_a_visit: bool = False) -> bool:
    """Whether a name holds nothing but words for a contrast, or also those for a visit."""
    name = name.lower()
    words = _WORDS.findall(name)
    if any(sign.isalnum() for sign in _WORDS.sub("", name)):
        return False
    return all(
        word in _OF_A_CONTRAST or (of_a_visit and _OF_A_VISIT.fullmatch(word)) for word in words
    )


def words_of(name: str) -> frozenset[str]:
    """The words and numbers in a file name, in lower case: t2, flair, 3d, p01 …

    Example:
        >>> sorted(words_of("P01_T2_FLAIR_3D"))
        ['3d', 'flair', 'p01', 't2']
    """
    return frozenset(_WORDS.findall(name.lower()))


def stem(path: Path) -> str:
    """A file's name without ``.nii`` and ``.gz``; other names as they are.

    Example:
        >>> stem(Path("sub-01_FLAIR.nii.gz"))
        'sub-01_FLAIR'
    """
    name = path.name
    for extension in (".nii.gz", ".nii", ".gz"):
        if name.lower().endswith(extension) and len(name) > len(extension):
            return name[: -len(extension)]
    return name
