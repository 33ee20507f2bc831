"""Files that the project wrote and reads again: garbage in their place is one ``InputError``.

The results of ``tests/results/before`` are damaged a few hundred times each, several thousand times
by ``make test-all``.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from garbage import only_input_errors

from lesionwise.cohort.records import failures_of, read_record
from lesionwise.io.checked import read_checked
from lesionwise.io.dataset import is_ours
from lesionwise.io.prepared import read_prepared, write_prepared
from lesionwise.io.record import noted_failures
from lesionwise.metrics.evaluation import Options
from lesionwise.metrics.statistics import RankComparison
from lesionwise.report.leaderboard import (
    Leaderboard,
    read_leaderboard,
    write_leaderboard,
    write_leaderboard_page,
)
from lesionwise.results.comparison import ComparisonRecord, read_tracks
from lesionwise.results.folder import compared_scans, read_folder
from lesionwise.results.names import ScanFiles, finished_scans
from lesionwise.results.scan import ScanRecord, damaged
from lesionwise.run.evaluate import Request
from lesionwise.run.load_model import load_model, read_run
from lesionwise.run.prepare import prepare
from lesionwise.types import Grid, Study, Visit, Volume

Made = tuple[Path, Callable[[], Any]]
BEFORE = Path(__file__).parents[1] / "results" / "before"


def _copied(root: Path, name: str) -> Path:
    return shutil.copytree(BEFORE / name, root / name)


def scan_sidecar(root: Path) -> Made:
    folder = _copied(root, "segmented")
    files = ScanFiles(folder, next(iter(finished_scans(folder))))
    return files.sidecar, lambda: (damaged(folder, ScanRecord.read(files)), files.sidecar)


def scan_sidecar_in_tables(root: Path) -> Made:
    path, _ = scan_sidecar(root)
    return path, lambda: read_folder(root / "segmented")


def lesion_table(root: Path) -> Made:
    path, _ = scan_sidecar(root)
    table = min(path.parent.glob("*_dseg.tsv"))
    return table, lambda: read_folder(root / "segmented")


def description_of_results(root: Path) -> Made:
    folder = _copied(root, "segmented")
    return folder / "dataset_description.json", lambda: is_ours(folder)


def comparison(root: Path) -> Made:
    folder = _copied(root, "compared")
    return folder / "compare.json", lambda: (
        ComparisonRecord.read(folder).notes,
        compared_scans(folder, folder),
    )


def tracks(root: Path) -> Made:
    folder = _copied(root, "compared")
    return folder / "lineages.tsv", lambda: read_tracks(folder)


def cohort_record(root: Path) -> Made:
    folder = _copied(root, "cohort") / "sub-b"
    return folder / "cohort.json", lambda: read_record(folder)


def cohort_failure(root: Path) -> Made:
    folder = _copied(root, "cohort")
    return folder / ".cohort" / "failed" / "sub-c.json", lambda: failures_of(folder, {})


def noted_failure(root: Path) -> Made:
    path = root / ".lesionwise" / "failed-1.json"
    path.parent.mkdir()
    good = {"inputs": ["a"], "failures": {"a": "no image"}}
    path.write_text(json.dumps(good))
    return path, lambda: noted_failures(root)


def evaluation(root: Path) -> Made:
    path = root / "evaluate.json"
    good = Request(("ref",), {"a": "pred"}, Options(), "auto", "majority", 0)
    path.write_text(json.dumps(asdict(good)))
    return path, lambda: read_checked(path, Request)


def _board(root: Path) -> Path:
    scores = pd.DataFrame(
        {"recipe": ["a", "a", "b", "b"], "case": ["1", "2"] * 2, "dsc": [0.5, 0.7, 0.8, 0.6]}
    )
    ranks = RankComparison(2, 1.0, 0.5, {"a": 1.0, "b": 2.0}, 0.7, (("a", "b"),))
    recipes = pd.DataFrame({"recipe": ["a", "b"], "task": ["lesions", "lesions"]})
    write_leaderboard(Leaderboard("Board", scores, ("dsc",), recipes, ranks=ranks), root)
    return root


def leaderboard(root: Path) -> Made:
    return _board(root) / "leaderboard.json", lambda: read_leaderboard(root)


def scores_of_a_leaderboard(root: Path) -> Made:
    return _board(root) / "scores.tsv", lambda: read_leaderboard(root)


def recipes_of_a_leaderboard(root: Path) -> Made:
    return _board(root) / "recipes.tsv", lambda: read_leaderboard(root)


def run_record(root: Path) -> Made:
    path = root / "run.json"
    recipe = {"recipe": "subtraction-threshold", "overrides": [], "status": "done"}
    path.write_text(json.dumps(recipe))
    return path, lambda: (read_run(root), load_model(root, "cpu"))


def _study(root: Path) -> Path:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    scan = Volume(array, Grid(array.shape, np.eye(4)))
    lesions = Volume(array > 20, scan.grid)
    visit = Visit({"flair": scan}, {"lesions": lesions}, brain=lesions, session="1")
    write_prepared(Study("a", (visit,), {"new": lesions}), root / "sub-a" / "ses-1")
    return root / "sub-a" / "ses-1"


def prepared_study(root: Path) -> Made:
    folder = _study(root)
    return folder / "study.json", lambda: read_prepared(folder)


def prepared_array(root: Path) -> Made:
    folder = _study(root)
    return folder / "visit-0_scan-flair.npy", lambda: read_prepared(folder)


def prepared_subject(root: Path) -> Made:
    _settings(root)
    return root / "sub-a" / "done.json", lambda: prepare("unet-cc", root, root)


def prepared_settings(root: Path) -> Made:
    return _settings(root), lambda: prepare("unet-cc", root, root)


def _settings(root: Path) -> Path:
    from lesionwise.run.learned_steps import shared_steps
    from lesionwise.run.recipes import find_recipe, settings

    recipe = find_recipe("unet-cc")
    _study(root)
    record = {"subject": "a", "studies": [{"name": "sub-a/ses-1", "lesions": 1}]}
    record |= {"left_out": {"sub-b": "no mask"}, "scans": ["0" * 64]}
    (root / "sub-a" / "done.json").write_text(json.dumps(record))
    how = {"scans": list(recipe.scans), "visits": recipe.visits, "task": recipe.task}
    how |= settings(shared_steps(recipe.preprocess), "preprocess")
    path = root / "prepared.json"
    path.write_text(json.dumps({"settings": how, "data": "0" * 64}))
    return path


READERS = (
    scan_sidecar,
    scan_sidecar_in_tables,
    lesion_table,
    description_of_results,
    comparison,
    tracks,
    cohort_record,
    cohort_failure,
    noted_failure,
    evaluation,
    leaderboard,
    scores_of_a_leaderboard,
    recipes_of_a_leaderboard,
    run_record,
    prepared_study,
    prepared_array,
    prepared_subject,
    prepared_settings,
)
SLOW = {scan_sidecar_in_tables, lesion_table, comparison, run_record}
"""Reading these takes ten times as long, so they get fewer."""


@pytest.mark.parametrize("make", READERS)
def test_only_input_errors_come_out_of_garbage(tmp_path, make):
    only_input_errors(*make(tmp_path), 10 if make in SLOW else 60)


@pytest.mark.slow
@pytest.mark.parametrize("make", READERS)
def test_only_input_errors_come_out_of_much_garbage(tmp_path, make):
    only_input_errors(*make(tmp_path), 200 if make in SLOW else 2000, repeatable=False)


@pytest.mark.parametrize("make", [leaderboard, scores_of_a_leaderboard, recipes_of_a_leaderboard])
def test_the_page_of_a_leaderboard_that_was_read_is_made(tmp_path, make):
    path, read = make(tmp_path)
    page = tmp_path / "page.html"
    only_input_errors(path, lambda: write_leaderboard_page(read(), page), 10)
