import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lesionwise.report.page import (
    CohortPage,
    QualityNote,
    StageView,
    StudyPage,
    VisitView,
    write_index_page,
    write_study_page,
)
from lesionwise.report.render import NOT_A_DEVICE
from lesionwise.types import Grid, Instances, Volume

HOSTILE = "<script>alert(1)</script>\"'&"


class _Names(HTMLParser):
    """Names of all tags and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {tag, *(name for name, _ in attrs)}


def _names(page: str) -> set[str]:
    parser = _Names()
    parser.feed(page)
    return parser.found


def _text(path: Path) -> str:
    """The page without scripts, styles and pictures."""
    page = path.read_text()
    page = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)
    return re.sub(r"\"data:[^\"]*\"", '""', page)


def test_lists_every_lesion_once_per_method(study: StudyPage, tmp_path: Path) -> None:
    page = write_study_page(study, tmp_path / "p.html").read_text()
    assert len(re.findall(r'<tr data-row="\d+"[^>]*data-method="offsets"', page)) == 3
    assert len(re.findall(r'<tr data-row="\d+"[^>]*data-method="cc"', page)) == 2


def test_stages_are_shown_in_order_with_the_steps_as_text(study: StudyPage, tmp_path: Path) -> None:
    stages = (
        StageView("as read", b"RIFF-one", 3.0, 250.0),
        StageView(f"Mask({HOSTILE})", b"RIFF-two", 0.0, 1.0, outlined=True),
    )
    shown = replace(study, visits=(replace(study.visits[0], stages=stages),))
    text = _text(write_study_page(shown, tmp_path / "p.html"))
    assert "How the scan was prepared" in text
    assert text.index("as read</code>") < text.index("Mask(&lt;script&gt;")
    assert text.count("brain outlined") == 1
    assert HOSTILE not in text


def test_pages_without_stages_have_no_such_section(study: StudyPage, tmp_path: Path) -> None:
    text = _text(write_study_page(study, tmp_path / "p.html"))
    assert "was prepared" not in text
    assert "after registration" not in text


def test_registered_visits_are_shown_over_each_other(
    make_study: Callable[..., StudyPage], tmp_path: Path
) -> None:
    two = make_study(visits=2)
    shift = np.eye(4)
    shift[:3, 3] = 3, 0, 4
    later = replace(two.visits[1], to_common=shift)
    text = _text(write_study_page(replace(two, visits=(two.visits[0], later)), tmp_path / "p.html"))
    assert "M12 over M00: before and after registration" in text
    assert "rotated by 0.0° and shifted by 5.0 mm" in text


def test_says_once_that_it_is_no_medical_device(study: StudyPage, tmp_path: Path) -> None:
    assert write_study_page(study, tmp_path / "p.html").read_text().count(NOT_A_DEVICE) == 1


def test_shows_recipe_and_departures(study: StudyPage, tmp_path: Path) -> None:
    page = _text(write_study_page(study, tmp_path / "p.html"))
    assert "conflunet" in page
    assert "ties: first kept" in page


def test_says_what_is_not_assessed(study: StudyPage, tmp_path: Path) -> None:
    page = _text(write_study_page(study, tmp_path / "p.html"))
    assert "Spinal cord and optic nerve are not assessed" in page


def test_shows_every_text_as_text(study: StudyPage, tmp_path: Path) -> None:
    lesions = study.lesions.assign(location=HOSTILE, session=HOSTILE, method=HOSTILE)
    visit = study.visits[0]
    instances = {HOSTILE: visit.instances["offsets"]}
    hostile = replace(
        study,
        title=HOSTILE,
        subject=HOSTILE,
        visits=(
            replace(
                visit,
                session=HOSTILE,
                source=HOSTILE,
                instances=instances,
                warnings=(HOSTILE,),
            ),
        ),
        quality=(QualityNote(HOSTILE, "poor", (HOSTILE,), {HOSTILE: 1.0}),),
        lesions=lesions,
        scores=pd.DataFrame({HOSTILE: [HOSTILE]}),
        provenance={HOSTILE: [HOSTILE]},
        warnings=(HOSTILE,),
        links={HOSTILE: "a.html"},
    )
    page = write_study_page(hostile, tmp_path / "p.html").read_text()
    assert "<script>alert" not in page
    judged = replace(study, quality=(QualityNote("flair", "poor", ("noisy",), {"noise": 1.0}),))
    harmless = write_study_page(judged, tmp_path / "q.html").read_text()
    assert _names(page) <= _names(harmless) | {"li", "ul", "href"}


def test_poor_input_is_said_first_and_fair_input_where_it_is_graded(
    study: StudyPage, tmp_path: Path
) -> None:
    notes = (
        QualityNote("flair of M00", "poor", ("noisy", "cut")),
        QualityNote("flair of M12", "fair", ("thick slices",)),
        QualityNote("t1w of M12", "good"),
    )
    page = _text(write_study_page(replace(study, quality=notes), tmp_path / "p.html"))
    warnings = page[page.index("Read this first") : page.index('aria-label="Summary"')]
    assert "flair of M00: noisy; cut" in warnings
    assert "M12" not in warnings
    assert "thick slices" in page[page.index("Quality of the input") :]


def test_a_quality_note_comes_back_from_its_sidecar() -> None:
    note = QualityNote("flair", "fair", ("noisy",), {"largest_spacing_mm": 5.0})
    assert QualityNote.read(json.loads(json.dumps(note.written()))) == note


def test_asks_for_nothing_outside_itself(study: StudyPage, tmp_path: Path) -> None:
    page = write_study_page(study, tmp_path / "p.html").read_text()
    assert not re.findall(r"<(?:script|img|link|iframe)[^>]+(?:src|href)=\"(?!data:|#)", page)
    assert "@import" not in page
    assert not re.findall(r"url\((?!#|data:)", _text(tmp_path / "p.html"))


def test_known_lesions_are_one_more_way_to_see(study: StudyPage, tmp_path: Path) -> None:
    visit = study.visits[0]
    known = replace(study, visits=(replace(visit, truth=visit.instances["cc"]),))
    page = write_study_page(known, tmp_path / "p.html").read_text()
    assert len(re.findall(r'<tr data-row="\d+"[^>]*data-method="truth"', page)) == 2


def test_a_scan_without_lesions_has_a_page(study: StudyPage, tmp_path: Path) -> None:
    visit = study.visits[0]
    none = Instances(np.zeros(visit.image.array.shape, dtype=np.int32), visit.image.grid)
    bare = StudyPage(
        "t", "s", (replace(visit, instances={"offsets": none}),), study.lesions.iloc[:0]
    )
    assert "0 lesions are numbered" in _text(write_study_page(bare, tmp_path / "p.html"))


def test_an_empty_image_has_a_page(tmp_path: Path) -> None:
    grid = Grid((5, 6, 7), np.eye(4))
    empty = VisitView("", Volume(np.zeros(grid.shape, dtype=np.float32), grid), {})
    assert write_study_page(StudyPage("t", "s", (empty,), pd.DataFrame()), tmp_path / "p.html")


def test_visits_need_names_of_their_own(study: StudyPage, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names of their own"):
        write_study_page(replace(study, visits=study.visits * 2), tmp_path / "p.html")


def test_the_same_study_gives_the_same_page(study: StudyPage, tmp_path: Path) -> None:
    one = write_study_page(study, tmp_path / "a.html").read_bytes()
    assert write_study_page(study, tmp_path / "b.html").read_bytes() == one


def test_an_index_links_scans_and_lists_failures(tmp_path: Path) -> None:
    scans = pd.DataFrame(
        {"subject": ["01", HOSTILE], "lesions": [3, 4], "page": ["sub-01/a b.html", None]}
    )
    failures = pd.DataFrame({"file": ["x.nii"], "fault": [HOSTILE]})
    path = write_index_page(
        CohortPage("Cohort", scans, failures, distributions=("lesions", "missing")),
        tmp_path / "index.html",
    )
    page = path.read_text()
    assert '<a href="sub-01/a%20b.html">01</a>' in page
    assert "<script>alert" not in page
    assert "x.nii" in page


def test_an_index_without_scans(tmp_path: Path) -> None:
    assert write_index_page(CohortPage("Cohort", pd.DataFrame()), tmp_path / "index.html").exists()


@pytest.mark.parametrize(
    ("scan", "shown"),
    [
        ("sub-a_ses-01", ["subject", "session", "volume (ml)", "new", "stable"]),
        (
            "sub-a_ses-01_run-2",
            ["subject", "session", "scan", "volume (ml)", "new", "stable"],
        ),
    ],
)
def test_the_table_of_scans_has_changes_behind_the_volume_and_names_that_say_something(
    tmp_path: Path, scan: str, shown: list[str]
) -> None:
    row = {
        "subject": "sub-a",
        "session": "ses-01",
        "scan": scan,
        "volume_ml": 1.0,
        "page": "a.html",
        "stable": 3,
        "new": 1,
    }
    page = CohortPage("Cohort", pd.DataFrame([row]))
    text = _text(write_index_page(page, tmp_path / "index.html"))
    assert re.findall(r'<th scope="col" class="\w+">(.*?)</th>', text)[: len(shown)] == shown
