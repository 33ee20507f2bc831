"""Which scans of which visits are channels."""

import numpy as np
import pytest

from lesionwise.learning.channels import channel_names, channels
from lesionwise.types import Grid, InputError, Study, Visit, Volume

GRID = Grid((2, 2, 2), np.eye(4))


def _visit(**values):
    return Visit({n: Volume(np.full(GRID.shape, v, np.float32), GRID) for n, v in values.items()})


PAIR = Study("a", (_visit(flair=1, t1w=2), _visit(flair=3, t1w=4, difference=5)))


def _values(study, scans):
    return [float(array.max()) for array in channels(study, scans)]


def test_channels_are_every_visit_then_every_scan():
    assert _values(PAIR, ("flair", "t1w")) == [1, 2, 3, 4]
    assert channel_names(2, ("flair", "t1w")) == (
        "flair@baseline", "t1w@baseline", "flair@followup", "t1w@followup",
    )  # fmt: skip


def test_a_scan_of_one_visit_is_a_channel_once():
    assert _values(PAIR, ("flair", "difference@followup")) == [1, 3, 5]
    assert _values(PAIR, ("t1w@baseline", "difference@followup")) == [2, 5]
    assert _values(PAIR, ("difference@followup",)) == [5]


def test_the_only_visit_is_baseline_and_followup():
    alone = Study("a", (_visit(flair=7),))
    assert _values(alone, ("flair@baseline",)) == _values(alone, ("flair@followup",)) == [7]


def test_a_missing_scan_is_named():
    with pytest.raises(InputError, match="sub-a: no difference scan"):
        channels(PAIR, ("difference",))


def test_another_visit_than_the_first_and_the_last_is_refused():
    with pytest.raises(InputError, match="write flair@baseline or flair@followup"):
        channels(PAIR, ("flair@3",))
