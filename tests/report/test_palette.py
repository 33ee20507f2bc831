import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lesionwise.report.palette import CHANGES, INSTANCES, change_look, instance_colors


@given(st.integers(0, 2**32 - 1))
def test_lesions_that_touch_differ_in_color(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.integers(0, 7, 12), 3).reshape(-1, 1, 1)
    colors = instance_colors(labels)
    flat = labels[:, 0, 0]
    for a, b in itertools.pairwise(flat):
        if a and b and a != b:
            assert colors[a] != colors[b]


def test_lesions_a_voxel_apart_differ_in_color() -> None:
    labels = np.zeros((9, 3, 3), dtype=np.int32)
    labels[0], labels[2] = 1, 1 + len(INSTANCES)
    colors = instance_colors(labels)
    assert colors[1] != colors[1 + len(INSTANCES)]


def test_no_lesions_have_no_colors() -> None:
    assert instance_colors(np.zeros((3, 3, 3), dtype=np.int32)) == {}


def test_changes_differ_without_color() -> None:
    symbols = [look.symbol for look in CHANGES.values()]
    assert len(set(symbols)) == len(symbols)


def test_an_unknown_change_has_a_neutral_look() -> None:
    assert change_look("astonished").symbol == "?"
