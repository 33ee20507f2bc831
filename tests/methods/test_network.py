"""A network learns, survives a kill, and is loaded again."""

import json
import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from engine import METHOD as ENGINE
from engine import longer, visit_of

from lesionwise.inference.weights import read_weights
from lesionwise.learning.losses import InstanceLoss
from lesionwise.learning.objective import Supervised
from lesionwise.learning.targets import CentersAndOffsets, Reference
from lesionwise.methods.selection import Selection
from lesionwise.networks.unet import UNet
from lesionwise.types import InputError, RunContext, TrainingData

METHOD = replace(
    ENGINE,
    network=partial(UNet, in_channels=1, out_channels=6, features=(8, 16)),
    objective=Supervised(CentersAndOffsets(), InstanceLoss(heatmap=100.0)),
)
DATA = TrainingData([visit_of(0)], [visit_of(1)])


def _weights(folder, name="model"):
    network = METHOD.network()
    read_weights(network, folder / f"{name}.safetensors")
    return torch.cat([p.flatten() for p in network.parameters()])


def test_a_tiny_network_learns_one_patch_by_heart(tmp_path):
    objective = Supervised(CentersAndOffsets(), InstanceLoss(heatmap=20.0))
    method = replace(longer(METHOD, epochs=5, per_epoch=100), objective=objective)
    run = RunContext(tmp_path)
    method.fit(TrainingData([visit_of(0)]), run)
    study = visit_of(0)
    maps = method.load(run)(study)
    truth = study.followup.labels["instances"].array
    inside = truth > 0
    found = maps.probability > 0.5
    assert 2 * (found & inside).sum() / (found.sum() + inside.sum()) > 0.95
    assert maps.offsets_vox is not None
    assert maps.center_heatmap is not None
    wanted = CentersAndOffsets().make(Reference(truth, (1.0, 1.0, 1.0)))
    assert np.abs(maps.offsets_vox - wanted["offsets"])[:, inside].mean() < 0.5
    assert np.corrcoef(maps.center_heatmap.ravel(), wanted["heatmap"].ravel())[0, 1] > 0.8


class Kill(Exception):  # noqa: N818
    """Stands for the end of the process in the middle of a training."""


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path):
    whole = RunContext(tmp_path / "whole", seed=4)
    METHOD.fit(DATA, whole)

    def kill(stage, done, total):
        if stage.startswith("training") and done == 2:
            raise Kill

    killed = RunContext(tmp_path / "killed", seed=4, resume=True)
    with pytest.raises(Kill):
        METHOD.fit(DATA, replace(killed, progress=kill))
    assert not (killed.folder / "model.safetensors").exists()
    METHOD.fit(DATA, killed)
    torch.testing.assert_close(_weights(killed.folder), _weights(whole.folder))
    summary = json.loads((killed.folder / "training.json").read_text())
    assert summary["epochs"] == 3
    assert summary["steps"] == 6
    rows = (killed.folder / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2", "3"]


def test_a_predictor_reaches_the_workers_of_a_training_that_follows(tmp_path):
    """With ``--workers``, in recipes that learn twice; workers that start afresh get it pickled."""
    done = []
    run = RunContext(tmp_path, progress=lambda *stage: done.append(stage))
    longer(METHOD, 1, 4).fit(DATA, run)
    predictor = METHOD.load(run)
    study = visit_of(0)
    expected = predictor(study).probability
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(predictor))(study).probability, expected
    )


def test_another_seed_gives_other_weights(tmp_path):
    method = longer(METHOD, 1, 4)
    for seed in (0, 1):
        method.fit(TrainingData([visit_of(0)]), RunContext(tmp_path / str(seed), seed=seed))
    assert not torch.allclose(_weights(tmp_path / "0"), _weights(tmp_path / "1"))


def test_a_time_limit_ends_the_schedule_early(tmp_path):
    run = RunContext(tmp_path, max_minutes=0.02)
    longer(METHOD, 10**6, 4).fit(TrainingData([visit_of(0)]), run)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    rates = [json.loads(line)["learning_rate"] for line in lines]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.3 * METHOD.optimization.learning_rate
    assert json.loads((tmp_path / "training.json").read_text())["max_minutes"] == 0.02


def test_a_limit_of_steps_ends_within_an_epoch_with_the_schedule_over(tmp_path):
    """Four patches an epoch in batches of two: the fifth step is the first of its epoch."""
    run = RunContext(tmp_path, max_steps=5)
    longer(METHOD, 10**6, 4).fit(TrainingData([visit_of(0)]), run)
    summary = json.loads((tmp_path / "training.json").read_text())
    assert summary["steps"] == summary["max_steps"] == 5
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    rates = [json.loads(line)["learning_rate"] for line in lines]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.5 * METHOD.optimization.learning_rate


def test_a_limit_of_steps_beyond_the_epochs_changes_nothing(tmp_path):
    for name, steps in (("free", None), ("limited", 10**6)):
        run = RunContext(tmp_path / name, max_steps=steps)
        METHOD.fit(TrainingData([visit_of(0)]), run)
    assert torch.equal(_weights(tmp_path / "free"), _weights(tmp_path / "limited"))


def test_the_best_weights_by_validation_are_kept_and_chosen(tmp_path):
    method = replace(METHOD, selection=replace(METHOD.selection, top_k=2))
    method.fit(DATA, RunContext(tmp_path))
    chosen = json.loads((tmp_path / "training.json").read_text())["chosen"]
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    best = max(rows, key=lambda row: (row["validation_dsc"], -row["epoch"]))
    assert len(list((tmp_path / "candidates").iterdir())) == 2
    assert chosen["candidates"][0]["epoch"] == best["epoch"]


def test_without_validation_the_last_weights_are_used(tmp_path):
    method = replace(METHOD, selection=replace(METHOD.selection, every=0))
    method.fit(DATA, RunContext(tmp_path))
    assert json.loads((tmp_path / "training.json").read_text())["chosen"] == {
        "epoch": "last",
        "why": "no validation",
    }
    assert not (tmp_path / "candidates").exists()
    assert "validation" not in (tmp_path / "log.csv").read_text()


def test_one_candidate_is_not_scored_again(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("scored again")

    monkeypatch.setattr(Selection, "score", refuse)
    method = replace(METHOD, selection=replace(METHOD.selection, top_k=1))
    method.fit(DATA, RunContext(tmp_path))
    chosen = json.loads((tmp_path / "training.json").read_text())["chosen"]
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    best = max(rows, key=lambda row: (row["validation_dsc"], -row["epoch"]))
    assert chosen["candidates"] == [{"epoch": best["epoch"], "dsc": best["validation_dsc"]}]
    assert torch.equal(
        _weights(tmp_path), _weights(tmp_path / "candidates", f"epoch-{best['epoch']:04d}")
    )


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(InputError, match="no such weights file"):
        METHOD.load(RunContext(tmp_path))


def test_malformed_weights_are_named(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(InputError, match=r"model\.safetensors: not a safetensors file"):
        METHOD.load(RunContext(tmp_path))


def test_weights_of_another_network_are_named(tmp_path):
    other = replace(METHOD, network=partial(UNet, in_channels=1, out_channels=6, features=(4, 8)))
    other.fit(TrainingData([visit_of(0)]), RunContext(tmp_path))
    with pytest.raises(InputError, match="weights of another network") as fault:
        METHOD.load(RunContext(tmp_path))
    assert "\n" not in str(fault.value)


def test_a_study_without_the_scan_is_named(tmp_path):
    method = replace(METHOD, scans=("t1w",))
    with pytest.raises(InputError, match="sub-s0: no t1w scan"):
        method.fit(TrainingData([visit_of(0)]), RunContext(tmp_path))


def test_a_time_limit_shorter_than_one_step_is_refused(tmp_path):
    run = RunContext(tmp_path, max_minutes=1e-9)
    with pytest.raises(InputError, match=r"limit of 1e-09 minutes is shorter than one step"):
        METHOD.fit(TrainingData([visit_of(0)]), run)
    assert not (tmp_path / "model.safetensors").exists()


def test_a_training_of_one_step_may_take_longer_than_its_time_limit(tmp_path):
    longer(METHOD, 1, 2).fit(TrainingData([visit_of(0)]), RunContext(tmp_path, max_minutes=1e-9))
    assert (tmp_path / "model.safetensors").exists()
