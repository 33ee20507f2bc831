"""The files of a data set or of any other folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lesionwise.io.checked import reading
from lesionwise.io.globs import glob_matches, ignored_by
from lesionwise.io.labels import label_text
from lesionwise.io.names import Entities, natural, parse_name
from lesionwise.types import InputError


@dataclass(frozen=True)
class BidsFile:
    """A file with a BIDS name."""

    path: Path
    entities: Entities


@dataclass(frozen=True)
class Misfit:
    """A file in a subject's folder that does not fit in there.

    Attributes:
        reason: one line that names the file.
        folders: the subject's folder and those in it, down to the file's, by name.
    """

    path: Path
    reason: str
    folders: tuple[str, ...]


def walk(
    root: Path, extensions: tuple[str, ...] = (".nii", ".nii.gz"), subject: str = ""
) -> Iterator[BidsFile]:
    """Every file with a BIDS name in the subject folders of a data set, in the order of names.

    As for ``survey``; files without a BIDS name are passed over.

    Raises:
        InputError: If a file's name and its folder name different subjects or sessions.

    Example:
        >>> Path("sub-01/anat").mkdir(parents=True)
        >>> Path("sub-01/anat/sub-01_FLAIR.nii.gz").touch()
        >>> [file.path.name for file in walk(Path("."))]
        ['sub-01_FLAIR.nii.gz']
    """
    for file in _surveyed(root, extensions, subject):
        if isinstance(file, BidsFile):
            yield file
        elif parse_name(file.path) is not None:
            raise InputError(file.reason)


def survey(
    root: Path, extensions: tuple[str, ...] = (".nii", ".nii.gz"), subject: str = ""
) -> tuple[list[BidsFile], list[Misfit]]:
    """The files with a BIDS name in the subject folders of a data set, and those that misfit.

    Both in the order of names. Links to folders are followed. Hidden files and folders are passed
    over, and so are everything outside ``sub-*`` and what the data set's ``.bidsignore`` names
    (patterns as in ``.gitignore``, without exceptions).

    Args:
        subject: the only one whose folder is read, without ``sub-``; all if empty.

    Returns:
        Misfits are files without a BIDS name, and those whose name and folder name different
        subjects or sessions.

    Raises:
        InputError: If a folder cannot be read.

    Example:
        >>> Path("sub-01/anat").mkdir(parents=True)
        >>> for name in ("sub-01_FLAIR.nii.gz", "sub-02_FLAIR.nii.gz"):
        ...     Path("sub-01/anat", name).touch()
        ...
        >>> files, misfits = survey(Path("."))
        >>> [file.path.name for file in files], [misfit.path.name for misfit in misfits]
        (['sub-01_FLAIR.nii.gz'], ['sub-02_FLAIR.nii.gz'])
    """
    files: list[BidsFile] = []
    misfits: list[Misfit] = []
    for file in _surveyed(root, extensions, subject):
        if isinstance(file, BidsFile):
            files.append(file)
        else:
            misfits.append(file)
    return files, misfits


def adopted(misfit: Misfit) -> BidsFile | None:
    """A misfit as a file of its folder's subject and session, where only their labels are wrong.

    That is so where labels hold signs that BIDS does not allow and folder and file agree, as in
    ``sub-MS_001/anat/sub-MS_001_FLAIR.nii.gz``; its subject is then ``MS+001``. Else None.

    Example:
        >>> path = Path("sub-MS_001/anat/sub-MS_001_FLAIR.nii.gz")
        >>> adopted(Misfit(path, "not a BIDS name", ("sub-MS_001", "anat"))).entities.sub
        'MS+001'
    """
    stated = [misfit.folders[0], *[f for f in misfit.folders[1:] if f.startswith("ses-")][:1]]
    start = "".join(f"{label}_" for label in stated)
    if not misfit.path.name.startswith(start) or not all(len(label) > 4 for label in stated):
        return None
    plain = "".join(f"{label[:4]}x_" for label in stated)
    entities = parse_name(plain + misfit.path.name.removeprefix(start))
    if entities is None or (len(stated) < 2 and entities.ses):
        return None
    labels = [label_text(label[4:]) for label in stated]
    ses = labels[1] if len(labels) > 1 else ""
    return BidsFile(misfit.path, replace(entities, sub=labels[0], ses=ses))


def _surveyed(root: Path, extensions: tuple[str, ...], subject: str) -> Iterator[BidsFile | Misfit]:
    with reading(root):
        found = [root / f"sub-{subject}"] if subject else list(root.iterdir())
        found = [p for p in found if p.name.startswith("sub-") and p.is_dir()]
    patterns = _patterns(root)
    for top in sorted(found, key=lambda p: natural(p.name)):
        for path in files_below(top):
            if not path.name.lower().endswith(extensions):
                continue
            parts = path.relative_to(root).parts
            if ignored_by(patterns, parts):
                continue
            entities = parse_name(path)
            folders = parts[:-1]
            session = next((part[4:] for part in folders if part.startswith("ses-")), "")
            if entities is None:
                yield Misfit(path, f"{path}: its name does not follow BIDS", folders)
            elif f"sub-{entities.sub}" != parts[0] or (session and entities.ses != session):
                reason = f"{path}: the name and the folder name different visits"
                yield Misfit(path, reason, folders)
            else:
                yield BidsFile(path, entities)


_DEEPEST = 32


def files_below(folder: Path) -> Iterator[Path]:
    """Every file in a folder and the folders in it, files before folders, in natural order.

    Links to folders are followed, save those that lead to a folder they lie in. Hidden files and
    folders are passed over.

    Raises:
        InputError: If a folder cannot be read.

    Example:
        >>> Path("a").mkdir()
        >>> Path("a/b.txt").touch()
        >>> [path.as_posix() for path in files_below(Path("."))]
        ['a/b.txt']
    """
    above = Path(os.path.realpath(folder)).parents
    yield from _below(folder, frozenset(map(str, above)), 0)


def _below(folder: Path, above: frozenset[str], depth: int) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above or depth > _DEEPEST:
        return
    with reading(folder), os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir()) for entry in entries if entry.name[0] != "."]
    for name, is_folder in sorted(found, key=lambda item: (item[1], natural(item[0]))):
        if is_folder:
            yield from _below(folder / name, above | {real}, depth + 1)
        else:
            yield folder / name


def files_matching(folder: Path, pattern: str) -> list[Path]:
    """The files below a folder whose place in it fits a pattern, in natural order.

    Args:
        pattern: ``*`` stands for any signs of a name, ``?`` for one, ``[ab]`` and ``[0-9]`` for one
            of several, ``**`` for any folders. Without a ``/`` it is held against the file's name.

    Raises:
        InputError: If a folder cannot be read.

    Example:
        >>> Path("a").mkdir()
        >>> Path("a/b.txt").touch()
        >>> [path.name for path in files_matching(Path("."), "**/*.txt")]
        ['b.txt']
    """
    return [
        path
        for path in files_below(folder)
        if glob_matches(pattern, path.relative_to(folder).parts if "/" in pattern else [path.name])
    ]


def _patterns(root: Path) -> tuple[str, ...]:
    """What a data set's ``.bidsignore`` says, line by line; empty without one."""
    path = root / ".bidsignore"
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_LIST + 1)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > _LONGEST_LIST:
        raise InputError(f"{path}: longer than {_LONGEST_LIST // 1024} KiB")
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text") from error
    return tuple(line for line in map(str.strip, lines) if line and line[0] not in "#!")


_LONGEST_LIST = 64 * 1024
