"""From a BIDS folder to a run, and from a run to a model."""

import json
import shutil

import numpy as np
import pytest
from bids import begin, save_visit
from safetensors.numpy import load_file

from lesionwise.io.fingerprint import fingerprint_of
from lesionwise.run.load_model import load_model, model_names
from lesionwise.run.prepare import Prepared, prepare
from lesionwise.run.recipes import find_recipe
from lesionwise.run.run_weights import hash_of_weights
from lesionwise.run.train import split_subjects, train
from lesionwise.types import InputError

SIDE = 24
SMALL = (
    "method.network.features=[4, 8, 8]",
    "method.samples.size_vox=[16, 16, 16]",
    "method.samples.batch_size=2",
    "method.samples.per_epoch=4",
    "method.optimization.epochs=2",
    "method.selection.every=1",
    "method.selection.top_k=2",
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Three patients, one with two visits: a ball of brain with two lesions."""
    root = begin(tmp_path_factory.mktemp("bids"))
    where = np.indices((SIDE,) * 3) - (SIDE - 1) / 2
    brain = (where**2).sum(axis=0) < 10**2
    for seed, (subject, session) in enumerate([("a", "01"), ("a", "02"), ("b", ""), ("c", "")]):
        rng = np.random.default_rng(seed)
        lesions = np.zeros(brain.shape, dtype=np.int16)
        lesions[7:11, 7:11, 7:11] = 1
        lesions[13:17, 12:16, 12:16] = 2
        image = brain * (100 + 10 * rng.standard_normal(brain.shape)) + 60 * (lesions > 0)
        volumes = {
            "FLAIR": image.astype(np.float32),
            "desc-brain_mask": brain,
            "label-L_mask": lesions > 0,
            "seg-truth_dseg": lesions,
        }
        save_visit(root, subject, session, volumes)
    return root


@pytest.fixture(scope="module")
def arrays(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare("unet-cc", dataset, folder)
    return folder


@pytest.fixture(scope="module")
def trained(dataset, arrays, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "run"
    return train(
        "unet-cc", dataset, output, overrides=SMALL, validation_subjects=["c"], prepared=arrays
    )


def test_every_visit_is_prepared_as_a_study(arrays):
    prepared = prepare("unet-cc", arrays, arrays)
    assert prepared.subjects == ("a", "a", "b", "c")
    assert prepared.lesions == (2, 2, 2, 2)
    study = prepared.studies(["b"])[0]
    assert study.followup.brain is not None
    inside = study.followup.scans["flair"].array[study.followup.brain.array].astype(float)
    assert inside.mean() == pytest.approx(0, abs=1e-2)
    assert inside.std() == pytest.approx(1, abs=1e-2)


def test_arrays_prepared_another_way_are_refused(dataset, arrays):
    with pytest.raises(
        InputError, match=r"was begun with preprocess\.2\.spacing_mm 1\.0, now it is 2\.0; "
    ):
        prepare("unet-cc", dataset, arrays, overrides=["preprocess.2.spacing_mm=2.0"])


def test_a_run_says_what_it_is(trained):
    run = json.loads((trained / "run.json").read_text())
    assert run["status"] == "done"
    assert run["recipe"] == "unet-cc"
    assert run["validation"] == ["c"]
    assert run["training"] == ["a", "b"]
    assert run["settings"]["method.optimization.epochs"] == 2
    assert run["summary"]["steps"] == 4
    assert len(run["sha256"]) == 64
    assert {"lesionwise", "python", "torch", "numpy", "lightning"} <= set(run["versions"])


def test_a_run_is_loaded_with_the_values_it_was_trained_with(trained, arrays):
    model = load_model(trained)
    assert model.recipe.method.samples.size_vox == (16, 16, 16)
    study = prepare("unet-cc", arrays, arrays).studies(["b"])[0]
    maps = model.predict(study)
    assert maps.probability.shape == study.followup.scans["flair"].array.shape
    assert maps.offsets_vox is None


def test_the_same_call_again_trains_nothing(trained, dataset, arrays, monkeypatch):
    before = (trained / "model.safetensors").stat().st_mtime_ns
    again = train(
        "unet-cc", dataset, trained, overrides=SMALL, validation_subjects=["c"], prepared=arrays
    )
    assert again == trained
    assert (trained / "model.safetensors").stat().st_mtime_ns == before


def test_weights_that_were_cut_off_are_made_again(trained, dataset, arrays, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    weights = run / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:300])
    train("unet-cc", dataset, run, overrides=SMALL, validation_subjects=["c"], prepared=arrays)
    assert weights.read_bytes() == whole


def test_a_prepared_subject_of_which_something_is_cut_off_is_prepared_again(dataset, tmp_path):
    prepare("unet-cc", dataset, tmp_path)
    path = tmp_path / "sub-b" / "visit" / "visit-0_scan-flair.npy"
    other = tmp_path / "sub-c" / "done.json"
    whole, kept = path.read_bytes(), other.stat().st_mtime_ns
    path.write_bytes(whole[:300])
    prepared = prepare("unet-cc", dataset, tmp_path)
    assert prepared.subjects == ("a", "a", "b", "c")
    assert path.read_bytes() == whole
    assert other.stat().st_mtime_ns == kept
    assert sorted(place.name for place in tmp_path.iterdir()) == [
        "prepared.json", "sub-a", "sub-b", "sub-c",
    ]  # fmt: skip


def test_a_run_does_not_go_on_with_other_settings(trained, dataset, arrays):
    with pytest.raises(
        InputError, match=r"begun with method\.optimization\.learning_rate 0\.0001, now it is 0\.5"
    ):
        train(
            "unet-cc",
            dataset,
            trained,
            overrides=[*SMALL, "method.optimization.learning_rate=0.5"],
            validation_subjects=["c"],
            prepared=arrays,
        )


def test_an_edited_mask_of_the_same_size_is_noticed(trained, dataset, tmp_path):
    data = shutil.copytree(dataset, tmp_path / "data")
    prepare("unet-cc", data, tmp_path / "prepared")
    path = data / "sub-b" / "anat" / "sub-b_FLAIR.nii.gz"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=r"was begun with data SHA-256 [0-9a-f]{12}, now it is"):
        prepare("unet-cc", data, tmp_path / "prepared")


@pytest.mark.parametrize("earlier", [("run", "prepared"), ("run",), ("prepared",)])
def test_a_run_and_arrays_of_an_earlier_version_go_on(
    trained, dataset, arrays, tmp_path, monkeypatch, earlier
):
    run = shutil.copytree(trained, tmp_path / "run")
    prepared = shutil.copytree(arrays, tmp_path / "prepared")
    for path in (run / "run.json", prepared / "prepared.json"):
        if path.stem in earlier:
            about = json.loads(path.read_text())
            path.write_text(json.dumps(about | {"data": fingerprint_of(dataset, "0" * 64)}))
    monkeypatch.setattr("lesionwise.run.train.fit_steps", None)  # nothing is learned
    settings = {"overrides": SMALL, "validation_subjects": ["c"]}
    assert train("unet-cc", dataset, run, prepared=prepared, **settings) == run
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(about | {"data": "0" * 64}))
    with pytest.raises(InputError, match="was begun with data"):
        train("unet-cc", dataset, run, prepared=prepared, **settings)


def test_a_limit_of_steps_is_part_of_the_run(trained, dataset, arrays, tmp_path):
    same = {"overrides": SMALL, "validation_subjects": ["c"], "prepared": arrays}
    run = train("unet-cc", dataset, tmp_path / "run", max_steps=1, **same)
    assert json.loads((run / "training.json").read_text())["steps"] == 1
    with pytest.raises(InputError, match="begun with max_steps 1, now it is 2"):
        train("unet-cc", dataset, run, max_steps=2, **same)
    assert train("unet-cc", dataset, run, max_steps=1, **same) == run
    with pytest.raises(InputError, match="at least one optimizer step, got max_steps 0"):
        train("unet-cc", dataset, tmp_path / "none", max_steps=0, **same)
    assert not (tmp_path / "none").exists()


def test_a_unet_cc_run_serves_unet_acls(trained, arrays, tmp_path):
    run = train(
        "unet-acls",
        arrays,
        tmp_path / "acls",
        overrides=SMALL,
        validation_subjects=["c"],
        reuse=trained,
    )
    model = load_model(run)
    assert model.sha256 == load_model(trained).sha256
    assert type(model.recipe.to_instances).__name__ == "Acls"


def test_exchanged_weights_are_not_reused(trained, arrays, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    weights = run / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(InputError, match="has no weights, or not those that its run names"):
        train("unet-acls", arrays, tmp_path / "x", overrides=SMALL, reuse=run)


def test_another_network_is_not_reused(trained, arrays, tmp_path):
    with pytest.raises(InputError, match=r"begun with method\.objective\.loss\.is WeightedSum"):
        train(
            "conflunet",
            arrays,
            tmp_path / "x",
            overrides=SMALL,
            validation_subjects=["c"],
            reuse=trained,
        )


def test_a_users_recipe_travels_with_its_run(arrays, tmp_path):
    recipe = tmp_path / "mine.py"
    recipe.write_text(
        "from lesionwise.run.recipes import find_recipe\n"
        f"RECIPE = find_recipe('conflunet', {SMALL!r})\n"
    )
    run = train(
        recipe,
        arrays,
        tmp_path / "run",
        overrides=["method.optimization.epochs=1"],
        fold=0,
        folds=3,
    )
    recipe.unlink()
    assert run.name == "fold-0"
    model = load_model(run, trust_recipe=True)
    assert model.recipe.method.optimization.epochs == 1
    study = prepare("conflunet", arrays, arrays).studies(["a"])[0]
    maps = model.predict(study)
    assert maps.offsets_vox is not None
    assert maps.offsets_vox.shape == (3, *maps.probability.shape)
    with pytest.raises(InputError, match="name one of fold-0"):
        load_model(run.parent)


def test_every_member_of_an_ensemble_belongs_to_its_run(arrays, tmp_path):
    recipe = tmp_path / "mine.py"
    recipe.write_text(
        "from dataclasses import replace\n"
        "from lesionwise.methods.composite import Ensemble\n"
        "from lesionwise.run.recipes import find_recipe\n"
        f"ONE = find_recipe('unet-cc', {(*SMALL, 'method.optimization.epochs=1')!r})\n"
        "RECIPE = replace(ONE, method=Ensemble((ONE.method,) * 2))\n"
    )
    settings = {"validation_subjects": ["c"]}
    run = train(recipe, arrays, tmp_path / "run", **settings)
    known = json.loads((run / "run.json").read_text())["sha256"]
    assert load_model(run, "cpu", trust_recipe=True).sha256 == known == hash_of_weights(run)
    first, second = (run / f"member-{n}" / "model.safetensors" for n in (0, 1))
    whole, untouched = second.read_bytes(), first.stat().st_mtime_ns
    second.write_bytes(first.read_bytes())
    with pytest.raises(InputError, match="SHA-256 differs"):
        load_model(run, "cpu", trust_recipe=True)
    train(recipe, arrays, run, **settings)
    assert second.read_bytes() == whole
    assert first.stat().st_mtime_ns == untouched
    assert load_model(run, "cpu", trust_recipe=True).sha256 == known


def test_an_unfinished_run_is_not_a_model(trained, tmp_path):
    run = json.loads((trained / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(run | {"status": "training"}))
    with pytest.raises(InputError, match="has not ended"):
        load_model(tmp_path)


def test_weights_that_were_exchanged_are_refused(trained, tmp_path):
    run = json.loads((trained / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(run | {"sha256": "0" * 64}))
    (tmp_path / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match="SHA-256 differs"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("text", "fault"), [(None, "not a run folder"), ("{", "not valid JSON"), ("{}", "malformed")]
)
def test_a_folder_that_is_no_run_is_named(tmp_path, text, fault):
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=fault):
        load_model(tmp_path)


def test_an_unknown_model_is_named():
    with pytest.raises(InputError, match="no such run folder, and no such model"):
        load_model("no-such-model")
    assert isinstance(model_names(), list)


def _prepared(tmp_path, lesions):
    names = tuple(f"sub-{n}/visit" for n in range(len(lesions)))
    subjects = tuple(str(n) for n in range(len(lesions)))
    return Prepared(tmp_path, names, subjects, tuple(lesions), {}, "")


def test_every_subject_validates_in_exactly_one_fold(tmp_path):
    arrays = _prepared(tmp_path, range(17))
    seen = []
    for fold in range(5):
        training, validation = split_subjects(arrays, fold, 5, seed=3)
        assert not set(training) & set(validation)
        assert len(training) + len(validation) == 17
        seen += validation
    assert sorted(seen) == sorted(arrays.subjects)


def test_folds_have_similar_numbers_of_lesions(tmp_path):
    arrays = _prepared(tmp_path, [1, 2, 3, 100, 101, 102])
    for fold in range(3):
        _, validation = split_subjects(arrays, fold, 3, seed=0)
        assert sorted(int(s) < 3 for s in validation) == [False, True]


def test_both_visits_of_a_subject_stay_together(tmp_path):
    arrays = Prepared(tmp_path, ("x/1", "x/2", "y/1"), ("x", "x", "y"), (1, 1, 2), {}, "")
    training, validation = split_subjects(arrays, 0, 5, seed=0)
    assert sorted([*training, *validation]) == ["x", "y"]


def test_a_single_subject_is_trained_on(tmp_path):
    assert split_subjects(_prepared(tmp_path, [4]), 0, 5, seed=0) == (["0"], [])


def test_unknown_validation_subjects_are_named(tmp_path):
    with pytest.raises(InputError, match="no prepared subject z"):
        split_subjects(_prepared(tmp_path, [1, 2]), 0, 5, 0, ["sub-z"])


def test_a_data_set_without_masks_says_so(dataset, tmp_path):
    bare = tmp_path / "bare"
    folder = bare / "sub-a" / "anat"
    folder.mkdir(parents=True)
    source = dataset / "sub-b" / "anat" / "sub-b_FLAIR.nii.gz"
    (folder / "sub-a_FLAIR.nii.gz").write_bytes(source.read_bytes())
    with pytest.raises(InputError, match=r"no study to learn from.*no lesion mask"):
        train("unet-cc", bare, tmp_path / "run", overrides=SMALL)


def test_data_without_a_lesion_teach_nothing_and_the_folder_stays_free(dataset, arrays, tmp_path):
    healthy = begin(tmp_path / "healthy")
    blank = np.zeros((SIDE,) * 3, dtype=np.uint8)
    image = np.random.default_rng(0).normal(100, 10, blank.shape).astype(np.float32)
    for subject in ("a", "b"):
        scans = {"FLAIR": image, "desc-brain_mask": blank + 1, "label-L_mask": blank}
        save_visit(healthy, subject, "", scans)
    run = tmp_path / "run"
    with pytest.raises(InputError, match="have no lesion"):
        train("unet-cc", healthy, run, overrides=SMALL, prepared=tmp_path / "prepared")
    assert train("unet-cc", dataset, run, overrides=SMALL, prepared=arrays) == run


def test_a_run_can_begin_with_the_weights_of_another(dataset, arrays, trained, tmp_path):
    still = (*SMALL, "method.optimization.learning_rate=0.0")
    settings = {"overrides": still, "validation_subjects": ["c"], "prepared": arrays}
    done = train("unet-cc", dataset, tmp_path / "run", initial=trained, **settings)
    before = load_file(str(trained / "model.safetensors"))
    after = load_file(str(done / "model.safetensors"))
    weights = [name for name in before if name.endswith("weight")]
    assert all(np.array_equal(before[name], after[name]) for name in weights)
    written = json.loads((done / "run.json").read_text())
    assert written["initial"] == json.loads((trained / "run.json").read_text())["sha256"]


def test_missing_weights_to_begin_with_are_refused(dataset, arrays, tmp_path):
    with pytest.raises(InputError, match="no such weights file"):
        train("unet-cc", dataset, tmp_path / "run", prepared=arrays, initial=tmp_path)


def test_weights_to_begin_with_that_are_none_are_named_as_given(dataset, arrays, tmp_path):
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"no weights")
    with pytest.raises(InputError, match=f"{garbage}: not a safetensors file"):
        train("unet-cc", dataset, tmp_path / "run", prepared=arrays, initial=garbage)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("minutes", [0.0, -3.0, float("nan"), float("inf")])
def test_a_time_limit_that_is_none_is_refused_before_anything_is_written(
    dataset, tmp_path, minutes
):
    with pytest.raises(InputError, match="a time limit above 0 minutes"):
        train("unet-cc", dataset, tmp_path / "run", overrides=SMALL, max_minutes=minutes)
    assert not (tmp_path / "run").exists()


def test_patches_that_the_network_cannot_take_are_refused(dataset, arrays, tmp_path):
    odd = (*SMALL, "method.samples.size_vox=[15,15,15]")
    with pytest.raises(InputError, match="cannot take patches of 15 x 15 x 15 voxels"):
        train("unet-cc", dataset, tmp_path / "run", overrides=odd, prepared=arrays)


@pytest.mark.parametrize("name", ["threshold", "min_peak"])
def test_probabilities_above_one_are_no_settings(name):
    with pytest.raises(InputError, match=f"{name} must be between 0 and 1, not 7"):
        find_recipe("unet-cc", [f"{name}=7"])


def test_a_recipe_file_inside_a_run_executes_only_when_it_is_trusted(arrays, tmp_path):
    recipe = tmp_path / "mine.py"
    witness = tmp_path / "executed"
    recipe.write_text(
        "from lesionwise.run.recipes import find_recipe\n"
        f"RECIPE = find_recipe('unet-cc', {SMALL!r})\n"
    )
    run = train(recipe, arrays, tmp_path / "run", validation_subjects=["c"])
    kept = run / "recipe.py"
    kept.write_text(f"open({str(witness)!r}, 'w')\n" + kept.read_text())
    with pytest.raises(InputError, match=r"recipe\.py: .*SHA-256 [0-9a-f]{64}.*--trust-recipe"):
        load_model(run)
    assert not witness.exists()
    load_model(run, trust_recipe=True)
    assert witness.exists()


@pytest.mark.parametrize("name", ["../elsewhere.py", "/tmp/elsewhere.py", "a/../../x.py"])
def test_a_recipe_file_outside_the_run_is_refused_even_if_trusted(trained, tmp_path, name):
    run = json.loads((trained / "run.json").read_text())
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere.py").write_text("raise SystemExit")
    (tmp_path / "run" / "run.json").write_text(json.dumps(run | {"recipe": name}))
    with pytest.raises(InputError, match=r"outside|leaves|inside"):
        load_model(tmp_path / "run", trust_recipe=True)


def test_a_run_of_an_earlier_format_is_applied_and_not_resumed(trained, dataset, arrays, tmp_path):
    old = json.loads((trained / "run.json").read_text())
    del old["format"]
    old["overrides"] = [
        "method.network.features=[4,8,8]",
        "method.network.widening=second",
        "method.patch_size_vox=[16,16,16]",
        "method.batch_size=2",
        "method.learning_rate=0.5",
        "method.intensity.contrast=0.5",
        "method.window.overlap=0.25",
    ]
    run = tmp_path / "old"
    run.mkdir()
    (run / "run.json").write_text(json.dumps(old))
    (run / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes())
    model = load_model(run)
    assert model.recipe.method.samples.size_vox == (16, 16, 16)
    assert model.recipe.method.inference.window.overlap == 0.25
    study = prepare("unet-cc", arrays, arrays).studies(["b"])[0]
    np.testing.assert_array_equal(
        model.predict(study).probability > 0.5, load_model(trained).predict(study).probability > 0.5
    )
    with pytest.raises(InputError, match=r"earlier version cannot be resumed; .*--initial"):
        train("unet-cc", dataset, run, overrides=SMALL, validation_subjects=["c"], prepared=arrays)


def test_the_shipped_models_of_earlier_versions_are_read():
    model = load_model("conflunet", "cpu")
    assert model.recipe.method.targets.out_channels == 6


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"recipe": 3}, r"run\.json: malformed \(recipe: expected text\)"),
        ({"overrides": "method.epochs=3"}, r"run\.json: malformed \(overrides"),
        ({"overrides": ["method.network.features=[900000000]"]}, r"features is too large"),
        ({"overrides": ["method.samples.size_vox=[9999999999999999999999,1,1]"]}, "too large"),
    ],
)
def test_a_run_file_is_read_with_checks(trained, tmp_path, change, fault):
    run = json.loads((trained / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(run | change))
    with pytest.raises(InputError, match=fault):
        load_model(tmp_path)


def test_deep_json_in_a_run_is_one_line(tmp_path):
    (tmp_path / "run.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"run\.json") as error:
        load_model(tmp_path)
    assert "\n" not in str(error.value)


def test_a_run_never_lies_in_its_data_set_or_over_other_files(dataset, arrays, tmp_path):
    with pytest.raises(InputError, match="would be among the input files"):
        train("unet-cc", dataset, dataset, overrides=SMALL)
    (tmp_path / "model.safetensors").write_text("mine")
    with pytest.raises(InputError, match=r"model\.safetensors: exists already"):
        train("unet-cc", arrays, tmp_path, overrides=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
