"""Random patches in fixed shares."""

import pickle

import numpy as np
import pytest
from engine import PAIRS, pair_of
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionwise.learning.samplers import PatchSampling
from lesionwise.learning.samples import Reading, SampleRequest
from lesionwise.learning.stratified import PatchesOfEachStudy, StratifiedPatches
from lesionwise.types import InputError, LazyStudies, Study, TrainingData, Volume

READING = Reading(("flair",), "new")


def without_lesion(seed):
    study = pair_of(seed)
    new = study.changes["new"]
    return Study(study.subject, study.visits, {"new": Volume(np.zeros_like(new.array), new.grid)})


DATA = TrainingData([without_lesion(1), pair_of(2), without_lesion(3), without_lesion(4)])


def opened(samples, data=DATA, **options):
    return samples.open(data, SampleRequest(READING, PAIRS.objective, 5, **options))


def test_each_batch_has_its_share_of_patches_with_a_lesion():
    samples = StratifiedPatches((4, 4, 4), batch_size=10, per_epoch=30, lesion_fraction=0.3)
    source = opened(samples)
    for batch in range(4):
        masks = [source[10 * batch + n]["mask"] for n in range(10)]
        assert all(mask.any() for mask in masks[:3])
        assert not all(mask.any() for mask in masks[3:])


def test_what_is_left_of_an_epoch_begins_a_batch():
    samples = StratifiedPatches((4, 4, 4), batch_size=4, per_epoch=6, lesion_fraction=0.5)
    source = opened(samples)
    assert [bool(source[n]["mask"].any()) for n in (6, 7)] == [True, True]


def test_patches_are_the_same_in_another_process():
    for samples in (
        StratifiedPatches((4, 4, 4), batch_size=4),
        PatchesOfEachStudy((4, 4, 4), batch_size=4),
    ):
        source = opened(samples, TrainingData(LazyStudies((1, 2, 3), pair_of)))
        other = pickle.loads(pickle.dumps(source))
        for number in (0, 3, 17):
            np.testing.assert_array_equal(source[number]["image"], other[number]["image"])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4))
def test_every_study_comes_equally_often_in_every_epoch(studies, per_study):
    pairs = []
    for number in range(studies):
        study = pair_of(2)
        flair = {
            "flair": Volume(np.full((16,) * 3, number, "f4"), study.followup.scans["flair"].grid)
        }
        visits = tuple(type(v)(flair, brain=v.brain) for v in study.visits)
        pairs.append(Study(str(number), visits, study.changes))
    source = opened(PatchesOfEachStudy((4, 4, 4), per_study=per_study), TrainingData(pairs))
    assert source.per_epoch == studies * per_study
    for epoch in range(2):
        first = epoch * source.per_epoch
        seen = [int(source[first + n]["image"].max()) for n in range(source.per_epoch)]
        assert np.bincount(seen, minlength=studies).tolist() == [per_study] * studies


@pytest.mark.parametrize("samples", [StratifiedPatches((4, 4, 4)), PatchesOfEachStudy((4, 4, 4))])
def test_studies_without_lesions_teach_nothing(samples):
    with pytest.raises(InputError, match="have no lesion"):
        opened(samples, TrainingData([without_lesion(1)]))


def test_validation_studies_may_have_no_lesion_and_are_not_augmented():
    data = TrainingData([pair_of(2)], [without_lesion(1)])
    source = opened(StratifiedPatches((4, 4, 4), lesion_fraction=1.0), data, validation=True)
    assert not source[0]["mask"].any()


@pytest.mark.parametrize(
    "samples",
    [
        StratifiedPatches((4, 4, 4), references=("new-rater-1", "new-rater-2")),
        PatchesOfEachStudy(
            (4, 4, 4), sampling=PatchSampling(1.0), references=("new-rater-1", "new-rater-2")
        ),
    ],
)
def test_a_missing_rater_is_named_before_anything_is_learned(samples):
    study = pair_of(2)
    known = Study("s2", study.visits, {**study.changes, "new-rater-1": study.changes["new"]})
    message = r"sub-s2: no reference new-rater-2 to learn from \(2 of 2 subjects lack some\)"
    with pytest.raises(InputError, match=message):
        opened(samples, TrainingData([known, pair_of(3)]))
