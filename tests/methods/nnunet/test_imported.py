"""Folders as nnU-Net's own training leaves them."""

import json
import shutil
from functools import partial

import numpy as np
import pytest

pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed (the extra nnunet)")

from boxes import GRID, SHORT, method, study
from garbage import only_input_errors

from lesionwise.methods.nnunet.checkpoints import read_checkpoint
from lesionwise.methods.nnunet.imported import load_nnunet_model
from lesionwise.types import InputError, RunContext, TrainingData


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run, and the model folder that nnU-Net would know it by."""
    folder = tmp_path_factory.mktemp("trained")
    made = method(learning=SHORT)
    made.fit(TrainingData([study(0), study(1)], []), RunContext(folder, device="cpu"))
    (plans,) = (folder / "nnunet" / "results").rglob("plans.json")
    return made, folder, plans.parent


@pytest.fixture
def model(trained, tmp_path):
    """A copy of the model folder, to spoil."""
    return shutil.copytree(trained[2], tmp_path / "model")


def edit(path, change):
    held = json.loads(path.read_text())
    change(held)
    path.write_text(json.dumps(held))


def test_an_imported_model_predicts_what_its_run_does(trained):
    _, folder, model = trained
    read = load_nnunet_model(f"nnunet:{model}", "cpu")
    assert read.scans == ("flair",)
    assert read.visits == 1
    assert read.configuration == "3d_fullres"
    own = method(learning=SHORT, within_brain=False).load(RunContext(folder, device="cpu"))
    np.testing.assert_allclose(
        read.predictor(study(2)).probability, own(study(2)).probability, atol=1e-6
    )


def test_a_checkpoint_says_what_nnunet_asks_of_it(trained):
    held = read_checkpoint(trained[2] / "fold_0" / "checkpoint_final.pth")
    assert held["trainer_name"] == "nnUNetTrainer"
    assert held["init_args"]["configuration"] == "3d_fullres"
    assert held["inference_allowed_mirroring_axes"] == (0, 1, 2)


def test_folds_are_averaged(model):
    shutil.copytree(model / "fold_0", model / "fold_1")
    read = load_nnunet_model(model, "cpu")
    assert [path.parent.name for path in read.checkpoints] == ["fold_0", "fold_1"]
    assert read.predictor(study(2)).grid is GRID


def test_visits_and_scans_come_from_channel_names(model):
    def two(dataset):
        dataset["channel_names"] = {"0": "FLAIR_baseline", "1": "FLAIR_followup"}

    edit(model / "dataset.json", two)
    with pytest.raises(InputError, match="weights of another network"):
        load_nnunet_model(model, "cpu")
    edit(model / "dataset.json", lambda d: d.update(channel_names={"0": "magic"}))
    with pytest.raises(InputError, match="channel 'magic' is none of flair"):
        load_nnunet_model(model, "cpu")
    assert load_nnunet_model(model, "cpu", scans=["T1"]).scans == ("t1w",)


def test_the_label_that_speaks_of_lesions_is_taken(model):
    edit(
        model / "dataset.json",
        lambda d: d.update(labels={"background": 0, "WM lesion": 1}),
    )
    assert load_nnunet_model(model, "cpu").predictor.lesion_labels == (1,)
    edit(model / "dataset.json", lambda d: d.update(labels={"background": 0}))
    with pytest.raises(InputError, match="no label but the background"):
        load_nnunet_model(model, "cpu")


def test_plans_that_name_other_code_are_refused(model):
    def harmful(plans):
        plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = "os.system"

    edit(model / "plans.json", harmful)
    with pytest.raises(InputError, match=r"the network os\.system is not nnU-Net's"):
        load_nnunet_model(model, "cpu")


HUGE = {
    "patch": lambda plans: plans["configurations"]["3d_fullres"].update(
        patch_size=[4096, 4096, 4096]
    ),
    "side": lambda plans: plans["configurations"]["3d_fullres"].update(patch_size=[10**15, 8, 8]),
    "text": lambda plans: plans["configurations"]["3d_fullres"].update(patch_size=["8", 8, 8]),
    "spacing": lambda plans: plans["configurations"]["3d_fullres"].update(spacing=[1e-9, 1.0, 1.0]),
    "features": lambda plans: kwargs(plans).update(
        features_per_stage=[10**12] * len(kwargs(plans)["features_per_stage"])
    ),
    "parameters": lambda plans: kwargs(plans).update(
        features_per_stage=[4096] * len(kwargs(plans)["features_per_stage"]),
        kernel_sizes=[[63] * 3] * len(kwargs(plans)["kernel_sizes"]),
    ),
    "levels": lambda plans: kwargs(plans).update(n_stages=40, features_per_stage=[1] * 40),
    "convolutions": lambda plans: kwargs(plans).update(
        n_conv_per_stage=[10**6] * len(kwargs(plans)["n_conv_per_stage"])
    ),
    "nothing": lambda plans: plans.update(configurations=[]),
    "cycle": lambda plans: plans["configurations"]["3d_fullres"].update(inherits_from="3d_fullres"),
}


def kwargs(plans):
    return plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]


@pytest.mark.parametrize("change", HUGE.values(), ids=HUGE)
def test_plans_that_ask_for_too_much_are_refused_before_anything_is_allocated(model, change):
    edit(model / "plans.json", change)
    with pytest.raises(InputError) as caught:
        load_nnunet_model(model, "cpu")
    assert str(model) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", HUGE.values(), ids=HUGE)
def test_a_run_that_asks_for_too_much_is_refused_too(trained, tmp_path, change):
    made, folder, _ = trained
    for name in ("nnunet.json", "model.safetensors"):
        shutil.copyfile(folder / name, tmp_path / name)
    edit(tmp_path / "nnunet.json", lambda held: change(held["plans"]))
    with pytest.raises(InputError, match=r"nnunet\.json: "):
        made.load(RunContext(tmp_path, device="cpu"))


@pytest.mark.parametrize(
    "content", ["", "[]", "[" * 5000, '{"plans": 3}', '{"plans": NaN}', "\xff"]
)
@pytest.mark.parametrize("name", ["plans.json", "dataset.json"])
def test_files_that_are_not_nnunets_are_one_line(model, name, content):
    (model / name).write_text(content, encoding="latin-1")
    with pytest.raises(InputError) as caught:
        load_nnunet_model(model, "cpu")
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_numbers_are_refused(trained, model, tmp_path):
    import torch

    path = model / "fold_0" / "checkpoint_final.pth"
    held = read_checkpoint(path)
    first = next(iter(held["network_weights"]))
    held["network_weights"][first].view(-1)[0] = float("nan")
    torch.save(held, path)
    with pytest.raises(InputError, match="holds NaN or infinite weights"):
        load_nnunet_model(model, "cpu")


def test_layers_that_are_not_torchs_are_refused(model):
    def harmful(plans):
        architecture = plans["configurations"]["3d_fullres"]["architecture"]
        architecture["arch_kwargs"]["nonlin"] = "subprocess.Popen"

    edit(model / "plans.json", harmful)
    with pytest.raises(InputError, match=r"nonlin = subprocess\.Popen"):
        load_nnunet_model(model, "cpu")


@pytest.mark.parametrize("missing", ["plans.json", "dataset.json", "fold_0"])
def test_missing_parts_are_named(model, missing):
    path = model / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InputError, match=missing[:5]) as fault:
        load_nnunet_model(model, "cpu")
    assert "\n" not in str(fault.value)


def test_commands_take_the_folder_as_a_model(trained):
    from lesionwise.run.find_lesions import find_lesions
    from lesionwise.run.load_model import load_model

    loaded = load_model(f"nnunet:{trained[2]}", "cpu")
    assert len(loaded.sha256) == 64
    found = find_lesions(study(2), loaded)
    assert list(found.instances) == ["cc"]
    assert found.probability.grid is GRID


@pytest.mark.parametrize("axes", [[3], [0, 0], ["i"], [[0]], [-1]])
def test_mirrored_axes_that_no_patch_has_are_refused(trained, tmp_path, axes):
    made, folder, _ = trained
    for name in ("nnunet.json", "model.safetensors"):
        shutil.copyfile(folder / name, tmp_path / name)
    edit(tmp_path / "nnunet.json", lambda held: held.update(mirror_axes=axes))
    with pytest.raises(InputError, match=r"nnunet\.json: "):
        made.load(RunContext(tmp_path, device="cpu"))


FILES = ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth")


@pytest.mark.parametrize("name", FILES)
def test_only_input_errors_come_out_of_garbage(model, name):
    only_input_errors(model / name, lambda: load_nnunet_model(model, "cpu"), 40)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_only_input_errors_come_out_of_much_garbage(model, name):
    only_input_errors(model / name, lambda: load_nnunet_model(model, "cpu"), 1000, repeatable=False)


@pytest.mark.parametrize("name", ["nnunet.json", "model.safetensors"])
def test_only_input_errors_come_out_of_garbage_in_a_run(trained, tmp_path, name):
    made, folder, _ = trained
    run = tmp_path / "run"
    run.mkdir()
    for path in folder.iterdir():
        if path.is_file():
            shutil.copyfile(path, run / path.name)
    read = partial(made.load, RunContext(run, device="cpu"))
    only_input_errors(run / name, read, 40)
