"""The scan that belongs to each case of an evaluation, by the names of the files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lesionwise.run.pairing import Case, bare_name, case_of, listed_files, stem

_LABELS = re.compile(r"(_mask|_dseg|_probseg|_label-|_seg-)")
_CHANNEL = re.compile(r"([_\-. ]+(0000|flair|t2flair|image|img|brain))+$", re.IGNORECASE)


def find_images(images: Path, references: Mapping[str, Path]) -> dict[str, Path]:
    """A scan for each case that has one; a case without is left out.

    Cases with a BIDS name are looked up by all entities that the scan's name and the reference's
    name both state, FLAIR before other scans; the scan that states most of them is taken, and
    none where two state as much. For all others the file's name without its extension, its
    channel (``_0000``, ``_flair``) and words such as ``image`` has to be the last part of the
    case's name. Of several files the first counts.

    Args:
        images: a file, which then belongs to every case; a folder; or a folder with a pattern,
            as in ``scans/*_FLAIR*``.
        references: the reference of each case, whose name says which scan is meant.

    Raises:
        InputError: If there is no such file or folder, or it holds no NIfTI file.
    """
    files = listed_files(images)
    if images.is_file():
        return dict.fromkeys(references, images)
    return match_images(files, references)


def match_images(
    images: Sequence[Path], references: Mapping[str, Path], root: Path | None = None
) -> dict[str, Path]:
    """As ``find_images``, of files.

    Args:
        root: folders between it and a reference may state ``sub-`` and ``ses-`` too.
    """
    files = [file for file in images if not _LABELS.search(stem(file))]
    flair_first = sorted(files, key=lambda file: "flair" not in stem(file).lower())
    scans = [(case_of(Path(_CHANNEL.sub("", stem(file)))), file) for file in flair_first]
    by_name: dict[str, Path] = {}
    for case, file in scans:
        if case is None:
            by_name.setdefault(_plain(file), file)
    found = {}
    for name, reference in references.items():
        wanted = case_of(reference, root)
        if wanted is None:
            scan = by_name.get(name) or by_name.get(name.rsplit("/", 1)[-1])
        else:
            scan = _best(wanted, [(case, file) for case, file in scans if case])
        if scan is not None:
            found[name] = scan
    return found


def _best(wanted: Case, scans: list[tuple[Case, Path]]) -> Path | None:
    """The scan that shares most entities; of equally named ones the first, of others none."""
    fitting = [(case, file) for case, file in scans if wanted.may_be(case)]
    if not fitting:
        return None
    shared = [len({*wanted.entities} & {*case.entities}) for case, _ in fitting]
    best = [pair for pair, n in zip(fitting, shared, strict=True) if n == max(shared)]
    return best[0][1] if len({case.key for case, _ in best}) == 1 else None


def _plain(file: Path) -> str:
    name = _CHANNEL.sub("", stem(file))
    return bare_name(Path(f"{name}.nii")) or file.parent.name
