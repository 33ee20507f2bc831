"""The page of an evaluation."""

import io
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import lesionwise
from lesionwise.metrics.case import Options, evaluate_case
from lesionwise.metrics.evaluation import Evaluation, ScoredCase
from lesionwise.metrics.slices import slice_table
from lesionwise.report.evaluation import Picture, grid, write_evaluation_page
from lesionwise.report.evaluation_methods import REFERENCES, methods_text
from lesionwise.report.overlay import BOTH, FALSE, MISSED, overlay_png
from lesionwise.types import Grid, Instances

GRID = Grid((12, 12, 6), np.diag([1.0, 1.0, 3.0, 1.0]))


def instances(*places):
    labels = np.zeros(GRID.shape, dtype=np.int32)
    for label, (i, j, k) in enumerate(places, start=1):
        labels[i : i + 2, j : j + 2, k] = label
    return Instances(labels, GRID)


def scored(case, method, truth, found, tmp_path):
    return ScoredCase(
        case=case,
        method=method,
        reference=(tmp_path / "ref",),
        prediction=tmp_path / method,
        reference_kind="instances",
        prediction_kind="instances",
        reference_volume_mm3=float(np.count_nonzero(truth.labels) * 3),
        prediction_volume_mm3=float(np.count_nonzero(found.labels) * 3),
        result=evaluate_case(truth, found),
        slices=slice_table(truth, found, case=case),
    )


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("evaluation")
    truth = instances((1, 1, 1), (6, 6, 3))
    founds = {"A": instances((1, 1, 1)), "B": instances((2, 1, 1), (6, 6, 3)), "<C>": instances()}
    cases = tuple(
        scored(f"sub-{number}", method, truth, found, tmp_path)
        for number in range(3)
        for method, found in founds.items()
    )
    return Evaluation(
        reference=(tmp_path / "ref",),
        predictions=dict.fromkeys(founds, tmp_path / "p"),
        options=Options(),
        cases=cases,
        failures={"sub-9": "sub-9: <broken>"},
        notes=("sub-1: a note",),
    )


@pytest.fixture(scope="module")
def page(evaluation, tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("page")
    pictures = [Picture("A, best: sub-0", instances((1, 1, 1)), instances((1, 1, 2)))]
    return write_evaluation_page(evaluation, tmp_path / "page.html", pictures).read_text("utf-8")


def test_page_needs_nothing_else(page):
    addresses = re.findall(r"""(?:src|href)=["']([^"'#][^"']*)""", page)
    assert addresses
    assert all(address.startswith("data:") for address in addresses)


def test_names_and_faults_are_escaped(page):
    assert "<broken>" not in page
    assert "&lt;broken&gt;" in page
    assert "<C>" not in page


def test_page_has_every_part(page):
    for heading in (
        "Scores",
        "Spread over cases",
        "Methods compared",
        "Agreement in count and volume",
        "Detection by volume",
        "Slices",
        "Cases",
        "Every case",
        "Undefined values",
        "Notes on files",
        "Not scored",
    ):
        assert f"<h2>{heading}</h2>" in page


def test_rules_are_on_the_page(page):
    assert "26-connected components (challenge_*: always 6)" in page


def test_same_evaluation_gives_the_same_page(evaluation, page, tmp_path):
    pictures = [Picture("A, best: sub-0", instances((1, 1, 1)), instances((1, 1, 2)))]
    again = write_evaluation_page(evaluation, tmp_path / "again.html", pictures)
    assert again.read_text("utf-8") == page


def test_one_case_has_no_parts_that_need_several(evaluation, tmp_path):
    one = Evaluation(
        reference=evaluation.reference,
        predictions={"A": tmp_path},
        options=Options(),
        cases=evaluation.cases[:1],
    )
    page = write_evaluation_page(one, tmp_path / "one.html").read_text("utf-8")
    assert "Spread over cases" not in page
    assert "Agreement in count" not in page
    assert "<h2>Scores</h2>" in page


def test_methods_are_described_for_a_paper_with_references(evaluation, page):
    text = methods_text(evaluation)
    said = " ".join(text.paragraphs)
    assert f"lesionwise {lesionwise.__version__}" in said
    assert "3 cases by 3 methods (A, B, <C>)" in said
    assert "Wilcoxon signed-rank test" in said
    assert "Demšar 2006" in said
    assert "STAPLE" not in said
    assert len(text.references) == len([r for r in text.references if r in text.plain()])
    assert not any("Warfield" in line for line in text.references)
    assert "Methods text to quote" in page
    assert "3 methods (A, B, &lt;C&gt;)" in page


def test_every_reference_is_cited_by_the_words_it_is_listed_under():
    for words, full in REFERENCES.items():
        first = words.split(" ", 1)[0]
        assert full.startswith(first)
        assert full.endswith(f"{words[-4:]}.")


def test_sessions_of_a_patient_are_said_in_the_methods(evaluation):
    cases = tuple(replace(case, patient="sub-0") for case in evaluation.cases)
    said = methods_text(replace(evaluation, cases=cases)).paragraphs
    assert "3 cases of 1 patient" in said[0]
    assert "Sessions of a patient were averaged first" in said[2]


def test_figures_are_written_as_svg_and_pdf(evaluation, tmp_path):
    write_evaluation_page(evaluation, tmp_path / "page.html", figures_folder=tmp_path / "f")
    names = {path.name for path in (tmp_path / "f").iterdir()}
    stems = {name.rsplit(".", 1)[0] for name in names}
    assert names == {f"{stem}.{ending}" for stem in stems for ending in ("svg", "pdf")}
    assert {"spread-dsc", "differences-dsc", "detection-by-volume", "agreement-count-A"} <= stems
    assert (tmp_path / "f" / "spread-dsc.pdf").read_bytes().startswith(b"%PDF")
    svg = ElementTree.parse(tmp_path / "f" / "spread-dsc.svg").getroot()
    assert "currentColor" not in ElementTree.tostring(svg, encoding="unicode")


LATEX = r"$\frac{a}{$ \unknown_{x}^ $"


def test_latex_in_a_name_is_text_in_every_figure(evaluation, tmp_path):
    cases = tuple(
        replace(case, method=LATEX if case.method == "B" else case.method)
        for case in evaluation.cases
    )
    predictions = {LATEX if name == "B" else name: p for name, p in evaluation.predictions.items()}
    named = replace(evaluation, cases=cases, predictions=predictions)
    page = write_evaluation_page(named, tmp_path / "p.html", figures_folder=tmp_path / "f")
    assert LATEX in page.read_text("utf-8")
    svg = (tmp_path / "f" / "spread-dsc.svg").read_text("utf-8")
    assert LATEX in svg


def test_missing_cells_are_dashes_and_sort_last(evaluation):
    import pandas as pd

    rows = grid(pd.DataFrame({"x": [0.5, None]}, dtype=object))["rows"]
    assert [row[0]["text"] for row in rows] == ["0.500", "–"]  # noqa: RUF001
    assert [row[0]["value"] for row in rows] == ["0.5", ""]


def colors(png):
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    return {tuple(int(part) for part in color) for color in np.unique(image.reshape(-1, 3), axis=0)}


def test_overlay_shows_what_each_side_marks():
    truth, found = instances((1, 1, 1), (6, 6, 1)), instances((1, 1, 1), (9, 2, 1))
    assert {BOTH, MISSED, FALSE} <= colors(overlay_png(truth, found))
    assert not {MISSED, FALSE} & colors(overlay_png(truth, truth))


def test_overlay_has_the_right_of_the_patient_on_the_left():
    far_left_of_array = instances((0, 5, 1))  # i grows to the patient's left hand only in LAS
    picture = np.asarray(
        Image.open(io.BytesIO(overlay_png(far_left_of_array, instances((10, 5, 1)), slices=1)))
    )
    missed = np.argwhere((picture == MISSED).all(axis=2))[:, 1].mean()
    false = np.argwhere((picture == FALSE).all(axis=2))[:, 1].mean()
    assert missed > false  # RAS: low i is the patient's left, shown on the right


def test_overlay_of_nothing_is_one_empty_slice():
    assert not {BOTH, MISSED, FALSE} & colors(overlay_png(instances(), instances()))


def test_numbers_keep_their_decimals_and_counts_have_none():
    import pandas as pd

    table = pd.DataFrame(
        {
            "dsc": [0.93, 0.9, -0.05, 1.0],
            "lesions": [7.0, 56.0, 1234.0, np.nan],
            "ci": ["0.1 to 0.2", "-1 to 2", "1 ± 2", "best of all to come"],
        }
    )
    texts = [[cell["text"] for cell in row] for row in grid(table)["rows"]]
    assert [row[0] for row in texts] == ["0.930", "0.900", "\N{MINUS SIGN}0.0500", "1.00"]
    assert [row[1] for row in texts][:2] == ["7", "56"]
    assert not any(" " in row[2] for row in texts[:3])  # no line breaks within a number
    assert texts[3][2] == "best of all to come"
