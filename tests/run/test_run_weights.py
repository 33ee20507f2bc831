"""One hash over all that a run learned."""

import json

import pytest
import torch

from lesionwise.inference.weights import save_weights
from lesionwise.io.record import sha256
from lesionwise.run.find_lesions import FindOptions
from lesionwise.run.load_model import load_model
from lesionwise.run.recipes import find_recipe
from lesionwise.run.run_weights import hash_of_weights, known_hash, weights_of
from lesionwise.run.segment import model_settings
from lesionwise.types import InputError

ENSEMBLE = "segresnet-ensemble:reduced"


def put(run, name, content="abc"):
    path = run / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def test_the_hash_of_a_single_weights_file_is_its_own(tmp_path):
    path = put(tmp_path, "model.safetensors")
    for name in ("run.json", "log.csv", "training.json", "initial.safetensors", "mine.txt"):
        put(tmp_path, name)
    for folder in ("candidates", "checkpoints", "pretrained", "fold-0", "prepared/sub-1"):
        put(tmp_path, f"{folder}/model.safetensors")
    assert weights_of(tmp_path) == [path]
    assert hash_of_weights(tmp_path) == sha256(path)


@pytest.mark.parametrize(
    "name",
    [
        "model.txt",
        "member-0/model.safetensors",
        "member-1/model.txt",
        "member-1/member-0/model.safetensors",
        "steps/2/landmarks.json",
        "steps/3/member-0/model.safetensors",
        "steps/4/mean.json",
    ],
)
def test_every_file_that_a_model_reads_counts(tmp_path, name):
    put(tmp_path, "member-0/model.safetensors")
    found = {hash_of_weights(tmp_path)}
    for content in ("one", "two"):
        put(tmp_path, name, content)
        found.add(hash_of_weights(tmp_path))
    assert len(found) == 3


def test_logs_of_members_and_steps_do_not_count(tmp_path):
    put(tmp_path, "member-0/model.safetensors")
    before = hash_of_weights(tmp_path)
    for name in ("log.csv", "training.json", "fitted", ".nfs1", "candidates/0.safetensors"):
        put(tmp_path, f"member-0/{name}")
        put(tmp_path, f"steps/1/{name}")
    put(tmp_path, "steps/1/masks/a.npz")
    assert hash_of_weights(tmp_path) == before


def test_nothing_learned_has_no_hash(tmp_path):
    assert hash_of_weights(tmp_path) == ""
    assert known_hash(tmp_path, "") == ""
    assert known_hash(tmp_path, "0" * 64) is None


def test_what_earlier_versions_wrote_down_is_known(tmp_path):
    path = put(tmp_path, "model.safetensors")
    put(tmp_path, "steps/1/landmarks.json")
    whole = hash_of_weights(tmp_path)
    assert whole != sha256(path)
    assert known_hash(tmp_path, None) == known_hash(tmp_path, "") == whole
    assert known_hash(tmp_path, whole) == whole
    assert known_hash(tmp_path, sha256(path)) == sha256(path)
    assert known_hash(tmp_path, "0" * 64) is None


@pytest.fixture
def ensemble(tmp_path):
    """A run of an ensemble, and what trains it again."""
    run, recipe = tmp_path / "run", find_recipe(ENSEMBLE)

    def train(seed, **stated):
        torch.manual_seed(seed)
        for number, member in enumerate(recipe.method.members()):
            save_weights(member.network(), run / f"member-{number}" / "model.safetensors")
        written = {"recipe": ENSEMBLE, "overrides": [], "status": "done", "settings": {}}
        (run / "run.json").write_text(json.dumps({"format": 99, **written, **stated}))
        return run

    return train


def test_an_ensemble_that_was_trained_again_is_another_model(ensemble):
    settings = []
    for seed in (1, 2):
        model = load_model(ensemble(seed), "cpu")
        assert len(model.sha256) == 64
        settings.append(model_settings(model, FindOptions()))
    assert settings[0] != settings[1]


def test_an_exchanged_member_is_refused_if_the_run_names_its_weights(ensemble):
    known = hash_of_weights(ensemble(1))
    assert load_model(ensemble(1, sha256=known), "cpu").sha256 == known
    with pytest.raises(InputError, match="SHA-256 differs"):
        load_model(ensemble(2, sha256=known), "cpu")


@pytest.mark.parametrize("stated", [{}, {"sha256": ""}])
def test_an_ensemble_of_an_earlier_version_is_loaded(ensemble, stated):
    run = ensemble(1, **stated)
    assert load_model(run, "cpu").sha256 == hash_of_weights(run)
