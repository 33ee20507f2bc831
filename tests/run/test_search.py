"""Combinations of settings, trained and compared as document 001 does."""

import json

import numpy as np
import pandas as pd
import pytest
from bids import begin, save_visit

from lesionwise.run.search import search
from lesionwise.types import InputError

SIDE = 24
SMALL = (
    "method.network.features=[4, 8, 8]",
    "method.samples.size_vox=[16, 16, 16]",
    "method.samples.batch_size=2",
    "method.samples.per_epoch=4",
    "method.optimization.epochs=2",
    "method.selection.every=1",
    "method.selection.top_k=1",
)
GRID = {
    "method.objective.loss.heatmap": ("1.0", "2000.0"),
    "method.optimization.learning_rate": ("1e-2", "1e-12"),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = begin(tmp_path_factory.mktemp("bids"))
    where = np.indices((SIDE,) * 3) - (SIDE - 1) / 2
    brain = (where**2).sum(axis=0) < 10**2
    for seed, subject in enumerate("abc"):
        rng = np.random.default_rng(seed)
        lesions = np.zeros(brain.shape, dtype=np.int16)
        lesions[7:11, 7:11, 7:11] = 1
        lesions[13:17, 12:16, 12:16] = 2
        image = brain * (100 + 10 * rng.standard_normal(brain.shape)) + 60 * (lesions > 0)
        save_visit(
            root,
            subject,
            "",
            {
                "FLAIR": image.astype(np.float32),
                "desc-brain_mask": brain,
                "label-L_mask": lesions > 0,
                "seg-truth_dseg": lesions,
            },
        )
    return root


def test_every_combination_is_one_model_and_the_best_by_dice_are_compared(dataset, tmp_path):
    found = search(
        "conflunet", dataset, tmp_path, GRID, compare=3, overrides=SMALL,
        validation_subjects=["c"], device="cpu",
    )  # fmt: skip
    assert len(found.table) == 4
    assert found.table["run"].tolist() == ["run-01", "run-02", "run-03", "run-04"]
    assert found.failures == {}
    compared = found.table["pq"].notna() if "pq" in found.table else found.table["dic"].notna()
    assert compared.sum() == 3
    kept = set(found.table.sort_values("dsc", ascending=False, kind="stable")["run"][:3])
    assert found.best.name in kept
    written = pd.read_csv(tmp_path / "search.tsv", sep="\t")
    assert written["run"].tolist() == found.table["run"].tolist()
    assert json.loads((tmp_path / "best.json").read_text())["run"] == found.best.name
    stamps = [p.stat().st_mtime_ns for p in sorted(tmp_path.glob("run-*/model.safetensors"))]
    again = search(
        "conflunet", dataset, tmp_path, GRID, compare=3, overrides=SMALL,
        validation_subjects=["c"], device="cpu",
    )  # fmt: skip
    assert again.best == found.best
    assert stamps == [
        p.stat().st_mtime_ns for p in sorted(tmp_path.glob("run-*/model.safetensors"))
    ]


@pytest.mark.parametrize(
    ("grid", "fault"),
    [
        ({}, "at least one setting"),
        ({"method.objective.loss.heat": ("1",)}, "did you mean heatmap"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_is_trained(grid, fault, dataset, tmp_path):
    with pytest.raises(InputError, match=fault):
        search("conflunet", dataset, tmp_path / "out", grid)
    assert not (tmp_path / "out").exists()


def test_a_recipe_of_rules_cannot_be_searched(dataset, tmp_path):
    with pytest.raises(InputError, match="not a single network"):
        search("subtraction-threshold", dataset, tmp_path / "out", {"threshold": ("0.4",)})
