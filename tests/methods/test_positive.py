"""A method that learns from positive cases."""

import numpy as np
import pytest

from lesionwise.methods.composite import PositiveCases
from lesionwise.types import Grid, InputError, RunContext, Study, TrainingData, Visit, Volume


class Remember:
    def fit(self, data, run):
        self.seen = [study.subject for study in data.training], [s.subject for s in data.validation]


def study(name, lesions):
    grid = Grid((2, 2, 2), np.eye(4))
    new = np.zeros(grid.shape, np.int32)
    new.flat[:lesions] = 1
    return Study(name, (Visit({}), Visit({})), {"new": Volume(new, grid)})


def test_studies_without_a_new_lesion_are_not_learned_from(tmp_path):
    method = Remember()
    data = TrainingData([study("a", 1), study("b", 0), study("c", 3)], [study("d", 0)])
    PositiveCases(method).fit(data, RunContext(tmp_path))
    assert method.seen == (["a", "c"], ["d"])  # all validate where none is positive


def test_studies_without_a_new_lesion_do_not_validate_where_others_do(tmp_path):
    method = Remember()
    data = TrainingData([study("a", 1)], [study("b", 0), study("c", 2), study("d", 0)])
    PositiveCases(method).fit(data, RunContext(tmp_path))
    assert method.seen == (["a"], ["c"])
    PositiveCases(method).fit(TrainingData([study("a", 1)]), RunContext(tmp_path))
    assert method.seen == (["a"], [])


def test_no_positive_case_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="no training study has a lesion to learn from"):
        PositiveCases(Remember()).fit(TrainingData([study("a", 0)]), RunContext(tmp_path))
