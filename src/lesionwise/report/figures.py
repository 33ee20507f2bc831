"""Charts in one look: arrays or tables in, a matplotlib figure out; ``to_svg``.

Text and axes of an SVG take the color of the text around it, and the series colors are CSS
variables with a fixed fallback, so one chart serves light and dark pages. Series differ by marker
and line style as well as by color.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from lesionwise.metrics.agreement import bland_altman as measured_agreement
from lesionwise.metrics.statistics import wilson
from lesionwise.report.charts import (
    INK,
    LINES,
    MARKERS,
    ON_SERIES,
    chart,
    in_our_look,
    plain_ticks,
    to_svg,
)
from lesionwise.report.palette import SERIES

__all__ = [
    "INK",
    "bland_altman",
    "chart",
    "critical_difference",
    "curves",
    "detection_by_volume",
    "forest",
    "histogram",
    "named_points",
    "stacked_bars",
    "strips",
    "to_svg",
]


@in_our_look
def bland_altman(
    reference: ArrayLike,
    predicted: ArrayLike,
    patients: Sequence[str] | None = None,
    *,
    quantity: str = "Lesion volume",
    unit: str = "ml",
) -> Figure:
    """Difference against mean of two measurements, with the bias and its 95 % limits of agreement.

    Args:
        reference, predicted: (n,), one value per case; pairs with a value that is not finite are
            left out. Fewer than two patients give points without limits.
        patients: whose case each is; None makes each case a patient of its own.
    """
    first, second = _finite_pairs(reference, predicted)
    difference, mean = second - first, (first + second) / 2
    figure, axes = chart(5.4, 3.6)
    axes.scatter(mean, difference, s=26, color=SERIES[0], alpha=0.8, linewidths=0)
    axes.axhline(0, color=INK, linewidth=0.8, alpha=0.5)
    pairs = np.asarray(reference, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    found = measured_agreement(*pairs, patients)
    if found is not None:
        spread = 1.96 * found.sd
        lines = (
            (found.bias - spread, "--", "\N{MINUS SIGN}1.96 SD"),
            (found.bias, "-", "bias"),
            (found.bias + spread, "--", "+1.96 SD"),
        )
        for value, style, _ in lines:
            axes.axhline(value, color=SERIES[1], linewidth=1.2, linestyle=style)
        low, high = axes.get_ylim()
        axes.set_ylim(low, high)
        # three lines of text need this share of the height each
        gap = max(spread / (high - low), 0.07)
        for number, (value, _, name) in enumerate(lines):
            axes.annotate(
                f"{name} {value:+.2f}",
                (1, (found.bias - low) / (high - low) + (number - 1) * gap),
                xycoords="axes fraction",
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
            )
    axes.set_xlabel(f"{quantity}, mean of both ({unit})")
    axes.set_ylabel(f"predicted \N{MINUS SIGN} reference ({unit})")
    return figure


@in_our_look
def detection_by_volume(
    volume_mm3: ArrayLike | Mapping[str, ArrayLike],
    detected: ArrayLike | Mapping[str, ArrayLike],
    *,
    edges_mm3: Sequence[float] = (0, 15, 30, 60, 125, 250, 500, 1000, np.inf),
) -> Figure:
    """Share of reference lesions found, by their volume, with 95 % Wilson intervals.

    Args:
        volume_mm3: (n,) volume of each reference lesion, or one such array per method by name.
        detected: (n,) bool or 0/1, whether it was found, likewise.
        edges_mm3: bins [low, high); a bin without lesions is left blank.
    """
    volumes = volume_mm3 if isinstance(volume_mm3, Mapping) else {"": volume_mm3}
    found = detected if isinstance(detected, Mapping) else {"": detected}
    edges = np.asarray(edges_mm3, dtype=np.float64)
    bins = len(edges) - 1
    figure, axes = chart(5.8, 3.6)
    counts = np.zeros(bins, dtype=int)
    for number, name in enumerate(volumes):
        volume = np.asarray(volumes[name], dtype=np.float64)
        hit = np.asarray(found[name], dtype=np.float64)
        where = np.searchsorted(edges, volume, side="right") - 1
        inside = (where >= 0) & (where < bins)
        total = np.bincount(where[inside], minlength=bins)
        hits = np.bincount(where[inside], hit[inside], minlength=bins)
        counts = np.maximum(counts, total)
        filled = total > 0
        share = hits[filled] / total[filled]
        bounds = [
            wilson(int(n), int(of)) for n, of in zip(hits[filled], total[filled], strict=True)
        ]
        low, high = np.array(bounds, dtype=np.float64).reshape(-1, 2).T
        shift = (number - (len(volumes) - 1) / 2) * 0.16
        axes.errorbar(
            np.flatnonzero(filled) + shift,
            share,
            yerr=np.abs(np.stack([share - low, high - share])),
            color=SERIES[number % len(SERIES)],
            marker=MARKERS[number % len(MARKERS)],
            linestyle=LINES[number % len(LINES)],
            markersize=5,
            linewidth=1.3,
            elinewidth=1,
            label=name,
        )
    names = [
        f"≥ {low:g}" if np.isinf(high) else f"{low:g}\N{EN DASH}{high:g}"
        for low, high in itertools.pairwise(edges)
    ]
    axes.set_xticks(
        range(bins), [f"{name}\nn = {count}" for name, count in zip(names, counts, strict=True)]
    )
    axes.tick_params(axis="x", labelsize=8)
    axes.set(ylim=(-0.03, 1.03), xlim=(-0.5, bins - 0.5))
    axes.set_ylabel("share of lesions found")
    axes.set_xlabel("volume of the reference lesion (mm³)")
    axes.grid(axis="y")
    if any(volumes):
        axes.legend(loc="lower right")
    return figure


@in_our_look
def forest(rows: pd.DataFrame, *, label: str = "difference", reference: float = 0.0) -> Figure:
    """Estimates with their intervals, one line a row, from top to bottom.

    Args:
        rows: index = names; columns estimate, low, high. Rows whose estimate is not finite keep
            their line and say so.
        reference: where a vertical line says "no difference".
    """
    figure, axes = chart(6.0, 0.9 + 0.32 * max(len(rows), 1))
    axes.axvline(reference, color=INK, linewidth=0.8, alpha=0.5)
    for place, (_, row) in enumerate(rows.iterrows()):
        estimate, low, high = (float(row[name]) for name in ("estimate", "low", "high"))
        if not np.isfinite(estimate):
            axes.annotate("not defined", (reference, place), fontsize=8.5, va="center")
            continue
        clear = np.isfinite(low) and np.isfinite(high) and (low > reference or high < reference)
        color = SERIES[0] if clear else "#7b8794"
        axes.plot([low, high], [place, place], color=color, linewidth=1.8, solid_capstyle="butt")
        face = color if clear else "none"
        axes.plot(estimate, place, "s", markersize=6, color=color, markerfacecolor=face)
    axes.set_yticks(range(len(rows)), [str(name) for name in rows.index])
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(label)
    axes.grid(axis="x")
    return figure


@in_our_look
def critical_difference(
    mean_ranks: Mapping[str, float],
    critical: float,
    groups: Sequence[Sequence[str]] = (),
) -> Figure:
    """Mean ranks of methods on one line; bars join those that do not differ significantly.

    Args:
        mean_ranks: by method, 1 = best; at least one.
        critical: Nemenyi's critical difference, drawn to scale.
        groups: sets of methods that do not differ significantly; a set of one is not drawn.
    """
    ordered = sorted(mean_ranks.items(), key=lambda item: item[1])
    count = len(ordered)
    bars = [group for group in groups if len(group) > 1]
    half = (count + 1) // 2
    depth = 1.0 + 0.35 * len(bars)
    figure, axes = chart(6.6, 1.3 + 0.27 * half + 0.16 * len(bars))
    low, high = 1.0, max(float(count), 2.0)
    axes.set(xlim=(low - 0.15, high + 0.15), ylim=(-depth - 0.62 * half, 1.4))
    axes.plot([low, high], [0, 0], color=INK, linewidth=1.2)
    for tick in range(int(low), int(high) + 1):
        axes.plot([tick, tick], [0, 0.14], color=INK, linewidth=1)
        axes.text(tick, 0.26, str(tick), ha="center", va="bottom")
    if np.isfinite(critical) and critical > 0:
        axes.plot([low, min(low + critical, high)], [1.05, 1.05], color=SERIES[1], linewidth=2)
        axes.text(low, 1.15, f"critical difference {critical:.2f}", fontsize=8.5, va="bottom")
    for bar, group in enumerate(bars):
        ranks = [mean_ranks[name] for name in group]
        height = -0.35 * (bar + 1)
        axes.plot(
            [min(ranks) - 0.03, max(ranks) + 0.03],
            [height, height],
            color=SERIES[0],
            linewidth=4,
            solid_capstyle="butt",
        )
    for place, (name, rank) in enumerate(ordered):
        left = place < half
        row = place if left else count - 1 - place
        height = -depth - 0.55 * row
        edge = low - 0.1 if left else high + 0.1
        axes.plot([rank, rank, edge], [0, height, height], color=INK, linewidth=0.8, alpha=0.7)
        axes.text(
            edge + (-0.04 if left else 0.04),
            height,
            f"{name} ({rank:.2f})" if left else f"({rank:.2f}) {name}",
            ha="right" if left else "left",
            va="center",
        )
    axes.axis("off")
    return figure


@in_our_look
def strips(
    values: pd.DataFrame | Mapping[str, ArrayLike],
    *,
    label: str,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """One box with its points per column: the spread of one metric over cases, by method.

    Args:
        values: columns = methods, rows = cases; values that are not finite are left out.
        limits: of the value axis.
    """
    columns = {str(name): np.asarray(column, dtype=np.float64) for name, column in values.items()}
    figure, axes = chart(6.0, 0.9 + 0.5 * max(len(columns), 1))
    spread = np.random.default_rng(0)
    for place, (name, column) in enumerate(columns.items()):
        shown = column[np.isfinite(column)]
        color = SERIES[place % len(SERIES)]
        if len(shown):
            axes.boxplot(
                shown,
                positions=[place],
                orientation="horizontal",
                widths=0.55,
                showfliers=False,
                boxprops={"color": color, "linewidth": 1.2},
                whiskerprops={"color": color},
                capprops={"color": color},
                medianprops={"color": color, "linewidth": 2.2},
                manage_ticks=False,
            )
            axes.scatter(
                shown,
                place + spread.uniform(-0.17, 0.17, len(shown)),
                s=16,
                color=color,
                alpha=0.65,
                linewidths=0,
                marker=MARKERS[place % len(MARKERS)],
                zorder=3,
            )
        left_out = len(column) - len(shown)
        if left_out:
            axes.annotate(
                f"{left_out} not defined",
                (1, place),
                xycoords=("axes fraction", "data"),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        columns[name] = shown
    axes.set_yticks(range(len(columns)), list(columns))
    axes.set_ylim(max(len(columns), 1) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(label)
    axes.grid(axis="x")
    if limits is not None:
        axes.set_xlim(*limits)
    return figure


@in_our_look
def curves(
    lines: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    x_label: str,
    y_label: str,
    mark_x: float | None = None,
) -> Figure:
    """One line per name, as for scores against a threshold.

    Args:
        lines: (x, y) by name, each (n,).
        mark_x: where a vertical line marks the value in use.
    """
    figure, axes = chart(5.4, 3.5)
    if mark_x is not None:
        axes.axvline(mark_x, color=INK, linewidth=0.8, alpha=0.5)
    for number, (name, (x, y)) in enumerate(lines.items()):
        axes.plot(
            np.asarray(x),
            np.asarray(y),
            color=SERIES[number % len(SERIES)],
            linestyle=LINES[number % len(LINES)],
            marker=MARKERS[number % len(MARKERS)],
            markersize=4,
            linewidth=1.6,
            label=name,
        )
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(axis="y")
    if len(lines) > 1:
        axes.legend()
    return figure


@in_our_look
def named_points(
    points: Mapping[str, tuple[float, float]], *, x_label: str, y_label: str
) -> Figure:
    """One point with its name each; x is logarithmic where its largest is 10 times its smallest.

    Args:
        points: (x, y) by name, x > 0; a point with a y that is not finite is left out.
    """
    shown = {name: at for name, at in points.items() if np.isfinite(at[1])}
    figure, axes = chart(6.0, 3.6)
    xs = [x for x, _ in shown.values()]
    if xs and max(xs) >= 10 * min(xs):
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
    for number, (name, (x, y)) in enumerate(shown.items()):
        marker, color = MARKERS[number % len(MARKERS)], SERIES[number % len(SERIES)]
        axes.scatter(x, y, s=38, color=color, marker=marker, linewidths=0, zorder=3)
        axes.annotate(name, (x, y), (5, 4), textcoords="offset points", fontsize=8.5)
    axes.margins(x=0.18, y=0.12)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(axis="both")
    return figure


@in_our_look
def histogram(
    values: ArrayLike, *, label: str, bins: int | None = None, logarithmic: bool = False
) -> Figure:
    """How often a value occurs over cases; values that are not finite are left out.

    Args:
        bins: their number; None takes twice the cube root of the number of values, 5 to 30. Whole
            numbers get bins of a whole width, at most as many.
        logarithmic: bins of equal ratio; values of 0 and below are then left out too.
    """
    array = np.asarray(values, dtype=np.float64)
    array = array[np.isfinite(array)]
    figure, axes = chart(4.6, 2.9)
    whole = len(array) > 0 and bool((array == np.round(array)).all()) and not logarithmic
    bins = bins or int(np.clip(np.ceil(2 * np.cbrt(len(array))), 5, 30))
    edges: Any = _whole_edges(array, bins) if whole else bins
    if logarithmic:
        array = array[array > 0]
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
        if len(array):
            edges = np.geomspace(array.min() * 0.999, array.max() * 1.001, bins + 1)
    axes.hist(array, bins=edges, color=SERIES[0], alpha=0.85, rwidth=0.92)
    if whole:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(label)
    axes.set_ylabel("number")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    return figure


def _whole_edges(array: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Edges half-way between whole numbers, so that each bin holds equally many of them."""
    low, high = int(array.min()), int(array.max())
    width = -(-(high - low + 1) // bins)
    edges: NDArray[np.float64] = np.arange(low, high + width + 1, width, dtype=np.float64) - 0.5
    return edges


@in_our_look
def stacked_bars(table: pd.DataFrame, *, label: str) -> Figure:
    """One horizontal bar per row, made of the columns, each part with its number.

    Args:
        table: index = names of the bars, columns = parts, values >= 0.
    """
    figure, axes = chart(6.4, 1.0 + 0.42 * max(len(table), 1))
    start = np.zeros(len(table))
    widest = max(float(table.sum(axis=1).max()) if len(table) else 0.0, 1e-9)
    for number, part in enumerate(table.columns):
        width = table[part].to_numpy(dtype=np.float64)
        color = SERIES[number % len(SERIES)]
        axes.barh(
            np.arange(len(table)), width, left=start, height=0.68, color=color, label=str(part)
        )
        for row, value in enumerate(width):
            if value > 0.03 * widest:
                axes.text(
                    start[row] + value / 2,
                    row,
                    f"{value:g}",
                    ha="center",
                    va="center",
                    fontsize=8.5,
                    color=ON_SERIES,
                )
        start = start + width
    axes.set_yticks(range(len(table)), [str(name) for name in table.index])
    axes.set_ylim(max(len(table), 1) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(label)
    if len(table.columns) > 1:
        axes.legend(
            ncols=4, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.3, fontsize=8.5
        )
    return figure


def _finite_pairs(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    return a[finite], b[finite]
