"""Options of the network engine, each on a training of seconds."""

import json
import math
from collections.abc import Container
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pytest
import torch
from engine import PAIRS as METHOD
from engine import SIDE, dice, longer
from engine import pair_of as pair
from safetensors.numpy import load_file

from lesionwise.inference.openvino import has_openvino
from lesionwise.inference.weights import WEIGHTS
from lesionwise.inference.window import SlidingWindow
from lesionwise.io.prepared import prepared_studies, write_prepared
from lesionwise.learning.losses import DeepSupervision
from lesionwise.learning.normalization import ClipToRange
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimizers import Sgd
from lesionwise.learning.schedules import EarlyStopping, Plateau, StepDecay
from lesionwise.learning.targets import LesionLogit
from lesionwise.networks.pre_unet import PreUNet
from lesionwise.types import InputError, RunContext, TrainingData, Volume

DATA = TrainingData([pair(0)], [pair(1)])


def optimized(method, **changes):
    """The method with another optimization."""
    return replace(method, optimization=replace(method.optimization, **changes))


def logits(method):
    """The method with logits as its maps."""
    return replace(method, objective=replace(method.objective, targets=LesionLogit()))


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def score(maps, study):
    """Dice of the new lesions."""
    return dice(maps.probability > 0.5, study.changes["new"].array > 0)


def test_new_lesions_are_learned_and_old_ones_are_not(tmp_path):
    run = RunContext(tmp_path)
    longer(METHOD, 6, 32).fit(TrainingData([pair(0)]), run)
    maps = METHOD.load(run)(pair(0))
    assert score(maps, pair(0)) > 0.95
    assert not (maps.probability[2:6, 2:6, 3:8] > 0.5).any()


def test_a_schedule_sets_the_rate_of_each_epoch(tmp_path):
    method = optimized(METHOD, schedule=StepDecay(0.1), optimizer=Sgd(momentum=0.9))
    method.fit(DATA, RunContext(tmp_path))
    rates = [row["learning_rate"] for row in log(tmp_path)]
    assert rates == pytest.approx([2e-2, 2e-3, 2e-4])


def test_a_plateau_is_seen_in_the_log(tmp_path):
    flat = Plateau("validation_dsc", gamma=0.5, patience=1, larger_is_better=True)
    optimized(METHOD, schedule=flat, learning_rate=1e-12).fit(DATA, RunContext(tmp_path))
    rates = [row["learning_rate"] for row in log(tmp_path)]
    assert rates == pytest.approx([1e-12, 1e-12, 0.5e-12])


def test_a_training_without_gain_ends_early_and_is_not_taken_up_again(tmp_path):
    stopping = EarlyStopping(patience=6)
    method = optimized(METHOD, epochs=50, learning_rate=1e-12, early_stopping=stopping)
    run = RunContext(tmp_path, resume=True)
    method.fit(DATA, run)
    assert len(log(tmp_path)) == 4  # 2 steps an epoch: the first is the best, 6 steps follow
    method.fit(DATA, run)
    assert len(log(tmp_path)) == 4


def test_deep_supervision_trains_a_network_of_several_outputs(tmp_path):
    method = replace(
        METHOD,
        network=partial(PreUNet, in_channels=2, out_channels=2, features=(8, 16, 24)),
        objective=Supervised(
            LesionLogit(), DeepSupervision(METHOD.objective.loss, weights=(1.0, 0.5, 0.25))
        ),
    )
    method = optimized(longer(method, 4, 60), learning_rate=5e-3)
    run = RunContext(tmp_path)
    method.fit(TrainingData([pair(0)]), run)
    maps = method.load(run)(pair(0))
    assert score(maps, pair(0)) > 0.9
    np.testing.assert_allclose(maps.probability, 1 / (1 + np.exp(-maps.extra["logits"])), rtol=1e-5)


def test_where_no_window_looked_a_logit_is_far_below_0(tmp_path):
    study = pair(0)
    brain = np.zeros((SIDE,) * 3, dtype=bool)
    brain[:8, :8, :8] = True
    grid = study.followup.scans["flair"].grid
    visits = tuple(replace(v, brain=Volume(brain, grid)) for v in study.visits)
    run = RunContext(tmp_path)
    method = longer(logits(METHOD), 1, 4)
    method = replace(method, samples=replace(method.samples, size_vox=(8, 8, 8)))
    method.fit(TrainingData([study]), run)
    maps = method.load(run)(replace(study, visits=visits))
    assert maps.probability[12:, 12:, 12:].max() < 1e-6


@pytest.mark.parametrize(
    ("multiple", "seen"), [(None, (40, 24, 8)), (4, (16, 16, 8)), (5, (20, 24, 8))]
)
def test_a_window_is_no_longer_than_the_volume_needs(tmp_path, multiple, seen):
    run = RunContext(tmp_path)
    METHOD.fit(TrainingData([pair(0)]), run)
    inference = replace(METHOD.inference, size_vox=(40, 24, 8), multiple_vox=multiple)
    sizes = set()

    def network(patches):
        sizes.add(tuple(patches.shape[2:]))
        return torch.zeros(len(patches), 2, *patches.shape[2:])

    method = replace(METHOD, inference=inference)
    maps = replace(method.load(run), infer=network)(pair(0))
    assert sizes == {seen}
    assert maps.probability.shape == (SIDE,) * 3


@pytest.mark.parametrize("logit", [-1000.0, 1000.0])
def test_a_network_that_is_very_sure_overflows_nowhere(tmp_path, logit):
    run = RunContext(tmp_path)
    method = longer(logits(METHOD), 1, 4)
    method.fit(TrainingData([pair(0)]), run)

    def sure(patches):
        return torch.tensor([0.0, logit]).view(1, 2, 1, 1, 1).expand(-1, -1, *patches.shape[2:])

    maps = replace(method.load(run), infer=sure)(pair(0))
    assert np.unique(maps.probability).tolist() == [float(logit > 0)]


def test_prediction_normalizes_as_training_did(tmp_path):
    run = RunContext(tmp_path)
    normalize = ClipToRange(low=1.0, high=99.0)
    method = replace(METHOD, inference=replace(METHOD.inference, normalize=normalize))
    longer(method, 4, 32).fit(TrainingData([pair(0)]), run)
    study = pair(0)
    for visit in study.visits:
        visit.scans["flair"].array[:] *= 500
    assert score(method.load(run)(study), study) > 0.9


def test_weights_are_ranked_by_the_named_scores(tmp_path):
    selection = replace(METHOD.selection, top_k=2, by=("soft_dsc", "lesion_f1"))
    method = replace(METHOD, selection=selection)
    method.fit(DATA, RunContext(tmp_path))
    rows = log(tmp_path)
    assert all(0 < row["validation_soft_dsc"] < 1 for row in rows)
    chosen = json.loads((tmp_path / "training.json").read_text())["chosen"]
    total = [row["validation_soft_dsc"] + row.get("validation_lesion_f1", 0.0) for row in rows]
    assert chosen["epoch"] == 1 + int(np.argmax(total))


@pytest.mark.skipif(not has_openvino(), reason="OpenVINO is not installed")
def test_openvino_predicts_what_torch_predicts(tmp_path, monkeypatch):
    monkeypatch.setenv("LESIONWISE_CACHE", str(tmp_path / "cache"))
    run = RunContext(tmp_path)
    METHOD.fit(DATA, run)
    window = SlidingWindow(precision="float32", engine="openvino")
    fast = replace(METHOD, inference=replace(METHOD.inference, window=window))
    np.testing.assert_allclose(
        fast.load(run)(pair(1)).probability, METHOD.load(run)(pair(1)).probability, atol=1e-4
    )
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_tensorboard_shows_what_the_log_holds(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    METHOD.fit(DATA, RunContext(tmp_path))
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = {
        name: {e.step: e.value for e in events.Scalars(name)} for name in events.Tags()["scalars"]
    }
    for row in log(tmp_path):
        for name in row.keys() - {"epoch"}:
            assert shown[name][row["epoch"]] == pytest.approx(row[name], rel=1e-6)
    assert shown.keys() == log(tmp_path)[0].keys() - {"epoch"}


@pytest.mark.slow
def test_two_processes_train_together(tmp_path):
    folders = []
    for seed in range(4):
        write_prepared(pair(seed), tmp_path / f"p{seed}")
        folders.append(tmp_path / f"p{seed}")
    data = TrainingData(prepared_studies(tuple(folders[:2])), prepared_studies(tuple(folders[2:])))
    run = RunContext(tmp_path / "run", device="cpu:0,1")
    method = longer(METHOD, 2, 8)
    method.fit(data, run)
    summary = json.loads((run.folder / "training.json").read_text())
    assert summary["devices"] == 2
    assert summary["steps"] == 4  # 8 patches, 2 processes, batches of 2, 2 epochs
    assert summary["patches"] == 16
    assert [row["epoch"] for row in log(run.folder)] == [1, 2]
    assert "validation_dsc" in log(run.folder)[0]
    assert method.load(run)(pair(3)).probability.shape == (SIDE,) * 3


def test_the_loss_on_validation_samples_is_a_column_of_every_epoch(tmp_path):
    selection = replace(METHOD.selection, every=3, loss_samples=4)
    replace(METHOD, selection=selection).fit(DATA, RunContext(tmp_path))
    rows = log(tmp_path)
    assert all(row["validation_loss"] > 0 for row in rows)
    assert [("validation_dsc" in row) for row in rows] == [False, False, True]


def test_a_training_stops_when_the_validation_loss_no_longer_falls(tmp_path):
    stopping = EarlyStopping(2, unit="epochs", metric="validation_loss", larger_is_better=False)
    method = optimized(METHOD, epochs=50, learning_rate=1e-12, early_stopping=stopping)
    method = replace(method, selection=replace(METHOD.selection, loss_samples=2))
    method.fit(DATA, RunContext(tmp_path))
    assert len(log(tmp_path)) < 10


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(tmp_path, caplog):
    run = RunContext(tmp_path, resume=True)
    METHOD.fit(DATA, run)
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert (tmp_path / "checkpoints" / "previous.ckpt").is_file()
    last.write_bytes(last.read_bytes()[:300])
    METHOD.fit(DATA, run)
    assert "last.ckpt: damaged checkpoint" in caplog.text
    assert [row["epoch"] for row in log(tmp_path)] == [1, 2, 3]


def test_checkpoints_that_cannot_be_read_are_refused_in_one_line(tmp_path):
    run = RunContext(tmp_path, resume=True)
    METHOD.fit(DATA, run)
    for name in ("last", "previous"):
        (tmp_path / "checkpoints" / f"{name}.ckpt").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"last\.ckpt: damaged checkpoint .* delete it") as fault:
        METHOD.fit(DATA, run)
    assert "\n" not in str(fault.value)


def test_a_folder_that_is_full_is_named_and_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    import errno
    from pathlib import Path

    run = RunContext(tmp_path, resume=True)
    METHOD.fit(DATA, run)
    last = tmp_path / "checkpoints" / "last.ckpt"
    kept = last.read_bytes()
    write = Path.open

    def full(path, mode="r", *more, **named):
        if "partial" in path.name and "x" in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, mode, *more, **named)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(InputError, match=r"last\.ckpt: cannot be written \(No space left"):
        longer(METHOD, 5, 4).fit(DATA, run)
    assert last.read_bytes() == kept
    assert [p.name for p in last.parent.iterdir() if "partial" in p.name] == []


@dataclass(frozen=True)
class SometimesInfinite:
    """The supervised loss; times infinity in some calls, counted from 0."""

    supervised: Supervised
    bad: Container
    calls: list = field(default_factory=list)

    @property
    def targets(self):
        return self.supervised.targets

    def make(self, sample):
        return self.supervised.make(sample)

    def __call__(self, network, parts, batch):
        self.calls.append(None)
        factor = math.inf if len(self.calls) - 1 in self.bad else 1.0
        return {
            name: factor * loss for name, loss in self.supervised(network, parts, batch).items()
        }


def test_a_step_with_an_infinite_gradient_is_left_out(tmp_path):
    method = replace(METHOD, objective=SometimesInfinite(METHOD.objective, {2}))
    method.fit(TrainingData([pair(0)]), RunContext(tmp_path))
    rows = log(tmp_path)
    assert sum(row.get("steps_left_out", 0) for row in rows) == 1
    assert all(math.isfinite(row["total"]) for row in rows)
    weights = load_file(tmp_path / WEIGHTS)
    assert all(np.isfinite(weight).all() for weight in weights.values())


def test_a_left_out_step_changes_no_weight(tmp_path):
    found = []
    for name, bad in (("all", range(1, 10_000)), ("one", ())):
        method = replace(METHOD, objective=SometimesInfinite(METHOD.objective, bad))
        run = RunContext(tmp_path / name, max_steps=20 if bad else 1)
        method.fit(TrainingData([pair(0)]), run)
        found.append(load_file(run.folder / WEIGHTS))
    for name, weight in found[0].items():
        if "running_" not in name and "num_batches" not in name:  # those of the batch norm moved on
            np.testing.assert_array_equal(weight, found[1][name])


def test_a_training_that_diverges_ends_with_one_line(tmp_path):
    method = replace(METHOD, objective=SometimesInfinite(METHOD.objective, range(3, 10_000)))
    with pytest.raises(InputError, match="the training diverged"):
        longer(method, 100, 32).fit(TrainingData([pair(0)]), RunContext(tmp_path))
