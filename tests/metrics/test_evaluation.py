"""What cases say together."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lesionwise.metrics.case import KEYS, CaseResult, Options
from lesionwise.metrics.evaluation import (
    LOWER_IS_BETTER,
    NOT_COMPARED,
    SIGNED,
    Evaluation,
    ScoredCase,
)
from lesionwise.metrics.names import NAMES, mean_and_sd


def scored(case, method, **values):
    """A case whose metrics are 0.5 save for those given."""
    every = dict.fromkeys(KEYS, 0.5) | values
    return ScoredCase(
        case=case,
        method=method,
        reference=(Path("r"),),
        prediction=Path("p"),
        reference_kind="mask",
        prediction_kind="mask",
        reference_volume_mm3=100.0,
        prediction_volume_mm3=100.0 * float(every["dsc"] or 0),
        result=CaseResult(
            values=every,
            undefined={key: "because" for key in KEYS if every[key] is None},
            lesions=(),
            relations=(),
            challenge=None,  # type: ignore[arg-type]
            options={},
        ),
    )


def evaluation(key, **methods):
    """Methods by name with one value per case of one metric."""
    cases = [
        scored(f"c{number}", method, **{key: value})
        for method, values in methods.items()
        for number, value in enumerate(values)
        if value != "missing"
    ]
    return Evaluation(
        reference=(Path("r"),),
        predictions={method: Path(method) for method in methods},
        options=Options(),
        cases=tuple(cases),
    )


UP = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
DOWN = [value - 0.05 for value in UP]


def test_more_is_better_for_overlap_and_less_for_distance():
    for key, winner in (("dsc", "high"), ("hd95_mm", "low")):
        rows = evaluation(key, high=UP, low=DOWN).comparison_rows
        (row,) = [row for row in rows if row["metric"] == key]
        assert row["better"] == winner
        assert row["p_holm"] == pytest.approx(2 / 2**7)


def test_methods_that_do_not_differ_have_no_winner():
    rows = evaluation("dsc", a=UP, b=UP).comparison_rows
    assert {row["better"] for row in rows} == {"neither"}


def test_signed_differences_are_compared_by_their_size():
    rows = evaluation("volume_difference_mm3", a=[-9.0, -9, -9], b=[1.0, 1, 1]).comparison_rows
    (row,) = [row for row in rows if row["metric"] == "volume_difference_mm3"]
    assert row["difference"] == 8.0
    assert row["compared"] == "absolute value"


def test_correction_over_all_metrics_is_never_milder():
    for row in evaluation("dsc", a=UP, b=DOWN).comparison_rows:
        assert row["p_holm_all_metrics"] >= row["p_holm"]


def test_only_cases_scored_by_every_method_are_compared():
    found = evaluation("dsc", a=[0.9, 0.8, 0.7], b=[0.5, "missing", 0.5])
    assert found.paired["dsc"] == {"a": [0.9, 0.7], "b": [0.5, 0.5]}
    assert found.cohort["a"]["dsc"].n == 3


def test_undefined_values_are_counted_by_method():
    summary = evaluation("dsc", a=[0.5, None, 0.7]).cohort["a"]["dsc"]
    assert (summary.n, summary.undefined) == (2, 1)
    assert summary.mean == pytest.approx(0.6)


def test_one_method_has_nothing_to_compare():
    alone = evaluation("dsc", a=UP)
    assert alone.comparisons == {}
    assert alone.comparison_rows == []
    assert list(alone.tables()) == [alone.rules]


def test_three_methods_are_ranked():
    ranks = evaluation("dsc", a=UP, b=DOWN, c=[v - 0.1 for v in UP]).ranks
    assert ranks["dsc"].mean_ranks == {"a": 1, "b": 2, "c": 3}
    assert set(ranks) == set(KEYS) - NOT_COMPARED


def test_agreement_is_that_of_the_volumes():
    found = evaluation("dsc", a=[0.5, 0.7, 0.9]).volume_agreement["a"]
    assert found.bias == pytest.approx(np.mean([-50, -30, -10]))


def test_a_copy_with_other_notes_keeps_the_statistics():
    found = evaluation("dsc", a=UP, b=DOWN)
    cohort = found.cohort
    copy = found.amended(notes=("x",), page=Path("p"))
    assert copy.cohort is cohort
    assert (copy.notes, copy.page, found.notes) == (("x",), Path("p"), ())


def test_every_named_metric_exists():
    assert set(KEYS) >= LOWER_IS_BETTER | SIGNED | NOT_COMPARED


def test_rules_name_every_choice():
    rules = evaluation("dsc", a=UP).rules
    for part in ("26-connected", "always 6", "greedy", "IoU > 0.1", "no size filter", "pooled"):
        assert part in rules


def sessions(values, patients):
    """One method; the case of each value belongs to a patient."""
    found = evaluation("dsc", a=values)
    cases = [replace(c, patient=p) for c, p in zip(found.cases, patients, strict=True)]
    return replace(found, cases=tuple(cases))


def test_n_counts_patients_where_they_have_several_sessions():
    found = sessions([0.2, 0.4, 0.9, 0.5], ["p", "p", "q", "r"])
    assert found.clustered
    assert "n counts patients" in found.rules
    assert found.cohort["a"]["dsc"].n == 3
    (table,) = found.tables().values()
    row = table[table["key"] == "dsc"].iloc[0]
    assert (row["patients"], row["cases"]) == (3, 4)
    assert row["mean ± SD"] == "0.57 ± 0.31"
    assert found.volume_agreement["a"].n == 3


def test_one_session_a_patient_is_not_called_clustered():
    assert not sessions([0.2, 0.4], ["p", "q"]).clustered


def test_every_metric_has_a_name():
    assert set(NAMES) == set(KEYS)
    assert len(set(NAMES.values())) == len(NAMES)


def test_mean_and_sd_have_decimals_that_fit_the_spread():
    assert mean_and_sd(0.71234, 0.0812) == "0.712 ± 0.081"
    assert mean_and_sd(0.71, 0.25) == "0.71 ± 0.25"
    assert mean_and_sd(1234.5, 321.0) == "1234 ± 321"
    assert mean_and_sd(0.5, None) == "0.5"
    assert mean_and_sd(None, None) == ""
