"""New lesions of a pair by a model that looks at both visits."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from heads import LESIONS, bright_model, head, pair_model, save

from lesionwise.preprocess.geometry import Resample
from lesionwise.preprocess.registration import RegisterToFirst
from lesionwise.recipe import Output
from lesionwise.report.folder import rebuild_pages
from lesionwise.run.find_lesions import FindOptions, find_lesions
from lesionwise.run.predict_pairs import predict_pairs, read_pair, select_pairs
from lesionwise.types import InputError

SHIFT = (0, 2, 0)


@pytest.fixture
def pair(tmp_path):
    """Lesion c is new; the head lies 4 mm further along j."""
    return [
        save(tmp_path / "sub-1_ses-1_FLAIR.nii.gz", head("ab")),
        save(tmp_path / "sub-1_ses-2_FLAIR.nii.gz", head("abc", shift=SHIFT)),
    ]


def cube(name, shift=(0, 0, 0)):
    i, j, k = np.add(LESIONS[name], shift)
    mask = np.zeros(head().shape, bool)
    mask[i : i + 4, j : j + 4, k : k + 4] = True
    return mask


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_the_new_lesion_is_written_on_the_followups_own_grid(tmp_path, pair):
    done = predict_pairs(pair, tmp_path / "out", model=pair_model(RegisterToFirst()))
    assert done.summary["lesions"].tolist() == [1]
    written = next((tmp_path / "out").rglob("sub-1_ses-2_space-orig_desc-new_mask.nii.gz"))
    assert dice(np.asarray(nib.load(written).dataobj) > 0, cube("c", SHIFT)) > 0.8
    assert done.pages[0].exists()


def test_a_recipe_may_return_results_on_the_baselines_grid(pair):
    model = pair_model(RegisterToFirst(), output=Output(grid="baseline"))
    found = find_lesions(read_pair(select_pairs(pair).pairs[0], model), model)
    assert dice(found.mask.array, cube("c")) > 0.8


@pytest.mark.parametrize("resample", ["probability", "logits", "labels"])
def test_what_is_resampled_on_the_way_back_is_the_recipes_choice(pair, resample):
    model = pair_model(RegisterToFirst(), Resample(3.0), output=Output(resample=resample))
    found = find_lesions(read_pair(select_pairs(pair).pairs[0], model), model)
    values = np.unique(found.probability.array)
    assert found.mask.array[cube("c", SHIFT)].mean() > 0.5
    assert set(values) == {0.0, 1.0} if resample == "labels" else len(values) > 2


def test_a_pair_that_is_done_is_not_done_again(tmp_path, pair):
    model = pair_model(RegisterToFirst())
    first = predict_pairs(pair, tmp_path / "out", model=model)
    mask = next((tmp_path / "out").rglob("*desc-new_mask.nii.gz"))
    written = mask.stat().st_mtime_ns
    again = predict_pairs(pair, tmp_path / "out", model=model)
    assert mask.stat().st_mtime_ns == written
    pd.testing.assert_frame_equal(first.summary, again.summary)
    predict_pairs(pair, tmp_path / "out", model=model, overwrite=True)
    assert mask.stat().st_mtime_ns > written


def test_the_page_comes_back_from_the_files(tmp_path, pair):
    done = predict_pairs(pair, tmp_path / "out", model=pair_model(RegisterToFirst()))
    page = done.pages[0].read_bytes()
    done.pages[0].unlink()
    assert rebuild_pages(tmp_path / "out").pages == done.pages
    assert done.pages[0].read_bytes() == page


def test_the_page_of_a_prepared_grid_comes_back_too(tmp_path, pair):
    model = pair_model(RegisterToFirst(), Resample(3.0), output=Output(grid="prepared"))
    done = predict_pairs(pair, tmp_path / "out", model=model)
    page = done.pages[0].read_bytes()
    assert rebuild_pages(tmp_path / "out").pages == done.pages
    assert done.pages[0].read_bytes() == page


def test_new_lesions_are_located(tmp_path, pair, monkeypatch):
    def located(found, tables, known=None):
        return found, {
            name: table.assign(location="infratentorial") for name, table in tables.items()
        }

    monkeypatch.setattr("lesionwise.run.predict_pairs.add_locations", located)
    predict_pairs(pair, tmp_path / "out", model=pair_model(RegisterToFirst()))
    table = pd.read_csv(tmp_path / "out" / "new_lesions.tsv", sep="\t")
    assert table["location"].tolist() == ["infratentorial"]


def test_visits_are_paired_by_subject_and_in_order(tmp_path):
    names = ["sub-1_ses-1", "sub-2_ses-1", "sub-1_ses-2", "sub-1_ses-3"]
    paths = [tmp_path / f"{name}_FLAIR.nii.gz" for name in names]
    assert [pair.title for pair in select_pairs(paths).pairs] == [
        "sub-1 ses-1 to ses-2",
        "sub-1 ses-2 to ses-3",
    ]


def test_two_scans_of_one_session_are_never_a_pair(tmp_path):
    names = ["ses-1_acq-2D", "ses-1_acq-3D", "ses-2_acq-3D", "ses-3_acq-3D"]
    paths = [tmp_path / f"sub-1_{name}_FLAIR.nii.gz" for name in names]
    found = [
        (pair.baseline.path.name, pair.followup.path.name) for pair in select_pairs(paths).pairs
    ]
    assert found == [
        ("sub-1_ses-1_acq-3D_FLAIR.nii.gz", "sub-1_ses-2_acq-3D_FLAIR.nii.gz"),
        ("sub-1_ses-2_acq-3D_FLAIR.nii.gz", "sub-1_ses-3_acq-3D_FLAIR.nii.gz"),
    ]
    with pytest.raises(InputError, match="no patient with two visits"):
        select_pairs(paths[:2])


@pytest.mark.parametrize("what", ["cut mask", "lost instances", "emptied table"])
def test_a_pair_whose_results_are_not_whole_is_done_again(tmp_path, pair, what):
    model, out = pair_model(RegisterToFirst()), tmp_path / "out"
    predict_pairs(pair, out, model=model)
    pattern = {"cut mask": "*_mask.nii.gz", "lost instances": "*_dseg.nii.gz"}
    path = next(out.rglob(f"*desc-new{pattern.get(what, '*_dseg.tsv')}"))
    whole = path.read_bytes()
    if what == "lost instances":
        path.unlink()
    else:
        path.write_bytes(whole[:300] if what == "cut mask" else b"")
    done = predict_pairs(pair, out, model=model)
    assert done.summary["lesions"].tolist() == [1]
    assert path.read_bytes() == whole


def test_a_pair_done_again_in_another_way_leaves_nothing_of_the_first(tmp_path, pair):
    model = pair_model(RegisterToFirst())
    for method, out in (("acls", "both"), ("cc", "both"), ("cc", "fresh")):
        options = FindOptions(instances=method)
        predict_pairs(pair, tmp_path / out, model=model, options=options, overwrite=True)
    both, fresh = (
        {str(p.relative_to(tmp_path / out)) for p in (tmp_path / out).rglob("*")}
        for out in ("both", "fresh")
    )
    assert any("seg-cc" in name for name in both)
    assert both == fresh


def test_results_of_other_visits_are_not_overwritten(tmp_path, pair):
    model = pair_model(RegisterToFirst())
    predict_pairs(pair, tmp_path / "out", model=model)
    elsewhere = [save(tmp_path / "b" / path.name, head("c")) for path in pair]
    with pytest.raises(InputError, match="holds the results of"):
        predict_pairs(elsewhere, tmp_path / "out", model=model)


def test_two_files_of_any_name_are_baseline_and_followup(tmp_path):
    (pair,) = select_pairs([tmp_path / "before.nii.gz", tmp_path / "after.nii.gz"]).pairs
    assert (pair.baseline.path.name, pair.followup.path.name) == ("before.nii.gz", "after.nii.gz")
    assert pair.followup.subject == "before"


def test_a_patient_with_one_visit_is_refused(tmp_path):
    with pytest.raises(InputError, match="no patient with two visits"):
        select_pairs([tmp_path / "sub-1_ses-1_FLAIR.nii.gz"])


def test_one_bad_pair_does_not_stop_the_others(tmp_path, pair):
    bad = [save(tmp_path / f"sub-2_ses-{n}_FLAIR.nii.gz", head() * 0) for n in "12"]
    done = predict_pairs([*bad, *pair], tmp_path / "out", model=pair_model(RegisterToFirst()))
    assert list(done.failures) == ["sub-2 ses-1 to ses-2"]
    assert len(done.summary) == 1
    assert (tmp_path / "out" / "failures.tsv").exists()


def test_a_pair_that_is_repaired_leaves_the_failures_of_the_others(tmp_path, pair):
    model, bad = pair_model(RegisterToFirst()), {}
    for subject in "23":
        names = [tmp_path / f"sub-{subject}_ses-{n}_FLAIR.nii.gz" for n in "12"]
        bad[subject] = [save(path, head() * 0) for path in names]
    predict_pairs([*bad["2"], *bad["3"], *pair], tmp_path / "out", model=model)

    def listed():
        table = pd.read_csv(tmp_path / "out" / "failures.tsv", sep="\t")
        return [name.split()[0] for name in table["file"]]

    predict_pairs(pair, tmp_path / "out", model=model)
    assert listed() == ["sub-2", "sub-3"]
    for path, good in zip(bad["2"], pair, strict=True):
        path.write_bytes(good.read_bytes())
    predict_pairs(bad["2"], tmp_path / "out", model=model)
    assert listed() == ["sub-3"]


def test_a_first_visit_that_was_alone_is_not_listed_once_it_has_a_second(tmp_path, pair):
    data, model = tmp_path / "data", pair_model(RegisterToFirst())
    first, second = (
        [data / f"sub-{n}" / f"ses-{m}" / "anat" / f"sub-{n}_ses-{m}_FLAIR.nii.gz" for n in "12"]
        for m in "12"
    )
    for path in (*first, second[0]):
        save(path, head("a"))
    predict_pairs([data], tmp_path / "out", model=model)
    assert str(first[1]) in (tmp_path / "out" / "failures.tsv").read_text()
    save(second[1], head("ab"))
    predict_pairs([data], tmp_path / "out", model=model)
    assert not (tmp_path / "out" / "failures.tsv").exists()


def test_a_bad_pair_alone_is_listed_too(tmp_path):
    bad = [save(tmp_path / f"sub-2_ses-{n}_FLAIR.nii.gz", head() * 0) for n in "12"]
    with pytest.raises(InputError):
        predict_pairs(bad, tmp_path / "out", model=pair_model(RegisterToFirst()))
    assert "sub-2 ses-1 to ses-2" in (tmp_path / "out" / "failures.tsv").read_text()


def test_what_is_in_no_pair_is_listed_with_the_reason(tmp_path, pair):
    data = tmp_path / "data"
    for path in pair:
        session = path.name.split("_")[1]
        save(data / "sub-1" / session / "anat" / path.name, head("a"))
    alone = save(data / "sub-2" / "ses-1" / "anat" / "sub-2_ses-1_FLAIR.nii.gz", head())
    (data / "sub-3" / "anat").mkdir(parents=True)
    wrong = save(data / "sub-4" / "ses-1" / "anat" / "sub-5_ses-1_FLAIR.nii.gz", head())
    done = predict_pairs([data], tmp_path / "out", model=pair_model(RegisterToFirst()))
    assert not done.failures
    listed = pd.read_csv(tmp_path / "out" / "failures.tsv", sep="\t").set_index("file")["error"]
    assert listed[str(alone)] == "left out: no second visit to pair it with"
    assert listed[str(data / "sub-3")] == "left out: no FLAIR scan in it"
    assert listed[str(wrong)] == "left out: the name and the folder name different visits"
    assert len(listed) == 3


def test_a_model_for_two_visits_refuses_one_and_the_other_way_round(pair):
    one, two = bright_model(), pair_model()
    study = read_pair(select_pairs(pair).pairs[0], two)
    with pytest.raises(InputError, match="takes 1 visits"):
        find_lesions(study, one)
    with pytest.raises(InputError, match="takes 2 visits"):
        find_lesions(type(study)(study.subject, study.visits[:1]), two)
