"""What is to be found in a study, by name."""

import numpy as np
import pytest

from lesionwise.instances.reference import instances_of_visit, reference_of
from lesionwise.types import Grid, InputError, Study, Visit, Volume

GRID = Grid((8, 8, 8), np.eye(4))


def _map(*boxes, dtype=np.uint8, value=1):
    array = np.zeros(GRID.shape, dtype=dtype)
    for first in boxes:
        array[first : first + 2, 2:4, 2:4] = value
    return Volume(array, GRID)


def _study(labels=None, changes=None):
    scans = {"flair": _map(1)}
    return Study("a", (Visit(scans), Visit(scans, labels or {})), changes or {})


def test_a_mask_without_instances_gives_its_components():
    study = _study({"lesions": _map(0, 5)})
    assert sorted(np.unique(reference_of(study, "lesions"))) == [0, 1, 2]


def test_a_visit_without_a_mask_is_a_fault():
    with pytest.raises(InputError, match="no lesion mask"):
        instances_of_visit(_study({"tissue": _map(0)}).followup)


def test_new_lesions_are_those_of_the_pair():
    study = _study({"lesions": _map(0, 5)}, {"new": _map(5)})
    found = reference_of(study, "new")
    assert found[5, 2, 2] == 1
    assert (found > 0).sum() == 8
    with pytest.raises(InputError, match="sub-a: no map of new lesions"):
        reference_of(_study({"lesions": _map(0)}), "new")


def test_a_rater_is_named_by_a_change_or_by_a_label():
    study = _study({"rater-1": _map(0)}, {"new-rater-2": _map(3, 6)})
    assert reference_of(study, "rater-1").max() == 1
    assert reference_of(study, "new-rater-2").max() == 2
    with pytest.raises(InputError, match="sub-a: no reference rater-3"):
        reference_of(study, "rater-3")


def test_fractions_stay_fractions():
    soft = _map(2, dtype=np.float32, value=0.25)
    assert reference_of(_study({"soft": soft}), "soft").max() == 0.25
