"""Results over all cases of an evaluation: cohorts, comparisons, agreement, detection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from lesionwise.metrics.agreement import (
    BlandAltman,
    DetectionByVolume,
    bland_altman,
    detection_by_volume,
)
from lesionwise.metrics.case import KEYS, CaseResult, Options, Value
from lesionwise.metrics.names import NAMES, mean_and_sd
from lesionwise.metrics.slices import SliceScores, SliceTable, balance, classify, join
from lesionwise.metrics.statistics import (
    PairedComparison,
    RankComparison,
    Summary,
    compare_methods,
    holm,
    rank_methods,
    summarize,
)

SHORT = (
    *("dsc", "ppv", "sensitivity", "hd95_mm", "assd_mm", "relative_volume_difference"),
    *("lesion_precision", "lesion_recall", "lesion_f1", "dic", "pq", "clu_recall"),
    "challenge_f1",
)
"""The metrics of the short table."""

MAIN = ("dsc", "lesion_f1", "pq", "hd95_mm", "dic")
"""The metrics whose comparisons are printed; files and page hold the others too."""

LOWER_IS_BETTER = frozenset(
    [
        *("hd95_mm", "assd_mm", "volume_difference_mm3", "relative_volume_difference"),
        *("lesion_fp", "lesion_fn", "lesion_fpr", "dic"),
        *("false_lesion_count", "false_lesion_volume_mm3"),
    ]
)
SIGNED = frozenset(("volume_difference_mm3", "relative_volume_difference"))
"""Compared between methods by absolute value, since 0 is best."""

NOT_COMPARED = frozenset(("clu_count",))
"""Says something about the reference, nothing about a method."""


@dataclass(frozen=True, eq=False)
class ScoredCase:
    """One case scored by one method.

    Attributes:
        case: its name, such as sub-01_ses-02.
        method: whose prediction it is.
        reference_kind, prediction_kind: how the labels were read: "mask" (made into components),
            "instances", "classes" (labels joined into a mask), "label N" or of how many raters.
        reference_volume_mm3, prediction_volume_mm3: of all that is marked.
        result: every metric, and a row per lesion.
        notes: what was resolved or surprising about the files, one line each.
        slices: rows for slice scores, None unless asked for.
        patient: whose scan it is; sessions of one patient share it. Empty: a patient of its own.
    """

    case: str
    method: str
    reference: tuple[Path, ...]
    prediction: Path
    reference_kind: str
    prediction_kind: str
    reference_volume_mm3: float
    prediction_volume_mm3: float
    result: CaseResult
    notes: tuple[str, ...] = ()
    slices: SliceTable | None = None
    patient: str = ""

    @property
    def reference_count(self) -> int:
        return sum(row.side == "reference" for row in self.result.lesions)

    @property
    def prediction_count(self) -> int:
        return sum(row.side == "prediction" for row in self.result.lesions)

    def value(self, key: str) -> Value:
        """One metric, None where it is undefined."""
        return self.result.values[key]  # noqa: PD011

    def flat(self) -> dict[str, Any]:
        """Every number of the case by key, without the reasons for those that are undefined."""
        return {
            "case": self.case,
            "patient": self.patient or self.case,
            "method": self.method,
            **{key: self.value(key) for key in KEYS},
            "reference_lesions": self.reference_count,
            "prediction_lesions": self.prediction_count,
            "reference_volume_mm3": self.reference_volume_mm3,
            "prediction_volume_mm3": self.prediction_volume_mm3,
            "reference_kind": self.reference_kind,
            "prediction_kind": self.prediction_kind,
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All cases of an evaluation, and the results over them.

    Attributes:
        reference: the file or folder, or several where raters were given.
        predictions: by method name, in the order given.
        cases: by case, then method.
        failures: what could not be scored, and why; by case or file name.
        notes: what holds for the whole evaluation.
        raters: one row per case and pair of raters or methods; only with several raters.
        page, folder: what was written; None where nothing was.
    """

    reference: tuple[Path, ...]
    predictions: Mapping[str, Path]
    options: Options
    cases: tuple[ScoredCase, ...]
    failures: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    raters: tuple[Mapping[str, Any], ...] = ()
    seed: int = 0
    folder: Path | None = None
    page: Path | None = None

    def amended(
        self, *, notes: tuple[str, ...] | None = None, page: Path | None = None
    ) -> Evaluation:
        """A copy with other notes or another page, which keeps the statistics computed so far."""
        changed = replace(
            self,
            notes=self.notes if notes is None else notes,
            page=self.page if page is None else page,
        )
        known = {part.name for part in fields(self)}
        vars(changed).update({name: v for name, v in vars(self).items() if name not in known})
        return changed

    def of(self, method: str) -> list[ScoredCase]:
        """The cases of one method."""
        return [case for case in self.cases if case.method == method]

    def values(self, method: str, key: str) -> list[Value]:
        """One metric of one method, case by case."""
        return [case.value(key) for case in self.of(method)]

    def patients(self, method: str) -> list[str]:
        """Whose scan each case of a method is."""
        return [case.patient or case.case for case in self.of(method)]

    @cached_property
    def clustered(self) -> bool:
        """Whether a patient has several cases, so that statistics count patients."""
        return any(len(set(found)) < len(found) for found in map(self.patients, self.predictions))

    @cached_property
    def read_as(self) -> dict[str, dict[str, int]]:
        """How the labels of the reference and of each method were read, and in how many cases."""
        references = {case.case: case.reference_kind for case in self.cases}
        read = {"reference": dict(Counter(references.values()))}
        for method in self.predictions:
            read[method] = dict(Counter(case.prediction_kind for case in self.of(method)))
        return read

    @property
    def rules(self) -> str:
        """The rules behind the numbers, in one line."""
        made = self.options
        size = (
            f"lesions below {made.min_volume_mm3:g} mm³ or {made.min_extent_mm:g} mm dropped on "
            "both sides"
            if made.size_filter == "both sides"
            else "no size filter on either side"
        )
        return (
            f"masks split into {made.connectivity}-connected components "
            f"(challenge_*: always 6); {made.matching} matching at IoU {made.comparison} "
            f"{made.iou_threshold:g}; {size}; hd95: {made.hd95}; assd: {made.assd}; "
            f"surface tolerance: {made.surface_tolerance_mm:g} mm; "
            f"empty cases: {made.empty}"
            + ("; n counts patients, whose sessions are averaged" if self.clustered else "")
        )

    @cached_property
    def cohort(self) -> dict[str, dict[str, Summary]]:
        """By method and metric."""
        return {
            method: {
                key: summarize(self.values(method, key), self.patients(method), seed=self.seed)
                for key in KEYS
            }
            for method in self.predictions
        }

    @cached_property
    def paired(self) -> dict[str, dict[str, list[float | None]]]:
        """By metric and method: values on the cases for which every method has scores."""
        return {
            key: {
                method: [
                    _comparable(key, self._by_name[name, method].value(key))
                    for name in self._shared
                ]
                for method in self.predictions
            }
            for key in KEYS
            if key not in NOT_COMPARED
        }

    @cached_property
    def comparisons(self) -> dict[str, list[PairedComparison]]:
        """Every pair of methods by metric; empty with one method or one case."""
        if len(self.predictions) < 2:
            return {}
        return {
            key: compare_methods(values, self._shared_patients, seed=self.seed)
            for key, values in self.paired.items()
            if len(next(iter(values.values()))) > 1
        }

    @cached_property
    def ranks(self) -> dict[str, RankComparison]:
        """Friedman and Nemenyi by metric, where there are three methods and two cases."""
        ranked = {
            key: rank_methods(
                values, self._shared_patients, higher_is_better=key not in LOWER_IS_BETTER
            )
            for key, values in self.paired.items()
        }
        return {key: rank for key, rank in ranked.items() if rank is not None}

    @cached_property
    def count_agreement(self) -> dict[str, BlandAltman | None]:
        """Bland-Altman of the number of lesions by method."""
        return self._agreement(lambda case: (case.reference_count, case.prediction_count))

    @cached_property
    def volume_agreement(self) -> dict[str, BlandAltman | None]:
        """Bland-Altman of the lesion volume in mm³ by method."""
        return self._agreement(lambda case: (case.reference_volume_mm3, case.prediction_volume_mm3))

    def _agreement(
        self, sides: Callable[[ScoredCase], tuple[float, float]]
    ) -> dict[str, BlandAltman | None]:
        found = {}
        for method in self.predictions:
            pairs = [sides(case) for case in self.of(method)]
            reference, predicted = [a for a, _ in pairs], [b for _, b in pairs]
            found[method] = bland_altman(reference, predicted, self.patients(method))
        return found

    @cached_property
    def detection(self) -> dict[str, DetectionByVolume]:
        """Detection probability of reference lesions against their volume, by method."""
        found = {}
        for method in self.predictions:
            rows = [
                (row.volume_mm3, row.state == "TP", case.patient or case.case)
                for case in self.of(method)
                for row in case.result.lesions
                if row.side == "reference"
            ]
            volumes, hits, whose = zip(*rows, strict=True) if rows else ((), (), ())
            found[method] = detection_by_volume(volumes, hits, whose)
        return found

    @cached_property
    def slice_tables(self) -> dict[str, SliceTable]:
        """All slices by method; without the methods that have none."""
        tables = {
            method: [case.slices for case in self.of(method) if case.slices is not None]
            for method in self.predictions
        }
        return {method: join(parts) for method, parts in tables.items() if parts}

    def slice_scores(self, *, equal_normals: bool = True) -> dict[str, SliceScores]:
        """Slice classification by method, by default with as many normal slices as positive."""
        return {
            method: classify(balance(table, self.seed) if equal_normals else table)
            for method, table in self.slice_tables.items()
        }

    @cached_property
    def comparison_rows(self) -> list[dict[str, Any]]:
        """One row per metric and pair of methods, as ``comparison.tsv`` holds them."""
        pairs = [(key, pair) for key, found in self.comparisons.items() for pair in found]
        over_all = holm([pair.wilcoxon_p for _, pair in pairs])
        return [
            _comparison_row(key, pair, p) for (key, pair), p in zip(pairs, over_all, strict=True)
        ]

    def lesion_rows(self) -> list[dict[str, Any]]:
        """One row per lesion of either side, as ``lesions.tsv`` holds them."""
        return [
            {"case": case.case, "method": case.method, **asdict(row)}
            for case in self.cases
            for row in case.result.lesions
        ]

    def tables(self) -> dict[str, pd.DataFrame]:
        """Short tables for a person, by title: the scores, then what was compared."""
        shown = {self.rules: self._scores_table()}
        if self.comparisons:
            shown["Paired comparisons (Wilcoxon, Holm within each metric)"] = pd.DataFrame(
                [_short_comparison(row) for row in self.comparison_rows if row["metric"] in MAIN]
            )
        if self.raters:
            shown["Raters"] = _raters_table(self.raters)
        return shown

    def _scores_table(self) -> pd.DataFrame:
        several = len({case.case for case in self.cases}) > 1
        named = {"metric": [NAMES[key] for key in SHORT], "key": list(SHORT)}
        if len(self.predictions) > 1:
            means = {
                method: [self._mean_and_sd(method, key) for key in SHORT]
                for method in self.predictions
            }
            return pd.DataFrame({**named, **means}, dtype=object)
        (method,) = self.predictions
        if not several:
            (case,) = self.cases
            columns: dict[str, list[Any]] = {
                **named,
                "value": [case.value(key) for key in SHORT],
            }
            if any(value is None for value in columns["value"]):
                columns["undefined because"] = [case.result.undefined.get(key, "") for key in SHORT]
            return pd.DataFrame(columns, dtype=object)
        rows = [(key, self.cohort[method][key]) for key in SHORT]
        return pd.DataFrame(
            [
                {
                    "metric": NAMES[key],
                    "key": key,
                    "mean ± SD": mean_and_sd(row.mean, row.sd) or None,
                    "median": row.median,
                    "95 % CI low": row.mean_ci[0] if row.mean_ci else None,
                    "95 % CI high": row.mean_ci[1] if row.mean_ci else None,
                    **({"patients": row.n, "cases": row.cases} if self.clustered else {"n": row.n}),
                    "undefined": row.undefined,
                }
                for key, row in rows
            ],
            dtype=object,
        )

    def _mean_and_sd(self, method: str, key: str) -> str | None:
        """Of one method; None where it has no value."""
        row = self.cohort[method][key]
        return mean_and_sd(row.mean, row.sd) or None

    @cached_property
    def _shared(self) -> list[str]:
        """The cases for which every method has scores."""
        return [
            name
            for name in dict.fromkeys(case.case for case in self.cases)
            if all((name, method) in self._by_name for method in self.predictions)
        ]

    @cached_property
    def _shared_patients(self) -> list[str]:
        first = next(iter(self.predictions))
        return [self._by_name[name, first].patient or name for name in self._shared]

    @cached_property
    def _by_name(self) -> dict[tuple[str, str], ScoredCase]:
        return {(case.case, case.method): case for case in self.cases}


def summary_row(summary: Summary) -> dict[str, Any]:
    """A summary as files hold it, with the intervals' ends side by side.

    Example:
        >>> from lesionwise.metrics.statistics import summarize
        >>> row = summary_row(summarize([0.5, 0.6, 0.7]))
        >>> row["n"], round(row["mean"], 3)
        (3, 0.6)
    """
    row = asdict(summary)
    for name in ("mean_ci", "median_ci"):
        low, high = row.pop(name) or (None, None)
        row |= {f"{name}95_low": low, f"{name}95_high": high}
    return row


def _comparable(key: str, value: Value) -> float | None:
    if value is None:
        return None
    return abs(float(value)) if key in SIGNED else float(value)


def _comparison_row(key: str, pair: PairedComparison, p_holm_all: float | None) -> dict[str, Any]:
    low, high = pair.difference_ci or (None, None)
    better = ""
    if pair.p_holm is not None and pair.difference is not None and pair.rank_biserial is not None:
        first_is_better = (pair.rank_biserial > 0) != (key in LOWER_IS_BETTER)
        better = (
            (pair.first if first_is_better else pair.second) if pair.p_holm < 0.05 else "neither"
        )
    return {
        "metric": key,
        "compared": "absolute value" if key in SIGNED else "value",
        "first": pair.first,
        "second": pair.second,
        "n": pair.n,
        "cases": pair.cases,
        "undefined": pair.undefined,
        "difference": pair.difference,
        "ci_low": low,
        "ci_high": high,
        "wilcoxon_p": pair.wilcoxon_p,
        "p_holm": pair.p_holm,
        "p_holm_all_metrics": p_holm_all,
        "t_p": pair.t_p,
        "rank_biserial": pair.rank_biserial,
        "cliffs_delta": pair.cliffs_delta,
        "cohen_dz": pair.cohen_dz,
        "better": better,
    }


def _short_comparison(row: Mapping[str, Any]) -> dict[str, Any]:
    low, high = row["ci_low"], row["ci_high"]
    return {
        "metric": NAMES[row["metric"]],
        "difference of": f"{row['first']} - {row['second']}",
        "n": row["n"],
        "mean": row["difference"],
        "95 % CI": "" if low is None else f"{low:.3g} to {high:.3g}",
        "p (Holm)": row["p_holm"],
        "better": row["better"],
    }


def _raters_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    numbers = ["dsc", "cohen_kappa", "lesion_f1"]
    means = table.groupby(["first", "second"], sort=False)[numbers].mean(numeric_only=False)
    return means.astype(float).reset_index()
