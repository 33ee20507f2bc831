import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed (the extra nnunet)")

import torch
from boxes import GRID, SHORT, SMALL, method, study

from lesionwise.methods.nnunet import InstanceHeads
from lesionwise.methods.nnunet.trainer import LesionTrainer
from lesionwise.types import InputError, RunContext, TrainingData

DATA = TrainingData([study(0), study(1)], [study(2)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with instance heads, and its folder."""
    folder = tmp_path_factory.mktemp("trained")
    made = method(heads=InstanceHeads())
    made.fit(DATA, RunContext(folder, seed=3, device="cpu"))
    return made, folder


def test_a_run_leaves_weights_log_and_summary(trained):
    _, folder = trained
    assert (folder / "model.safetensors").is_file()
    assert len((folder / "log.csv").read_text().splitlines()) == 1 + SHORT.epochs
    summary = json.loads((folder / "training.json").read_text())
    assert summary["epochs"] == 2
    assert summary["patches"] == 2 * 3 * 2
    assert not (folder / "nnunet" / "raw").exists()


def test_maps_lie_on_the_studys_grid(trained):
    made, folder = trained
    maps = made.load(RunContext(folder, device="cpu"))(study(2))
    assert maps.grid is GRID
    assert maps.probability.shape == GRID.shape
    assert maps.probability.dtype == np.float32
    assert maps.offsets_vox.shape == (3, *GRID.shape)
    assert 0 <= maps.probability.min() <= maps.probability.max() <= 1
    assert np.ptp(maps.probability) > 0


def test_a_killed_training_resumes_to_the_same_weights(trained, tmp_path, monkeypatch):
    made, folder = trained
    step = LesionTrainer.on_epoch_end

    def killed(self):
        step(self)
        raise KeyboardInterrupt

    run = RunContext(tmp_path, seed=3, device="cpu", resume=True)
    with monkeypatch.context() as patch:
        patch.setattr(LesionTrainer, "on_epoch_end", killed)
        with pytest.raises(KeyboardInterrupt):
            made.fit(DATA, run)
    assert not (tmp_path / "model.safetensors").exists()
    made.fit(DATA, run)
    whole, resumed = (p / "model.safetensors" for p in (folder, tmp_path))
    assert whole.read_bytes() == resumed.read_bytes()
    assert (tmp_path / "log.csv").read_text() == (folder / "log.csv").read_text()


def test_a_training_that_diverges_ends_with_one_line(tmp_path, monkeypatch):
    long = replace(SHORT, epochs=1000)
    monkeypatch.setattr(LesionTrainer, "train_step", lambda self, batch: {"loss": np.array(np.nan)})
    with pytest.raises(InputError, match="the training diverged"):
        method(learning=long).fit(DATA, RunContext(tmp_path, seed=3, device="cpu"))


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_draw_from_the_seed(trained, tmp_path, workers):
    made, folder = trained
    made.fit(DATA, RunContext(tmp_path, seed=3, device="cpu", workers=workers))
    alone, helped = (p / "model.safetensors" for p in (folder, tmp_path))
    assert alone.read_bytes() == helped.read_bytes()
    assert (tmp_path / "log.csv").read_text() == (folder / "log.csv").read_text()


def test_another_seed_gives_other_weights(trained, tmp_path):
    made, folder = trained
    made.fit(DATA, RunContext(tmp_path, seed=4, device="cpu", workers=1))
    one, other = (p / "model.safetensors" for p in (folder, tmp_path))
    assert one.read_bytes() != other.read_bytes()


def test_dropout_does_not_depend_on_the_workers(tmp_path):
    made = method(plans=replace(SMALL, dropout=0.5), learning=replace(SHORT, epochs=1))
    for workers in (0, 1):
        made.fit(DATA, RunContext(tmp_path / str(workers), device="cpu", workers=workers))
    alone, helped = (tmp_path / name / "model.safetensors" for name in "01")
    assert alone.read_bytes() == helped.read_bytes()


def test_time_is_up_before_the_epochs_are(tmp_path):
    long = replace(SHORT, epochs=1000)
    method(learning=long).fit(DATA, RunContext(tmp_path, device="cpu", max_minutes=0.01))
    assert json.loads((tmp_path / "training.json").read_text())["epochs"] < long.epochs


def test_a_limit_of_steps_may_end_within_an_epoch(tmp_path):
    long = replace(SHORT, epochs=1000)
    steps = long.batches_per_epoch + 1
    method(learning=long).fit(DATA, RunContext(tmp_path, device="cpu", max_steps=steps))
    summary = json.loads((tmp_path / "training.json").read_text())
    assert (summary["steps"], summary["epochs"]) == (steps, 2)


def test_two_visits_in_two_dimensions_with_a_sigmoid(tmp_path):
    from lesionwise.methods.nnunet import Plans

    plans = Plans(first_axis="k", patch_size_vox=(16, 16), base_features=4, batch_size=2)
    made = method(
        configuration="2d", task="new", plans=plans, learning=replace(SHORT, loss="dice+bce")
    )
    data = TrainingData([study(0, 2)], [])
    run = RunContext(tmp_path, device="cpu")
    made.fit(data, run)
    maps = made.load(run)(study(1, 2))
    assert maps.probability.shape == GRID.shape
    assert maps.offsets_vox is None
    with pytest.raises(InputError, match="takes 2 scans, 1 are here"):
        made.load(run)(study(1))


def test_openvino_computes_what_torch_does(trained):
    pytest.importorskip("openvino", reason="openvino is not installed")
    made, folder = trained
    maps = [
        replace(made, engine=engine).load(RunContext(folder, device="cpu"))(study(2))
        for engine in ("torch", "openvino")
    ]
    np.testing.assert_allclose(maps[0].probability, maps[1].probability, atol=1e-4)
    np.testing.assert_allclose(maps[0].offsets_vox, maps[1].offsets_vox, atol=1e-3)


def test_a_run_without_weights_is_refused(trained, tmp_path):
    made, folder = trained
    (tmp_path / "nnunet.json").write_bytes((folder / "nnunet.json").read_bytes())
    with pytest.raises(InputError, match="no such weights file"):
        made.load(RunContext(tmp_path, device="cpu"))
    with pytest.raises(InputError, match=r"nnunet\.json: cannot be read"):
        made.load(RunContext(tmp_path / "nowhere", device="cpu"))


def test_nothing_of_the_environment_stays_changed(trained):
    import os

    assert not any(name.startswith("nnUNet_") for name in os.environ)
    assert torch.get_num_threads() >= 1


def test_heads_need_volumes():
    with pytest.raises(ValueError, match="3D"):
        method(heads=InstanceHeads(), configuration="2d")
