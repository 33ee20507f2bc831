"""Garbage and damaged files, drawn by hypothesis."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lesionwise.types import InputError

HOSTILE = (
    "null", "true", "0", "-1", "1.5", "1e308", "1e999", "NaN", "9" * 25, '""', '"x"', '"NaN"',
    '"../../x"', '"/etc/passwd"', r'"a\\b"', r'"\ud800"', r'"\u0000"', r'"\u001b[2J"', "[]", "{}",
    "[[]]", "[null]", '{"a": {}}', "[" * 200 + "]" * 200, '"' + "x" * 5000 + '"',
)  # fmt: skip
"""Values that a file of JSON may hold in the place of any other."""

bits = st.binary(max_size=8)
place = st.integers(0, 2**32 - 1)
edits = st.lists(
    st.tuples(st.sampled_from(["replace", "insert", "cut", "drop", "repeat", "flip"]), place, bits),
    min_size=1,
    max_size=4,
)
swaps = st.lists(
    st.tuples(place, st.sampled_from((*HOSTILE, "")), st.booleans()), min_size=1, max_size=3
)


def damaged(content: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    """The content after bytes were replaced, inserted, cut off, dropped, doubled or flipped."""
    for kind, where, new in changes:
        at = where % (len(content) + 1)
        end = at + max(1, len(new))
        if kind == "replace":
            content = content[:at] + new + content[end:]
        elif kind == "insert":
            content = content[:at] + new + content[at:]
        elif kind == "cut":
            content = content[:at]
        elif kind == "drop":
            content = content[:at] + content[end:]
        elif kind == "repeat":
            content = content[:end] + content[at:]
        elif at < len(content):
            content = content[:at] + bytes([content[at] ^ 1 << where % 8]) + content[at + 1 :]
    return content


def swapped(content: bytes, changes: list[tuple[int, str, bool]]) -> bytes:
    """JSON with values replaced by hostile ones, dropped (``""``), or their keys renamed."""
    tree = json.loads(content)
    marks: dict[str, str] = {}
    for where, value, rename in changes:
        spots = list(_spots(tree))
        if not spots:
            break
        holder, key = spots[where % len(spots)]
        if value == "":
            del holder[key]
        elif rename and isinstance(holder, dict):
            holder[str(value)[:40]] = holder.pop(key)
        else:
            mark = f"@{len(marks)}@"
            marks[f'"{mark}"'] = value
            holder[key] = mark
    text = json.dumps(tree)
    for mark, value in marks.items():
        text = text.replace(mark, value)
    return text.encode()


def _spots(tree: Any) -> Any:
    """Every place in a tree of JSON, as its holder and key."""
    keys = tree.keys() if isinstance(tree, dict) else range(len(tree))
    for key in list(keys):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _spots(tree[key])


def only_input_errors(
    path: Path, read: Callable[[], Any], examples: int, *, repeatable: bool = True
) -> None:
    """Pass if reading garbage in the place of a good file raises nothing but ``InputError``.

    Half of the examples are damaged copies of the file, for JSON half of those with values
    swapped; the rest is garbage altogether.

    Args:
        path: a good file, from which ``read`` reads without an error.
        examples: how many garbled files are tried.
        repeatable: the same examples at every call.
    """
    good = path.read_bytes()
    read()
    kinds = [edits.map(lambda changes: damaged(good, changes)), st.binary(max_size=600)]
    if path.suffix == ".json":
        kinds += [swaps.map(lambda changes: swapped(good, changes))] * 2
    elif path.suffix in (".tsv", ".txt"):
        kinds.append(
            st.text(st.characters(), max_size=200).map(lambda t: t.encode("utf-8", "replace"))
        )

    @settings(
        max_examples=max(1, math.ceil(examples)),
        deadline=None,
        database=None,
        derandomize=repeatable,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(kinds))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        said = ""
        try:
            read()
        except InputError as error:
            said = str(error)
        assert "\n" not in said

    try:
        check()
    finally:
        path.write_bytes(good)
