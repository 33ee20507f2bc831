import re
import xml.etree.ElementTree as ET
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from lesionwise.report import figures

RNG = np.random.default_rng(4)
EVERY_CHART: dict[str, Callable[[], Figure]] = {
    "bland_altman": lambda: figures.bland_altman([1, 2, 3], [1, 2.5, 2]),
    "detection": lambda: figures.detection_by_volume([5, 40, 400], [0, 1, 1]),
    "forest": lambda: figures.forest(
        pd.DataFrame({"estimate": [0.1], "low": [0.0], "high": [0.2]}, index=["PQ"])
    ),
    "critical": lambda: figures.critical_difference({"A": 1.2, "B": 1.8}, 0.7, [["A", "B"]]),
    "strips": lambda: figures.strips({"A": [0.1, 0.5], "B": [0.2, 0.3]}, label="PQ"),
    "curves": lambda: figures.curves({"A": ([0, 1], [0, 1])}, x_label="x", y_label="y"),
    "histogram": lambda: figures.histogram([1, 2, 3], label="n", logarithmic=True),
    "bars": lambda: figures.stacked_bars(pd.DataFrame({"a": [1]}, index=["x"]), label="n"),
}
EMPTY_CHART: dict[str, Callable[[], Figure]] = {
    "bland_altman": lambda: figures.bland_altman([], []),
    "one pair": lambda: figures.bland_altman([1.0], [2.0]),
    "not finite": lambda: figures.bland_altman([np.nan, 1], [1, np.inf]),
    "detection": lambda: figures.detection_by_volume([], []),
    "forest": lambda: figures.forest(pd.DataFrame(columns=["estimate", "low", "high"])),
    "one method": lambda: figures.critical_difference({"A": 1.0}, np.nan),
    "strips": lambda: figures.strips({"A": [np.nan]}, label="PQ"),
    "no strips": lambda: figures.strips({}, label="PQ"),
    "curves": lambda: figures.curves({}, x_label="x", y_label="y"),
    "histogram": lambda: figures.histogram([0, -1], label="n", logarithmic=True),
    "bars": lambda: figures.stacked_bars(pd.DataFrame(), label="n"),
}


@pytest.mark.parametrize("draw", EVERY_CHART.values(), ids=EVERY_CHART)
def test_an_svg_is_sound_and_loads_nothing(draw: Callable[[], Figure]) -> None:
    svg = figures.to_svg(draw())
    root = ET.fromstring(svg)
    assert root.tag.endswith("svg")
    for element in root.iter():
        for name, value in element.attrib.items():
            if name.endswith("href"):
                assert value.startswith("#")


@pytest.mark.parametrize("draw", EVERY_CHART.values(), ids=EVERY_CHART)
def test_text_of_an_svg_takes_the_color_of_the_page(draw: Callable[[], Figure]) -> None:
    svg = figures.to_svg(draw())
    assert figures.INK not in svg
    assert "currentColor" in svg


@pytest.mark.parametrize("draw", EMPTY_CHART.values(), ids=EMPTY_CHART)
def test_too_little_to_draw_gives_a_chart_without_fault(draw: Callable[[], Figure]) -> None:
    assert figures.to_svg(draw()).startswith("<svg")


def test_two_charts_share_no_identifier() -> None:
    one, two = (figures.to_svg(EVERY_CHART[name]()) for name in ("strips", "curves"))
    identifiers = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (one, two)]
    assert all(identifiers)
    assert identifiers[0].isdisjoint(identifiers[1])


def test_every_reference_in_an_svg_has_its_target() -> None:
    svg = figures.to_svg(EVERY_CHART["detection"]())
    wanted = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    assert wanted
    assert wanted <= set(re.findall(r' id="([^"]+)"', svg))


def test_names_are_escaped() -> None:
    svg = figures.to_svg(figures.strips({"<script>": [0.1, 0.2]}, label="PQ"))
    assert "<script" not in svg
    assert "&lt;script&gt;" in svg


def test_the_same_values_give_the_same_svg() -> None:
    one, two = (figures.to_svg(EVERY_CHART["strips"]()) for _ in range(2))
    assert one == two


def test_bland_altman_writes_bias_and_limits() -> None:
    svg = figures.to_svg(figures.bland_altman([0, 0, 0, 0], [1, 3, 1, 3]))
    spread = 1.96 * np.std([1, 3, 1, 3], ddof=1)
    assert "bias +2.00" in svg
    assert f"+1.96 SD {2 + spread:+.2f}" in svg


def test_names_of_limits_that_coincide_stand_apart() -> None:
    figure = figures.bland_altman([1, 2, 3], [1, 2, 3])
    heights = sorted(text.xy[1] for text in figure.axes[0].texts)
    assert len(heights) == 3
    assert min(np.diff(heights)) > 0.06


def test_detection_counts_lesions_per_bin() -> None:
    svg = figures.to_svg(
        figures.detection_by_volume([14, 15, 16, 5000], [1, 0, 1, 1], edges_mm3=(0, 15, np.inf))
    )
    assert "n = 1" in svg
    assert "n = 3" in svg
