"""Which weights become the model."""

from dataclasses import replace

import numpy as np
import pytest

from lesionwise.instances.components import ConnectedComponents
from lesionwise.methods.selection import Selection
from lesionwise.types import Grid, LesionMaps, Study, Visit, Volume

ALL = Selection(top_k=3, to_instances=ConnectedComponents())
GRID = Grid((12, 12, 12), np.eye(4))


def test_one_candidate_needs_no_scores():
    assert Selection().best([{}, {}]) == 0


def test_the_best_mean_rank_wins():
    scores = [
        {"dsc": 0.9, "lesion_f1": 0.2, "dic": 9.0},
        {"dsc": 0.8, "lesion_f1": 0.6, "dic": 1.0},
        {"dsc": 0.7, "lesion_f1": 0.5, "dic": 2.0},
    ]
    assert ALL.best(scores) == 1


def test_fewer_miscounted_lesions_are_better():
    assert ALL.best([{"dic": 3.0}, {"dic": 1.0}]) == 1


def test_of_equals_the_first_wins():
    assert ALL.best([{"dsc": 0.5, "pq": 0.6}, {"dsc": 0.6, "pq": 0.5}]) == 0


def test_a_metric_that_is_not_always_defined_does_not_decide():
    assert ALL.best([{"dsc": 0.6}, {"dsc": 0.5, "clu_recall": 1.0}]) == 0


def test_a_perfect_prediction_scores_one():
    labels = np.zeros(GRID.shape, dtype=np.int32)
    labels[2:6, 2:6, 2:6] = 1
    visit = Visit({"flair": Volume(labels, GRID)}, {"instances": Volume(labels, GRID)})

    def perfect(study):
        return LesionMaps((study.followup.labels["instances"].array > 0).astype(np.float32), GRID)

    scores = ALL.score(perfect, [Study("a", (visit,))])
    assert scores["dsc"] == scores["lesion_f1"] == scores["pq"] == 1
    assert scores["dic"] == 0
    assert "clu_recall" not in scores  # no confluent unit: not defined


@pytest.mark.parametrize(
    ("selection", "why"),
    [
        (Selection(), "highest validation Dice"),
        (Selection(by=("accuracy",)), "highest validation accuracy"),
        (Selection(by=("dsc", "lesion_f1")), "highest validation Dice + lesion_f1"),
        (ALL, "best mean rank over all metrics among the 3 highest validation Dice"),
        (
            replace(ALL, by=("pq",)),
            "best mean rank over all metrics among the 3 highest validation pq",
        ),
    ],
)
def test_the_reason_names_what_ranked_the_weights(selection, why):
    assert selection.reason(3) == why


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("hd95_mm", "hd95_mm cannot rank weights"),
        ("volume_difference_mm3", "volume_difference_mm3 cannot rank weights"),
        ("clu_count", "clu_count cannot rank weights"),
        ("no_such", "no metric is called no_such"),
    ],
)
def test_weights_are_ranked_only_by_metrics_of_which_more_is_better(name, why):
    with pytest.raises(ValueError, match=why):
        Selection(by=("dsc", name))


def fractions():
    """A lesion of 0.8 and a spread of 0.3 around it."""
    soft = np.zeros(GRID.shape, dtype=np.float32)
    soft[2:7, 2:7, 2:7] = 0.3
    soft[3:6, 3:6, 3:6] = 0.8
    visit = Visit({"flair": Volume(soft, GRID)})
    return Study("a", (visit, visit), {"new": Volume(soft, GRID)}), soft


def test_a_reference_of_fractions_is_compared_with_probabilities_and_cut_at_one_half():
    study, soft = fractions()
    selection = Selection(by=("soft_dsc",))
    same = selection.scores_of_one(lambda _: LesionMaps(soft, GRID), study, "new")
    assert same["dsc"] == 1
    squares = float((soft**2).sum())
    np.testing.assert_allclose(same["soft_dsc"], squares / float(soft.sum()), rtol=1e-5)
    hard = (soft > 0.5).astype(np.float32)
    cut = selection.scores_of_one(lambda _: LesionMaps(hard, GRID), study, "new")
    np.testing.assert_allclose(cut["soft_dsc"], 2 * 27 * 0.8 / (27 + float(soft.sum())), rtol=1e-5)


def test_lesions_of_a_reference_of_fractions_are_told_apart():
    study, soft = fractions()
    maps = LesionMaps((soft > 0.5).astype(np.float32), GRID)
    scores = replace(ALL, by=("lesion_f1",)).score(lambda _: maps, [study], "new")
    assert scores["lesion_f1"] == scores["pq"] == 1
