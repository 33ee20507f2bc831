import io

import numpy as np
import pytest
from PIL import Image

from lesionwise.report.display import prepare
from lesionwise.report.findings import (
    GAP_PX,
    PANEL_PX,
    CloseUps,
    DisplayedVisit,
    find_findings,
    reason,
    square_around,
)
from lesionwise.report.page import StudyPage


def _shown(study: StudyPage) -> tuple[DisplayedVisit, DisplayedVisit]:
    found = []
    for visit in study.visits:
        display = prepare(visit.image, visit.instances, visit.brain)
        found.append(DisplayedVisit(visit.session, display, display.labels["offsets"], np.eye(4)))
    return found[0], found[1]


def _panels(picture: bytes) -> list[np.ndarray]:
    rgb = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)
    step = PANEL_PX + GAP_PX
    return [rgb[:, at * step : at * step + PANEL_PX] for at in range(3)]


def test_new_lesions_come_first_and_stable_ones_are_left_out(changed: StudyPage) -> None:
    assert changed.changes is not None
    found = find_findings(changed.changes.iloc[::-1], *_shown(changed))
    assert [(each.state, each.session, each.label) for each in found] == [
        ("new", "M12", 3),
        ("enlarging", "M12", 7),
    ]
    assert [each.edge for each in found] == [False, True]
    assert found[1].volume == "384 \N{RIGHTWARDS ARROW} 768 mm³"


def test_a_close_up_shows_the_lesion_after_and_in_the_difference_alone(changed: StudyPage) -> None:
    before, after, difference = _panels(CloseUps(*_shown(changed)).of(True, 3, "#FF5A36"))
    middle = (slice(PANEL_PX // 2 - 8, PANEL_PX // 2 + 8),) * 2
    assert after[middle].mean() > before[middle].mean() + 80
    assert difference[middle].mean() > 220
    assert abs(difference[:20, :20].mean() - 128) < 8


def test_nothing_that_stayed_shows_in_the_difference(changed: StudyPage) -> None:
    same = _shown(changed)[1]
    difference = _panels(CloseUps(same, same).of(True, 7, "#FFB000"))[2]
    assert np.abs(difference - 128).max() <= 6


def test_a_close_up_lies_in_the_slice_where_the_lesion_is_largest(changed: StudyPage) -> None:
    shown = _shown(changed)[1]
    grid = square_around(shown, 3)
    center = grid.world_mm(np.array([[(PANEL_PX - 1) / 2, (PANEL_PX - 1) / 2, 0.0]]))[0]
    index = np.linalg.inv(shown.display.grid.affine) @ np.append(center, 1)
    at = np.round(index[:3]).astype(int)
    assert shown.labels[tuple(at)] == 3
    assert index[2] == pytest.approx(at[2], abs=1e-6)


def test_a_lesion_of_another_visit_is_drawn_where_that_visit_lay(changed: StudyPage) -> None:
    earlier, later = _shown(changed)
    shift = np.eye(4)
    shift[0, 3] = 300.0
    far = DisplayedVisit(later.session, later.display, later.labels, shift)
    before, after, _ = _panels(CloseUps(earlier, far).of(True, 3, "#FF5A36"))
    assert before.max() < 20
    assert after.max() > 150


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"state": "new"}, "no lesion here before"),
        (
            {"state": "new", "brighter by (noise)": 4.25, "contrast gained or lost (%)": 80.0},
            "no lesion here before, became brighter by 4.3 noise SD, 80 % of its contrast gained",
        ),
        (
            {"state": "shrinking", "baseline_mm3": 100.0, "followup_mm3": 50.0},
            "smaller by 50 %",
        ),
        (
            {"state": "shrinking", "form": "in parts", "change_mm3": -50.0},
            "in parts, together \N{MINUS SIGN}50 mm³",
        ),
        ({"state": "equivocal", "note": "faint"}, "outlined at one visit only; faint"),
    ],
)
def test_a_word_says_why(row: dict[str, object], words: str) -> None:
    assert reason(row) == words
