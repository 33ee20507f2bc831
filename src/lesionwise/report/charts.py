"""The look of every chart: style, an empty chart, and a finished one as SVG or PDF."""

from __future__ import annotations

import functools
import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from lesionwise.io.files import atomic_path
from lesionwise.report.palette import SERIES

P = ParamSpec("P")

INK = "#1d2733"
"""Text and axes; an SVG puts the color of its surroundings in its place."""

ON_SERIES = "#fffffe"
"""Text on a bar; an SVG lets the page choose what is readable there."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":")

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "svg.hashsalt": "lesionwise",
    "text.parse_math": False,  # names of methods may hold dollar signs
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "semibold",
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "legend.frameon": False,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
}


def in_our_look(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Texts and legends take their style when they are made, so the whole drawing is wrapped."""

    @functools.wraps(draw)
    def styled(*args: P.args, **keywords: P.kwargs) -> Figure:
        with mpl.rc_context(_STYLE):
            return draw(*args, **keywords)

    return styled


def chart(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    """An empty chart in the look of the others, for one that is drawn elsewhere."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
    return figure, axes


def write_figure(figure: Figure, path: Path) -> list[Path]:
    """Write a chart for a paper as ``path``.svg and ``path``.pdf, both with text as text.

    The same figure gives the same bytes. Returns the two paths.
    """
    written = []
    for extension, about in (("svg", {"Date": None}), ("pdf", {"CreationDate": None})):
        place = path.with_name(f"{path.name}.{extension}")
        with mpl.rc_context(_STYLE), atomic_path(place) as temporary:
            figure.savefig(temporary, format=extension, facecolor="white", metadata=about)
        written.append(place)
    return written


def plain_ticks(axis: Axis) -> None:
    """Numbers such as 0.1, 1 and 10 along a logarithmic axis, not powers of ten."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def to_svg(figure: Figure) -> str:
    """The chart as one ``<svg>`` element for a page: transparent, text in the page's own color.

    The same figure gives the same text. Identifiers carry a hash of the chart, so that several
    charts may stand in one page.
    """
    buffer = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(INK, "currentColor", text, flags=re.IGNORECASE)
    text = re.sub(ON_SERIES, f"var(--on-series, {ON_SERIES})", text, flags=re.IGNORECASE)
    for number, color in enumerate(SERIES, start=1):
        text = re.sub(color, f"var(--series-{number}, {color})", text, flags=re.IGNORECASE)
    text = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font-size: \1px; font-family: inherit", text)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text))
    tag = hashlib.sha256(text.encode()).hexdigest()[:8]

    def keep_or_drop(match: re.Match[str]) -> str:
        return f' id="{tag}-{match[1]}"' if match[1] in used else ""

    text = re.sub(r' id="([^"]+)"', keep_or_drop, text)
    return re.sub(r"(url\(#|href=\"#)", rf"\g<1>{tag}-", text).strip()
