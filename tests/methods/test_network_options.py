"""Options of the network engine, each on a training of seconds."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from lesionwise.inference.window import SlidingWindow
from lesionwise.learning.dataset import PreparedStudies, write_prepared
from lesionwise.learning.losses import CrossEntropy, DeepSupervision, Dice, WeightedSum
from lesionwise.learning.normalization import ClipToRange, WholeVolume
from lesionwise.learning.optimizers import Sgd
from lesionwise.learning.schedules import EarlyStopping, Plateau, StepDecay
from lesionwise.learning.targets import LesionLogit, LesionMask
from lesionwise.methods.network import NetworkMethod
from lesionwise.methods.selection import Selection
from lesionwise.networks.pre_unet import PreUNet
from lesionwise.networks.unet import UNet
from lesionwise.types import Grid, RunContext, Study, TrainingData, Visit, Volume

SIDE = 16
EXACT = SlidingWindow(precision="float32")


def pair(seed=0):
    """Two visits; one lesion was there, one is new."""
    rng = np.random.default_rng(seed)
    grid = Grid((SIDE,) * 3, np.eye(4))
    old = np.zeros(grid.shape, dtype=np.int32)
    old[2:6, 2:6, 3:8] = 1
    new = np.zeros(grid.shape, dtype=np.int32)
    new[9:14, 9:13, 9:13] = 1
    brain = Volume(np.ones(grid.shape, dtype=bool), grid)

    def noise():
        return 0.3 * rng.standard_normal(grid.shape)

    visits = tuple(
        Visit(
            {
                "flair": Volume(
                    (2.0 * seen + 0.3 * rng.standard_normal(grid.shape)).astype("f4"), grid
                )
            },
            brain=brain,
        )
        for seen in (old > 0, (old + new) > 0)
    )
    return Study(f"s{seed}", visits, {"new": Volume(new, grid)})


METHOD = NetworkMethod(
    network=partial(UNet, in_channels=2, out_channels=2, features=(8, 16)),
    scans=("flair",),
    finds="new",
    targets=LesionMask(),
    loss=WeightedSum(((1.0, CrossEntropy()), (1.0, Dice()))),
    learning_rate=2e-2,
    epochs=3,
    patch_size_vox=(SIDE,) * 3,
    batch_size=2,
    patches_per_epoch=4,
    spatial=None,
    intensity=None,
    validate_every=1,
    window=EXACT,
    validation_window=EXACT,
    precision="float32",
)
DATA = TrainingData([pair(0)], [pair(1)])


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def dice(maps, study):
    found, truth = maps.probability > 0.5, study.changes["new"].array > 0
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


def test_new_lesions_are_learned_and_old_ones_are_not(tmp_path):
    run = RunContext(tmp_path)
    replace(METHOD, epochs=4, patches_per_epoch=32).fit(TrainingData([pair(0)]), run)
    maps = METHOD.load(run)(pair(0))
    assert dice(maps, pair(0)) > 0.95
    assert not (maps.probability[2:6, 2:6, 3:8] > 0.5).any()


def test_a_schedule_sets_the_rate_of_each_epoch(tmp_path):
    method = replace(METHOD, schedule=StepDecay(0.1), optimizer=Sgd(momentum=0.9))
    method.fit(DATA, RunContext(tmp_path))
    rates = [row["learning_rate"] for row in log(tmp_path)]
    assert rates == pytest.approx([2e-2, 2e-3, 2e-4])


def test_a_plateau_is_seen_in_the_log(tmp_path):
    flat = Plateau("validation_dsc", gamma=0.5, patience=1, larger_is_better=True)
    replace(METHOD, schedule=flat, learning_rate=1e-12).fit(DATA, RunContext(tmp_path))
    rates = [row["learning_rate"] for row in log(tmp_path)]
    assert rates == pytest.approx([1e-12, 1e-12, 0.5e-12])


def test_a_training_without_gain_ends_early_and_is_not_taken_up_again(tmp_path):
    method = replace(METHOD, epochs=50, learning_rate=1e-12, stop=EarlyStopping(patience=6))
    run = RunContext(tmp_path, resume=True)
    method.fit(DATA, run)
    assert len(log(tmp_path)) == 4  # 2 steps an epoch: the first is the best, 6 steps follow
    method.fit(DATA, run)
    assert len(log(tmp_path)) == 4


def test_deep_supervision_trains_a_network_of_several_outputs(tmp_path):
    method = replace(
        METHOD,
        network=partial(PreUNet, in_channels=2, out_channels=2, features=(8, 16, 24)),
        loss=DeepSupervision(METHOD.loss, weights=(1.0, 0.5, 0.25)),
        targets=LesionLogit(),
        learning_rate=5e-3,
        epochs=4,
        patches_per_epoch=60,
    )
    run = RunContext(tmp_path)
    method.fit(TrainingData([pair(0)]), run)
    maps = method.load(run)(pair(0))
    assert dice(maps, pair(0)) > 0.9
    logits = maps.extra["logits"]
    np.testing.assert_allclose(maps.probability, 1 / (1 + np.exp(-logits)), rtol=1e-5)


def test_where_no_window_looked_a_logit_is_far_below_0(tmp_path):
    study = pair(0)
    brain = np.zeros((SIDE,) * 3, dtype=bool)
    brain[:8, :8, :8] = True
    grid = study.followup.scans["flair"].grid
    visits = tuple(replace(v, brain=Volume(brain, grid)) for v in study.visits)
    run = RunContext(tmp_path)
    method = replace(METHOD, targets=LesionLogit(), epochs=1, patch_size_vox=(8, 8, 8))
    method.fit(TrainingData([study]), run)
    maps = method.load(run)(replace(study, visits=visits))
    assert maps.probability[12:, 12:, 12:].max() < 1e-6


@pytest.mark.parametrize("logit", [-1000.0, 1000.0])
def test_a_network_that_is_very_sure_overflows_nowhere(tmp_path, logit):
    run = RunContext(tmp_path)
    method = replace(METHOD, targets=LesionLogit(), epochs=1)
    method.fit(TrainingData([pair(0)]), run)

    def sure(patches):
        return torch.tensor([0.0, logit]).view(1, 2, 1, 1, 1).expand(-1, -1, *patches.shape[2:])

    maps = replace(method.load(run), computes=sure)(pair(0))
    assert np.unique(maps.probability).tolist() == [float(logit > 0)]


def test_prediction_normalizes_as_training_did(tmp_path):
    run = RunContext(tmp_path)
    method = replace(METHOD, whole_volume=WholeVolume(ClipToRange(low=1.0, high=99.0)))
    replace(method, epochs=4, patches_per_epoch=32).fit(TrainingData([pair(0)]), run)
    study = pair(0)
    for visit in study.visits:
        visit.scans["flair"].array[:] *= 500
    assert dice(method.load(run)(study), study) > 0.9


def test_weights_are_ranked_by_the_named_scores(tmp_path):
    method = replace(METHOD, selection=Selection(top_k=2, by=("soft_dsc", "lesion_f1")))
    method.fit(DATA, RunContext(tmp_path))
    rows = log(tmp_path)
    assert all(0 < row["validation_soft_dsc"] < 1 for row in rows)
    chosen = json.loads((tmp_path / "training.json").read_text())["chosen"]
    total = [row["validation_soft_dsc"] + row.get("validation_lesion_f1", 0.0) for row in rows]
    assert chosen["epoch"] == 1 + int(np.argmax(total))


def test_openvino_predicts_what_torch_predicts(tmp_path):
    pytest.importorskip("openvino")
    run = RunContext(tmp_path)
    METHOD.fit(DATA, run)
    fast = replace(METHOD, window=SlidingWindow(precision="float32", engine="openvino"))
    np.testing.assert_allclose(
        fast.load(run)(pair(1)).probability, METHOD.load(run)(pair(1)).probability, atol=1e-4
    )


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
    data = TrainingData(PreparedStudies(tuple(folders[:2])), PreparedStudies(tuple(folders[2:])))
    run = RunContext(tmp_path / "run", device="cpu:0,1")
    method = replace(METHOD, sync_batch_norm=None, epochs=2, patches_per_epoch=8)
    method.fit(data, run)
    summary = json.loads((run.folder / "training.json").read_text())
    assert summary["devices"] == 2
    assert summary["steps"] == 4  # 8 patches, 2 processes, batches of 2, 2 epochs
    assert summary["patches"] == 16
    assert [row["epoch"] for row in log(run.folder)] == [1, 2]
    assert "validation_dsc" in log(run.folder)[0]
    assert method.load(run)(pair(3)).probability.shape == (SIDE,) * 3
