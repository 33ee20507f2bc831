"""The page of an evaluation: tables, charts and overlays in one file that needs no network."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from lesionwise.metrics.agreement import BlandAltman
from lesionwise.metrics.evaluation import SHORT, Evaluation
from lesionwise.metrics.names import NAMES
from lesionwise.metrics.slices import balance, threshold_curves
from lesionwise.report import figures
from lesionwise.report.charts import write_figure
from lesionwise.report.contents import heading
from lesionwise.report.evaluation_methods import methods_text
from lesionwise.report.overlay import BOTH, FALSE, MISSED, css, overlay_png
from lesionwise.report.render import data_uri, number, shown, write_page
from lesionwise.types import Instances, Volume

STRIPS = ("dsc", "lesion_f1", "lesion_precision", "lesion_recall", "pq", "hd95_mm")
"""The metrics whose spread over cases is drawn."""

COMPARED_COLUMNS = (
    *("metric", "first", "second", "n", "difference", "ci_low", "ci_high"),
    *("wilcoxon_p", "p_holm", "rank_biserial", "better"),
)


@dataclass(frozen=True, eq=False)
class Picture:
    """A case to show: both sides, and the scan where it is known, on one grid."""

    title: str
    reference: Instances
    prediction: Instances
    image: Volume | None = None


@dataclass(frozen=True, eq=False)
class Chart:
    """A chart, what it shows in words, and what its files are called."""

    figure: Figure
    alt: str
    name: str

    @property
    def svg(self) -> Markup:
        """For a page; the figure's own text is escaped in it."""
        return Markup(figures.to_svg(self.figure))


@dataclass(frozen=True)
class Overlay:
    """A picture as an address that a page can hold, and its caption."""

    source: str
    caption: str


@dataclass(frozen=True, eq=False)
class Section:
    """One part of the page: a heading, text, a key of colors, charts, pictures, a table, a list."""

    title: str
    text: str = ""
    paragraphs: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()
    key: Mapping[str, str] = field(default_factory=dict)
    charts: tuple[Chart, ...] = ()
    pictures: tuple[Overlay, ...] = ()
    table: Mapping[str, Any] | None = None


def write_evaluation_page(
    evaluation: Evaluation,
    path: Path,
    pictures: Sequence[Picture] = (),
    figures_folder: Path | None = None,
) -> Path:
    """Write the page of an evaluation; returns where it lies.

    Args:
        pictures: cases to show as overlays, such as the best, the median and the worst.
        figures_folder: where every chart is written as SVG and PDF too; None writes none.
    """
    parts = list(sections(evaluation, pictures))
    if figures_folder is not None:
        for chart in (chart for part in parts for chart in part.charts):
            write_figure(chart.figure, figures_folder / chart.name)
    cases = len({case.case for case in evaluation.cases})
    methods = len(evaluation.predictions)
    scored = {
        "reference": [str(each) for each in evaluation.reference],
        "predictions": [f"{name}: {where}" for name, where in evaluation.predictions.items()],
        "read as": [f"{side}: {_kinds(kinds)}" for side, kinds in evaluation.read_as.items()],
        "rules": evaluation.rules,
        "seed": evaluation.seed,
    }
    return write_page(
        path,
        "evaluation.html",
        title="Evaluation",
        lead=f"{cases} {'case' if cases == 1 else 'cases'}, "
        f"{methods} {'method' if methods == 1 else 'methods'}",
        scored=scored,
        sections=parts,
        notes=evaluation.notes,
        failures=list(evaluation.failures.values()),
    )


def sections(evaluation: Evaluation, pictures: Sequence[Picture] = ()) -> Iterator[Section]:
    """The parts of the page, in order; a part that has nothing to say is left out."""
    several = len({case.case for case in evaluation.cases}) > 1
    yield Section("Scores", table=grid(next(iter(evaluation.tables().values()))))
    if several:
        yield _spread(evaluation)
    if evaluation.comparisons:
        yield _compared(evaluation)
    if several:
        yield _agreement(evaluation)
    detected = _detected(evaluation)
    if detected:
        yield detected
    if evaluation.slice_tables:
        yield _slices(evaluation)
    if evaluation.raters:
        yield Section(
            "Raters",
            "Agreement of each rater with the others and with each method, averaged over cases. "
            "Kappa includes all background voxels of the image.",
            table=grid(evaluation.tables()["Raters"]),
        )
    if pictures:
        yield Section(
            "Cases",
            "Slices with the most lesion voxels. The patient's right is on the left.",
            key={
                "on both sides": css(BOTH),
                "only in the reference: missed": css(MISSED),
                "only in the prediction: false": css(FALSE),
            },
            pictures=tuple(
                Overlay(
                    data_uri(overlay_png(each.reference, each.prediction, each.image), "image/png"),
                    each.title,
                )
                for each in pictures
            ),
        )
    about = methods_text(evaluation)
    yield Section(
        "Methods text to quote",
        "The same text is in methods.txt.",
        paragraphs=about.paragraphs,
        listed=about.references,
    )
    yield Section("Every case", table=grid(_cases(evaluation)))
    undefined = _undefined(evaluation)
    if len(undefined):
        yield Section(
            "Undefined values",
            "Undefined values are left out of means and counted, never replaced.",
            table=grid(undefined),
        )


def grid(table: pd.DataFrame) -> dict[str, Any]:
    """A table as the page's templates take it; a column is numeric where no cell holds text."""
    numeric = [not any(isinstance(cell, str) for cell in table[name]) for name in table.columns]
    whole = [all(map(_whole, table[name])) for name in table.columns]
    return {
        "columns": [
            {"name": heading(str(name)), "kind": "number" if numbers else "text"}
            for name, numbers in zip(table.columns, numeric, strict=True)
        ],
        "rows": [
            [
                {
                    "text": _text(int(cell) if counts and _finite(cell) else cell),
                    "value": _sort_value(cell),
                    "link": "",
                }
                for cell, counts in zip(row, whole, strict=True)
            ]
            for row in table.itertuples(index=False, name=None)
        ],
    }


def _text(value: Any) -> str:
    """A cell for reading: three significant digits, a dash for what is missing.

    Values with a spread or an interval do not break between lines.
    """
    if isinstance(value, str):
        spread = re.match(r"[-\N{MINUS SIGN}.\d].* (±|to) ", value)
        return value.replace(" ", "\N{NO-BREAK SPACE}") if spread else value
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return number(int(value))
    if not isinstance(value, float | np.floating):
        return shown(value)
    plain = float(value)
    if not np.isfinite(plain):
        return shown(None)
    if plain == 0 or abs(plain) >= 1000:
        return number(plain)
    return f"{plain:#.3g}".rstrip(".").replace("-", "\N{MINUS SIGN}")


def _finite(value: Any) -> bool:
    return isinstance(value, float | np.floating) and bool(np.isfinite(value))


def _whole(value: Any) -> bool:
    """Whether a column that holds the value may still be one of counts."""
    return not _finite(value) or float(value).is_integer()


def _sort_value(value: Any) -> str:
    missing = value is None or (isinstance(value, float) and not np.isfinite(value))
    return "" if missing else str(value)


def _file_name(*parts: str) -> str:
    """A name for files, of letters, digits and hyphens; other signs add a short hash."""
    name = "-".join(parts)
    plain = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
    if re.fullmatch(r"[A-Za-z0-9_-]+", name):
        return plain
    return f"{plain}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:6]}"


def _kinds(kinds: Mapping[str, int]) -> str:
    """``instances (3 cases), classes (1 case)``."""
    return ", ".join(f"{kind} ({n} {'case' if n == 1 else 'cases'})" for kind, n in kinds.items())


def _spread(evaluation: Evaluation) -> Section:
    charts = []
    for key in STRIPS:
        values = {
            method: np.array(
                [np.nan if v is None else float(v) for v in evaluation.values(method, key)]
            )
            for method in evaluation.predictions
        }
        if any(np.isfinite(column).any() for column in values.values()):
            limits = None if key.endswith("_mm") else (0.0, 1.0)
            drawn = figures.strips(values, label=NAMES[key], limits=limits)
            alt = f"{NAMES[key]} by method, one point per case"
            charts.append(Chart(drawn, alt, _file_name("spread", key)))
    return Section("Spread over cases", "One point per case.", charts=tuple(charts))


def _compared(evaluation: Evaluation) -> Section:
    charts = []
    for key in ("dsc", "lesion_f1"):
        rows = {
            f"{pair.first} - {pair.second}": (pair.difference, *(pair.difference_ci or (None,) * 2))
            for pair in evaluation.comparisons.get(key, [])
        }
        if rows:
            frame = pd.DataFrame.from_dict(
                rows, orient="index", columns=["estimate", "low", "high"], dtype=np.float64
            )
            drawn = figures.forest(frame, label=f"difference in {NAMES[key]}")
            alt = f"Differences in {NAMES[key]} between methods with intervals"
            charts.append(Chart(drawn, alt, _file_name("differences", key)))
        ranks = evaluation.ranks.get(key)
        if ranks is not None:
            drawn = figures.critical_difference(
                ranks.mean_ranks, ranks.critical_difference, ranks.groups
            )
            alt = f"Mean ranks by {NAMES[key]} with the critical difference"
            charts.append(Chart(drawn, alt, _file_name("ranks", key)))
    rows_of = [
        row | {"metric": NAMES[row["metric"]]}
        for row in evaluation.comparison_rows
        if row["metric"] in SHORT
    ]
    return Section(
        "Methods compared",
        "Differences are first - second, on cases for which both have a value, with BCa bootstrap "
        "95 % intervals. p is from the Wilcoxon signed-rank test with Holm's correction within "
        "each metric. In rank diagrams, bars join methods that Nemenyi's test does not separate.",
        charts=tuple(charts),
        table=grid(pd.DataFrame(rows_of)[list(COMPARED_COLUMNS)]),
    )


def _agreement(evaluation: Evaluation) -> Section:
    charts, rows = [], []
    for method in evaluation.predictions:
        cases = evaluation.of(method)
        counts = ([c.reference_count for c in cases], [c.prediction_count for c in cases])
        volumes = (
            [c.reference_volume_mm3 / 1000 for c in cases],
            [c.prediction_volume_mm3 / 1000 for c in cases],
        )
        of = f" ({method})" if len(evaluation.predictions) > 1 else ""
        for pair, quantity, unit in (
            (counts, f"Lesion count{of}", "lesions"),
            (volumes, f"Lesion volume{of}", "ml"),
        ):
            drawn = figures.bland_altman(
                pair[0], pair[1], evaluation.patients(method), quantity=quantity, unit=unit
            )
            name = _file_name("agreement", "count" if unit == "lesions" else "volume", method)
            charts.append(Chart(drawn, f"{quantity}: difference against mean", name))
        rows += [
            _agreement_row(method, "lesion count", evaluation.count_agreement[method]),
            _agreement_row(method, "lesion volume (mm³)", evaluation.volume_agreement[method]),
        ]
    return Section(
        "Agreement in count and volume",
        "Bland-Altman: prediction - reference. A slope with a small p means that the bias grows "
        "with the size. Where patients have several cases, n counts patients, and the limits are "
        "for one case: they cover the variance between and within patients.",
        charts=tuple(charts),
        table=grid(pd.DataFrame([row for row in rows if row])),
    )


def _agreement_row(method: str, quantity: str, found: BlandAltman | None) -> dict[str, Any]:
    if found is None:
        return {}
    return {
        "method": method,
        "quantity": quantity,
        "n": found.n,
        "bias": found.bias,
        "95 % CI": f"{_text(found.bias_ci[0])} to {_text(found.bias_ci[1])}",
        "lower limit": found.lower,
        "upper limit": found.upper,
        "slope": found.slope,
        "p of slope": found.slope_p,
    }


def _detected(evaluation: Evaluation) -> Section | None:
    volumes: dict[str, Any] = {}
    hits: dict[str, Any] = {}
    rows = []
    for method, found in evaluation.detection.items():
        if not found.n:
            continue
        lesions = [
            row
            for case in evaluation.of(method)
            for row in case.result.lesions
            if row.side == "reference"
        ]
        volumes[method] = np.array([row.volume_mm3 for row in lesions])
        hits[method] = np.array([row.state == "TP" for row in lesions])
        rows.append(
            {
                "method": method,
                "lesions": found.n,
                "found": found.detected,
                "odds ratio per tenfold volume": None
                if found.slope is None
                else np.exp(found.slope),
                "volume with a detection rate of one half (mm³)": found.volume_at_half_mm3,
                "no fit because": found.no_fit or None,
            }
        )
    if not rows:
        return None
    return Section(
        "Detection by volume",
        "Reference lesions found, by their volume, with Wilson 95 % intervals; the table gives a "
        "logistic fit on the logarithm of the volume.",
        charts=(
            Chart(
                figures.detection_by_volume(volumes, hits),
                "Share of lesions found by volume",
                "detection-by-volume",
            ),
        ),
        table=grid(pd.DataFrame(rows, dtype=object)),
    )


def _slices(evaluation: Evaluation) -> Section:
    charts, rows = [], []
    for method, table in evaluation.slice_tables.items():
        curve = threshold_curves(balance(table, evaluation.seed))
        thresholds = [scores.threshold for scores in curve]
        lines = {
            name: (
                thresholds,
                [np.nan if (v := getattr(s, name).value) is None else v for s in curve],
            )
            for name in ("accuracy", "sensitivity", "specificity", "ppv", "npv")
        }
        label = f"share ({method})" if len(evaluation.predictions) > 1 else "share"
        drawn = figures.curves(lines, x_label="overlap threshold", y_label=label, mark_x=0.1)
        alt = f"Slice scores of {method} against the overlap threshold"
        charts.append(Chart(drawn, alt, _file_name("slices", method)))
        scores = evaluation.slice_scores()[method]
        for name in ("accuracy", "sensitivity", "specificity", "ppv", "npv"):
            rate = getattr(scores, name)
            low, high = rate.ci or (None, None)
            rows.append(
                {
                    "method": method,
                    "rate": name,
                    "value": rate.value,
                    "95 % CI low": low,
                    "95 % CI high": high,
                    "slices": f"{rate.successes} of {rate.total}",
                }
            )
    return Section(
        "Slices",
        "A slice with lesions counts as found if the overlap of one of them reaches the threshold. "
        "As many slices without lesions as with lesions, drawn with the seed. Wilson 95 % "
        "intervals, which treat slices as independent of each other.",
        charts=tuple(charts),
        table=grid(pd.DataFrame(rows, dtype=object)),
    )


def _cases(evaluation: Evaluation) -> pd.DataFrame:
    columns = ["case", "method", *SHORT, "reference_lesions", "prediction_lesions"]
    rows = [case.flat() for case in evaluation.cases]
    return pd.DataFrame([{name: row[name] for name in columns} for row in rows], dtype=object)


def _undefined(evaluation: Evaluation) -> pd.DataFrame:
    counts: dict[tuple[str, str, str], int] = {}
    for case in evaluation.cases:
        for key, reason in case.result.undefined.items():
            at = (case.method, key, reason)
            counts[at] = counts.get(at, 0) + 1
    return pd.DataFrame(
        [
            {"method": method, "metric": NAMES[key], "cases": count, "reason": reason}
            for (method, key, reason), count in counts.items()
        ]
    )
