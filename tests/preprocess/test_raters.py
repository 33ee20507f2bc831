"""What each rater calls new."""

import logging

import numpy as np
import pytest

from lesionwise.preprocess.raters import RATERS, RatersOfNew
from lesionwise.types import Grid, InputError, Study, Visit, Volume

GRID = Grid((5, 4, 4), np.eye(4))


def study(*names):
    changes = {}
    for number, name in enumerate(names):
        array = np.zeros(GRID.shape, np.int32)
        array[number] = 1
        changes[name] = Volume(array, GRID)
    visit = Visit({"flair": Volume(np.zeros(GRID.shape, np.float32), GRID)})
    return Study("p1", (visit, visit), changes)


def test_raters_that_are_there_stay():
    known = study("new", *RATERS)
    assert RatersOfNew()(known) is known


def test_without_any_rater_the_consensus_stands_for_each_and_the_log_says_so(caplog):
    with caplog.at_level(logging.WARNING, logger="lesionwise"):
        filled = RatersOfNew()(study("new"))
    assert [r.getMessage() for r in caplog.records] == [
        "p1: no new lesions by rater; the consensus stands for each"
    ]
    for name in RATERS:
        np.testing.assert_array_equal(filled.changes[name].array, filled.changes["new"].array)


def test_some_raters_alone_are_refused_with_the_subject_and_what_it_lacks():
    message = "sub-p1: has new-rater-1, new-rater-3 but lacks new-rater-2, new-rater-4"
    with pytest.raises(InputError, match=message):
        RatersOfNew()(study("new", "new-rater-1", "new-rater-3"))


def test_a_pair_of_which_nothing_is_known_passes_unchanged():
    bare = study()
    assert RatersOfNew()(bare) is bare
