"""The study page in a real browser: opened from disk, driven, printed, and without WebGL2."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lesionwise.report.page import StudyPage, VisitView, write_study_page
from lesionwise.types import Grid, Instances, Volume

READY = "document.getElementById('bench').dataset.viewer === 'ready'"
MARKED = (
    "return [...document.querySelectorAll('tr[aria-current=true]')]"
    ".map((row) => row.cells[0].textContent.trim())"
)
LISTED = (
    "return [...document.querySelectorAll('#lesion-table tbody tr')]"
    ".filter((row) => !row.hidden).map((row) => row.cells[0].textContent.trim())"
)
MIDDLE = """
    const box = document.querySelector(arguments[0]).getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
"""
AT_CROSSHAIR = """
    const { nv, labels } = lesionwise.viewers[arguments[0]];
    const overlay = nv.volumes[1];
    const vox = overlay.mm2vox(Array.from(nv.frac2mm(nv.scene.crosshairPos)).slice(0, 3));
    return labels[overlay.getValue(...vox) - 1] ?? null;
"""
CROSSHAIR = """
    const { nv } = lesionwise.viewers[arguments[0]];
    return Array.from(nv.frac2mm(nv.scene.crosshairPos)).slice(0, 3);
"""


@pytest.fixture(scope="module")
def page(
    browser: Any, make_study: Callable[..., StudyPage], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """The page of the small study with its viewer running."""
    path = tmp_path_factory.mktemp("one") / "study.html"
    browser.size(1400, 1000)
    browser.open(write_study_page(make_study(), path))
    browser.wait(READY, 120)
    yield browser
    problems = [entry for entry in browser.log("browser") if entry["level"] != "INFO"]
    assert not problems
    assert not browser.requests()


@pytest.fixture(autouse=True)
def _at_the_start(request: pytest.FixtureRequest) -> None:
    if "page" in request.fixturenames:
        request.getfixturevalue("page").run(
            "document.querySelector('form.filters').reset();"
            "document.querySelector('[data-view=four]').click(); scrollTo(0, 0);"
        )


def test_a_click_on_a_row_goes_to_its_lesion(page: Any) -> None:
    for label in (9, 3, 7):
        page.run("lesionwise.viewers[0].nv.scene.crosshairPos = [0.5, 0.5, 0.5]")
        row = f"#lesion-table tr[data-method=offsets][data-row='{[3, 7, 9].index(label)}']"
        page.click(*page.run(MIDDLE, row))
        assert page.run(AT_CROSSHAIR, 0) == label
        assert page.run(MARKED) == [str(label)]


def test_a_click_on_a_voxel_marks_its_row(page: Any) -> None:
    page.run("""
        const { nv } = lesionwise.viewers[0];
        const entry = lesionwise.rows.find((row) => row.label === 7 && row.method === "offsets");
        document.querySelector("[data-view=axial]").click();
        nv.scene.crosshairPos = nv.mm2frac([0, 0, entry.place[2]]);
        nv.drawScene();
        window.laidOut = false;  // the canvas takes its new size in the next frame
        requestAnimationFrame(() => requestAnimationFrame(() => { window.laidOut = true; }));
    """)
    page.wait("window.laidOut")
    at = page.run("""
        const { nv, canvas } = lesionwise.viewers[0];
        const entry = lesionwise.rows.find((row) => row.label === 7 && row.method === "offsets");
        const [x, y] = nv.frac2canvasPos(nv.mm2frac(entry.place));
        const box = canvas.getBoundingClientRect();
        return [box.x + x / nv.uiData.dpr, box.y + y / nv.uiData.dpr];
    """)
    page.click(*at)
    assert page.run(AT_CROSSHAIR, 0) == 7
    assert page.run(MARKED) == ["7"]
    assert "Lesion 7" in page.run("return document.getElementById('where').textContent")


def test_the_table_sorts_both_ways(page: Any) -> None:
    volume = "#lesion-table thead th:nth-of-type(3) button"
    assert page.run("return document.querySelector(arguments[0]).textContent", volume) == "mm³"
    page.run("document.querySelector(arguments[0]).click()", volume)
    assert page.run(LISTED) == ["7", "9", "3"]
    page.run("document.querySelector(arguments[0]).click()", volume)
    assert page.run(LISTED) == ["3", "9", "7"]
    page.run("document.querySelector('#lesion-table thead button').click()")
    page.run("document.querySelector('#lesion-table thead button').click()")


def test_the_table_filters_by_place_and_volume(page: Any) -> None:
    choose = """
        const field = document.querySelector("form.filters").elements[arguments[0]];
        field.value = arguments[1];
        field.dispatchEvent(new Event("input", { bubbles: true }));
    """
    page.run(choose, "location", "juxtacortical")
    assert page.run(LISTED) == ["7"]
    page.run(choose, "location", "")
    page.run(choose, "volume", "500")
    assert sorted(page.run(LISTED)) == ["7", "9"]


def test_keys_walk_through_the_table(page: Any) -> None:
    page.run("document.querySelector('#lesion-table tbody tr').focus()")
    first, second, *_ = page.run(LISTED)
    page.press("\ue007")  # Enter
    assert page.run(MARKED) == [first]
    page.press("\ue015")  # arrow down
    assert page.run(MARKED) == [second]
    assert page.run(AT_CROSSHAIR, 0) == int(second)


def test_another_way_of_telling_apart_changes_table_and_scan(page: Any) -> None:
    page.run("""
        const field = document.querySelector("form.filters").elements.method;
        field.value = "cc";
        field.dispatchEvent(new Event("change", { bubbles: true }));
    """)
    page.wait("lesionwise.viewers[0].method === 'cc'")
    assert page.run(LISTED) == ["3", "7"]
    page.run("""
        const entry = lesionwise.rows.find((row) => row.label === 9);
        const { nv } = lesionwise.viewers[0];
        nv.scene.crosshairPos = nv.mm2frac(entry.place);
    """)
    assert page.run(AT_CROSSHAIR, 0) == 7
    page.run("document.querySelector('form.filters').reset()")
    page.wait("lesionwise.viewers[0].method === 'offsets'")


def test_the_theme_switches(page: Any) -> None:
    color = "return getComputedStyle(document.body).backgroundColor"
    before = page.run(color)
    page.run("document.querySelector('[data-theme-switch]').click()")
    assert page.run(color) != before
    page.run("document.querySelector('[data-theme-switch]').click()")
    assert page.run(color) == before


def test_prints_on_a4_without_controls(page: Any) -> None:
    pdf = page.pdf()
    assert pdf.startswith(b"%PDF")
    boxes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    assert boxes
    for width, height in boxes:
        assert (float(width), float(height)) == pytest.approx((595.3, 841.9), abs=1.5)


def test_two_visits_move_together(
    browser: Any, make_study: Callable[..., StudyPage], tmp_path: Any
) -> None:
    browser.open(write_study_page(make_study(visits=2), tmp_path / "study.html"))
    browser.wait(READY, 120)
    browser.run("lesionwise.goTo(lesionwise.rows[0])")
    assert browser.run(CROSSHAIR, 0) == pytest.approx(browser.run(CROSSHAIR, 1), abs=0.1)
    browser.run("document.getElementById('canvas-0').focus()")
    before = browser.run(CROSSHAIR, 0)
    browser.press("\ue00e")  # page up
    after = browser.run(CROSSHAIR, 0)
    assert after[2] == pytest.approx(before[2] + 2, abs=0.1)
    assert browser.run(CROSSHAIR, 1) == pytest.approx(after, abs=0.1)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1400, 900), (800, 900)])
def test_what_is_new_stands_on_the_first_screen(
    browser: Any, changed: StudyPage, tmp_path: Any, size: tuple[int, int], theme: str
) -> None:
    path = write_study_page(changed, tmp_path / "study.html")
    browser.size(*size)
    browser.open(path)
    browser.run("localStorage.setItem('lesionwise-theme', arguments[0])", theme)
    browser.open(path)
    browser.wait(READY, 120)
    seen = """
        const box = document.querySelector(arguments[0]).getBoundingClientRect();
        return [box.left >= 0, box.top >= 0, box.right <= innerWidth, box.bottom <= innerHeight];
    """
    for part in ("[data-only=new]", ".finding[data-state=new] img", ".finding .why"):
        assert browser.run(seen, part) == [True] * 4, part
    assert browser.run("return document.querySelector('[data-only=new] b').textContent") == "1"
    assert browser.run("return document.documentElement.dataset.theme") == theme
    assert browser.run(AT_CROSSHAIR, 1) == 3
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    browser.run("localStorage.clear()")
    browser.size(1400, 1000)


def test_a_tile_filters_the_findings_and_both_tables(
    browser: Any, changed: StudyPage, tmp_path: Any
) -> None:
    browser.open(write_study_page(changed, tmp_path / "study.html"))
    browser.wait(READY, 120)
    left = """
        return [".finding", "#change-table tbody tr", "#lesion-table tbody tr"].map((rows) =>
            [...document.querySelectorAll(rows)].filter((row) => !row.hidden)
                .map((row) => row.dataset.state));
    """
    everything = browser.run(left)
    browser.run("document.querySelector('[data-only=enlarging]').click()")
    both_visits = ["enlarging"] * 2  # the table of lesions has a row for either visit
    assert browser.run(left) == [["enlarging"], ["enlarging"], both_visits]
    browser.run("document.querySelector('[data-only=enlarging]').click()")
    assert browser.run(left) == everything


def test_an_outline_leaves_the_lesion_visible_on_thick_slices(
    browser: Any, changed: StudyPage, tmp_path: Any
) -> None:
    grid = Grid((20, 24, 6), np.diag([2.0, 2.0, 8.0, 1.0]))
    labels = np.zeros(grid.shape, dtype=np.int32)
    labels[8:12, 10:14, 3] = 5  # in one slice only
    image = np.full(grid.shape, 100, dtype=np.float32)
    image[labels > 0] = 180
    visit = VisitView("", Volume(image, grid), {"cc": Instances(labels, grid)})
    lesions = pd.DataFrame({"label": [5], "volume_mm3": [512.0]})
    browser.open(write_study_page(StudyPage("t", "s", (visit,), lesions), tmp_path / "p.html"))
    browser.wait(READY, 120)
    color = browser.run("""
        const { nv } = lesionwise.viewers[0];
        nv.opts.crosshairWidth = 0;
        nv.scene.crosshairPos = nv.mm2frac(lesionwise.rows[0].place);
        nv.drawScene();
        const [x, y] = nv.frac2canvasPos(nv.mm2frac(lesionwise.rows[0].place)).map((p) => p * 1);
        const pixel = new Uint8Array(4);
        nv.gl.readPixels(x, nv.gl.canvas.height - y, 1, 1, nv.gl.RGBA, nv.gl.UNSIGNED_BYTE, pixel);
        return [...pixel];
    """)
    red, green, blue, _ = color
    assert max(red, green, blue) - min(red, green, blue) <= 3  # the gray of the scan
    assert red > 200


def test_the_changes_are_printed_first_and_on_four_pages(
    browser: Any, changed: StudyPage, tmp_path: Any
) -> None:
    browser.open(write_study_page(changed, tmp_path / "study.html"))
    browser.wait(READY, 120)
    pages = len(re.findall(rb"/Type\s*/Page\b", browser.pdf()))
    assert 1 <= pages <= 4
    order = browser.run("""
        const parts = [".answer", "#findings", "#changes", ".slices"];
        const all = [...document.querySelectorAll("*")];
        return parts.map((part) => all.indexOf(document.querySelector(part)));
    """)
    assert order == sorted(order)


def test_a_subject_called_script_is_text(
    browser: Any, make_study: Callable[..., StudyPage], tmp_path: Any
) -> None:
    name = "</script><script>window.broken = true</script><b>x"
    study = make_study(subject=name)
    lesions = study.lesions.replace({"periventricular": name})
    path = write_study_page(replace(study, lesions=lesions), tmp_path / "study.html")
    browser.open(path)
    browser.wait(READY, 120)
    assert browser.run("return window.broken ?? false") is False
    assert name in browser.run("return document.querySelector('h1').textContent")
    assert browser.run("return lesionwise.rows[0].location") == name


def test_without_webgl2_pictures_stand_in(
    programs: tuple[str, str],
    browser_module: ModuleType,
    make_study: Callable[..., StudyPage],
    tmp_path: Any,
) -> None:
    path = write_study_page(make_study(), tmp_path / "study.html")
    with browser_module.browse(programs, browser_module.NO_GL) as browser:
        browser.open(path)
        browser.wait("document.getElementById('bench').dataset.viewer === 'none'")
        assert "WebGL2" in browser.run("return document.querySelector('.no-viewer').innerText")
        assert browser.run("return document.querySelector('.slices img').naturalWidth") > 300
        browser.run("document.querySelector('#lesion-table tbody tr').click()")
        assert browser.run(MARKED) == ["3"]
        assert browser.run("return document.querySelectorAll('.slices .ring').length") == 1
        assert not [entry for entry in browser.log("browser") if entry["level"] == "SEVERE"]
        assert not browser.requests()
