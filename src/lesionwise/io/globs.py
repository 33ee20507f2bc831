"""Patterns of file names, matched in a time that no pattern can blow up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_ANY = "*"
_ONE = "?"


def glob_matches(pattern: str, parts: Sequence[str]) -> bool:
    """Whether a path fits a pattern from its first part to its last.

    ``*`` stands for any signs within a part, ``?`` for one, ``[ab0-9]`` for one of several and
    ``[!ab]`` for one of all others; a part ``**`` stands for any number of parts.

    Args:
        parts: folders and file name of the path, relative to where the pattern holds.

    Example:
        >>> glob_matches("**/*_FLAIR.nii.gz", ["sub-01", "anat", "sub-01_FLAIR.nii.gz"])
        True
    """
    return len(parts) in _ends(pattern, parts)


def ignored_by(patterns: Iterable[str], parts: Sequence[str]) -> bool:
    """Whether a file or a folder above it is named by one of the lines of a ``.gitignore``.

    A line with a ``/`` before its end holds from the root on, others at any depth; one that ends
    in ``/`` names folders only. Lines that make exceptions (``!``) are not known here.

    Args:
        parts: folders and file name, relative to where the list lies.

    Example:
        >>> ignored_by(["derivatives/"], ["derivatives", "a.nii.gz"])
        True
    """
    for line in patterns:
        pattern = line.rstrip("/")
        last = len(parts) - (1 if line.endswith("/") else 0)
        if "/" in pattern:
            ends = _ends(pattern.lstrip("/"), parts)
            if any(0 < end <= last for end in ends):
                return True
        elif pattern and any(_part_matches(pattern, part) for part in parts[:last]):
            return True
    return False


def _ends(pattern: str, parts: Sequence[str]) -> set[int]:
    """How many parts, counted from the first, the whole pattern may stand for."""
    reached = {0}
    for piece in filter(None, pattern.split("/")):
        if piece == "**":
            reached = set(range(min(reached, default=len(parts) + 1), len(parts) + 1))
        else:
            reached = {n + 1 for n in reached if n < len(parts) and _part_matches(piece, parts[n])}
    return reached


def _part_matches(piece: str, name: str) -> bool:
    """Greedy, with one place to go back to, so at most len(piece) * len(name) steps."""
    tokens = _tokens(piece)
    at, place = 0, 0
    star, retry = -1, 0
    while place < len(name):
        if at < len(tokens) and tokens[at] == _ANY:
            star, retry = at, place
            at += 1
        elif at < len(tokens) and _fits(tokens[at], name[place]):
            at, place = at + 1, place + 1
        elif star >= 0:
            retry += 1
            at, place = star + 1, retry
        else:
            return False
    return all(token == _ANY for token in tokens[at:])


def _tokens(piece: str) -> list[str]:
    """``*``, ``?``, a sign behind a backslash, or a set in its brackets."""
    tokens: list[str] = []
    at = 0
    while at < len(piece):
        sign = piece[at]
        close = piece.find("]", at + 3 if piece[at + 1 : at + 2] in ("!", "^") else at + 2)
        if sign == "[" and close > 0:
            tokens.append(piece[at : close + 1])
            at = close + 1
            continue
        if sign not in (_ANY, _ONE):
            tokens.append("\\" + sign)
        elif sign == _ONE or tokens[-1:] != [_ANY]:
            tokens.append(sign)
        at += 1
    return tokens


def _fits(token: str, sign: str) -> bool:
    if token == _ONE:
        return True
    if token[0] == "\\":
        return token[1] == sign
    inner = token[1:-1]
    other = inner[0] in "!^"
    inner = inner[1:] if other else inner
    at, found = 0, False
    while at < len(inner):
        if inner[at + 1 : at + 2] == "-" and at + 2 < len(inner):
            found = found or inner[at] <= sign <= inner[at + 2]
            at += 3
        else:
            found = found or inner[at] == sign
            at += 1
    return found != other
