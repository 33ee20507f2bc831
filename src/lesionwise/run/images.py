"""The scan that belongs to each case of an evaluation, by the names of the files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from lesionwise.run.pairing import bare_name, bids_case, listed_files, stem

_LABELS = re.compile(r"(_mask|_dseg|_probseg|_label-|_seg-)")
_CHANNEL = re.compile(r"([_\-. ]+(0000|flair|t2flair|image|img|brain))+$", re.IGNORECASE)


def find_images(images: Path, cases: Iterable[str]) -> dict[str, Path]:
    """A scan for each case that has one; a case without is left out.

    Cases named ``sub-…`` are looked up by subject and session, FLAIR before other scans. For all
    others the file's name without its extension, its channel (``_0000``, ``_flair``) and words
    such as ``image`` has to be the last part of the case's name. Of several files the first counts.

    Args:
        images: a file, which then belongs to every case; a folder; or a folder with a pattern,
            as in ``scans/*_FLAIR*``.

    Raises:
        InputError: If there is no such file or folder, or it holds no NIfTI file.
    """
    files = [file for file in listed_files(images) if not _LABELS.search(stem(file))]
    if images.is_file():
        return dict.fromkeys(cases, images)
    flair_first = sorted(files, key=lambda file: "flair" not in stem(file).lower())
    by_name: dict[str, Path] = {}
    for file in flair_first:
        by_name.setdefault(bids_case(file) or _plain(file), file)
    found = {}
    for case in cases:
        name = case if case in by_name else case.rsplit("/", 1)[-1]
        if name in by_name:
            found[case] = by_name[name]
    return found


def _plain(file: Path) -> str:
    name = _CHANNEL.sub("", stem(file))
    return bare_name(Path(f"{name}.nii")) or file.parent.name
