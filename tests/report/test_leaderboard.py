import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lesionwise.metrics.statistics import RankComparison
from lesionwise.report.leaderboard import (
    Leaderboard,
    read_leaderboard,
    write_leaderboard,
    write_leaderboard_page,
)

HOSTILE = "<script>alert(1)</script>\"'&"
SCORES = pd.DataFrame(
    {
        "recipe": ["a", "a", "b", "b"],
        "case": ["01", "02", "01", "02"],
        "dsc": [0.5, 0.7, 0.8, 0.6],
        "hd95_mm": [4.0, 6.0, np.nan, 7.0],
    }
)
BOARD = Leaderboard("Board", SCORES, ("dsc", "hd95_mm"))


def _rows(page: str, table: str = "board") -> list[list[str]]:
    body = page[page.index(f'id="{table}"') :].split("<tbody>")[1].split("</tbody>")[0]
    return [
        [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", row, re.S)]
        for row in body.split("<tr")[1:]
    ]


def test_recipes_stand_by_the_mean_of_the_first_metric(tmp_path: Path) -> None:
    page = write_leaderboard_page(BOARD, tmp_path / "l.html").read_text()
    assert [row[0] for row in _rows(page)] == ["b", "a"]
    other = replace(BOARD, metrics=("hd95_mm", "dsc"))
    page = write_leaderboard_page(other, tmp_path / "l.html").read_text()
    assert [row[0] for row in _rows(page)] == ["a", "b"]  # 5 mm against 7 mm: lower is better


def test_shows_mean_and_spread_and_on_how_many_cases_if_not_all(tmp_path: Path) -> None:
    rows = _rows(write_leaderboard_page(BOARD, tmp_path / "l.html").read_text())
    assert rows[1] == ["a", "2", "0.600 ± 0.141", "5.000 ± 1.414"]
    assert rows[0] == ["b", "2", "0.700 ± 0.141", "7.000 (1)"]


def test_a_recipe_without_scores_stands_last_with_its_reason(tmp_path: Path) -> None:
    failed = pd.DataFrame({"recipe": ["broken"], "error": ["no t1w scan"]})
    page = write_leaderboard_page(replace(BOARD, failures=failed), tmp_path / "l.html").read_text()
    assert _rows(page)[-1][:2] == ["broken", "0"]
    assert "no t1w scan" in page[page.index("<h2>Failures</h2>") :]


def test_a_signed_metric_is_best_near_zero(tmp_path: Path) -> None:
    scores = SCORES.assign(relative_volume_difference=[0.1, 0.1, -0.5, -0.5])
    board = replace(BOARD, scores=scores, metrics=("relative_volume_difference",))
    page = write_leaderboard_page(board, tmp_path / "l.html").read_text()
    assert [row[0] for row in _rows(page)] == ["a", "b"]


def test_differences_are_row_minus_column_and_clear_ones_are_marked(tmp_path: Path) -> None:
    compared = pd.DataFrame(
        {
            "metric": ["dsc"],
            "first": ["a"],
            "second": ["b"],
            "difference": [-0.1],
            "p_holm": [0.01],
        }
    )
    board = replace(BOARD, comparisons=compared)
    page = write_leaderboard_page(board, tmp_path / "l.html").read_text()
    matrix = page[page.index("matrix pinned") :]
    assert re.search(r'<td class="number ahead" title="b - a: p 0.01">\+0.100\*</td>', matrix)
    worse = '<td class="number behind" title="a - b: p 0.01">\N{MINUS SIGN}0.100*</td>'
    assert worse in matrix


def test_comes_back_from_its_files(tmp_path: Path) -> None:
    board = replace(
        BOARD,
        recipes=pd.DataFrame({"recipe": ["a", "b"], "visits": ["1", "2"]}),
        costs=pd.DataFrame({"recipe": ["a", "b"], "train_s": [1 / 3, 20.0]}),
        failures=pd.DataFrame({"recipe": ["c"], "error": ["none"]}),
        ranks=RankComparison(2, 1.0, 0.5, {"a": 1.5, "b": 1.5}, 1.4, (("a", "b"),)),
        provenance={"seed": 0},
    )
    page = write_leaderboard(board, tmp_path)
    again = write_leaderboard_page(read_leaderboard(tmp_path), tmp_path / "again.html")
    assert again.read_bytes() == page.read_bytes()
    assert read_leaderboard(tmp_path).scores["dsc"].tolist() == SCORES["dsc"].tolist()


def test_a_board_without_any_score_has_a_page(tmp_path: Path) -> None:
    empty = Leaderboard("Board", pd.DataFrame(), ("dsc",))
    assert "0 recipes, 0 cases" in write_leaderboard_page(empty, tmp_path / "l.html").read_text()


def test_scores_without_a_promised_metric_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pq"):
        write_leaderboard_page(replace(BOARD, metrics=("pq",)), tmp_path / "l.html")


def test_every_text_is_text(tmp_path: Path) -> None:
    hostile = pd.DataFrame(
        {"recipe": [HOSTILE, "b"], HOSTILE: [HOSTILE, "x"], "page": ["b.html"] * 2}
    )
    board = replace(
        BOARD,
        title=HOSTILE,
        lead=HOSTILE,
        scores=SCORES.replace("a", HOSTILE),
        recipes=hostile,
        costs=hostile.drop(columns="page").assign(**{HOSTILE: [1.0, 2.0]}),
        failures=hostile,
        comparisons=pd.DataFrame(
            {
                "metric": ["dsc", HOSTILE],
                "first": HOSTILE,
                "second": "b",
                "difference": 1.0,
                "p_holm": 0.01,
            }
        ),
        provenance={HOSTILE: HOSTILE},
        warnings=(HOSTILE,),
    )
    page = write_leaderboard_page(board, tmp_path / "l.html").read_text()
    assert "<script>alert" not in page
    assert page.count("<script>") == 1


def test_columns_are_named_in_words_and_the_spread_stands_below_the_mean(tmp_path: Path) -> None:
    board = replace(
        BOARD,
        scores=SCORES.assign(dic=[1.0, 2.0, 3.0, 4.0]),
        metrics=("dsc", "dic"),
        costs=pd.DataFrame({"recipe": ["a", "b"], "predict_s": [1.0, 2.0]}),
    )
    page = write_leaderboard_page(board, tmp_path / "l.html").read_text()
    assert ">difference in lesion count</th>" in page
    assert ">prediction time (s)</th>" in page
    assert '0.600 <span class="spread">± 0.141</span>' in page
