"""The files in which a run keeps what it learned, and one hash over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lesionwise.inference.weights import INITIAL, WEIGHTS
from lesionwise.io.record import sha256, sha256_of_bytes
from lesionwise.methods.candidates import MODEL
from lesionwise.methods.members import FITTED
from lesionwise.run.learned_steps import STEPS

_BESIDE = {INITIAL, FITTED, "done.json", "log.csv", "log.jsonl", "training.json"}
"""What a training leaves in the folder of a member or a step, and what no model reads."""


def weights_of(run: Path) -> list[Path]:
    """The files that decide what a trained model finds, in the order of their names.

    ``model.safetensors`` and ``model.txt`` (LightGBM) of the run itself; of every member of an
    ensemble (``member-N``) and every learned step (``steps/N``), which have folders of their own,
    all files but logs, members of members too. Checkpoints, candidates, and networks that only
    served another's training are none. Empty for a method that learns nothing.

    Example:
        >>> for name in ("member-0/model.safetensors", "member-0/log.csv", "run.json"):
        ...     Path("run", name).parent.mkdir(parents=True, exist_ok=True)
        ...     Path("run", name).touch()
        ...
        >>> [path.as_posix() for path in weights_of(Path("run"))]
        ['run/member-0/model.safetensors']
    """
    own = [run / name for name in (WEIGHTS, MODEL) if (run / name).is_file()]
    return sorted([*own, *_below(run)], key=lambda path: path.relative_to(run).as_posix())


def hash_of_weights(run: Path) -> str:
    """SHA-256 of what a run learned: of its weights file where that is all, else over all files.

    Returns:
        Hexadecimal; of several files over their names and hashes. Empty where there are none.

    Raises:
        InputError: If a file cannot be read.

    Example:
        >>> Path("run").mkdir()
        >>> _ = Path("run/model.safetensors").write_bytes(b"abc")
        >>> hash_of_weights(Path("run"))[:8]
        'ba7816bf'
    """
    files = weights_of(run)
    if files in ([], [run / WEIGHTS]):
        return sha256(files[0]) if files else ""
    lines = [f"{path.relative_to(run).as_posix()} {sha256(path)}\n" for path in files]
    return sha256_of_bytes("".join(lines).encode("utf-8", "surrogateescape"))


def known_hash(run: Path, stated: object) -> str | None:
    """The hash of what a run learned, if it is the one that ``run.json`` states; else None.

    A run that states none, or nothing, was trained before all files counted and is taken as it is.
    So is one whose other files did not count then, if its weights file is the one stated.

    Args:
        stated: what the run wrote down.

    Raises:
        InputError: If a file cannot be read.

    Example:
        >>> Path("run").mkdir()
        >>> _ = Path("run/model.safetensors").write_bytes(b"abc")
        >>> known_hash(Path("run"), "")[:8], known_hash(Path("run"), "5d41")
        ('ba7816bf', None)
    """
    found = hash_of_weights(run)
    if not stated or found == stated:
        return found
    weights = run / WEIGHTS
    return sha256(weights) if weights.is_file() and sha256(weights) == stated else None


def _below(folder: Path) -> Iterator[Path]:
    for place in (*folder.glob("member-*"), *folder.glob(f"{STEPS}/*")):
        if place.is_dir():
            yield from (p for p in place.iterdir() if p.is_file() and _counts(p.name))
            yield from _below(place)


def _counts(name: str) -> bool:
    return not name.startswith(".") and name not in _BESIDE
