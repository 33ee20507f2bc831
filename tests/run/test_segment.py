"""What ``segment`` writes, refuses and does not do twice."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from heads import head, save

from lesionwise.run.find import FindOptions
from lesionwise.run.segment import segment
from lesionwise.types import InputError

LPS = np.diag([-2.0, -2.0, 2.0, 1.0])


def masks(folder):
    return sorted(folder.rglob("*_label-L_mask.nii.gz"))


def test_names_follow_bids_and_results_keep_the_axes_of_the_file(tmp_path, model):
    scan = save(tmp_path / "sub-01_ses-M12_FLAIR.nii.gz", head(), LPS)
    segment([scan], tmp_path / "out")
    folder = tmp_path / "out" / "sub-01" / "ses-M12" / "anat"
    names = {
        "label-L_mask", "label-L_probseg", "desc-brain_mask", "seg-offsets_dseg", "seg-acls_dseg",
        "seg-cc_dseg",
    }  # fmt: skip
    assert {p.name for p in folder.glob("*.nii.gz")} == {
        f"sub-01_ses-M12_space-orig_{name}.nii.gz" for name in names
    }
    for path in folder.glob("*.nii.gz"):
        image = nib.load(path)
        assert np.allclose(image.affine, LPS)
        assert path.with_name(path.name.replace(".nii.gz", ".json")).exists()
    mask = np.asarray(nib.load(masks(folder)[0]).dataobj)
    assert np.array_equal(mask > 0, head() == 300)


def test_tables_hold_every_lesion_by_each_way(tmp_path, model):
    scan = save(tmp_path / "a.nii.gz", head("ab"))
    done = segment([scan], tmp_path / "out")
    for method, name in (
        ("offsets", "lesions"),
        ("acls", "lesions_seg-acls"),
        ("cc", "lesions_seg-cc"),
    ):
        table = pd.read_csv(tmp_path / "out" / f"{name}.tsv", sep="\t")
        assert table["method"].tolist() == [method, method]
        assert set(table["volume_mm3"]) == {512.0}
        assert set(table["confidence"]) == {1.0}
    counts = ["lesions", "lesions_cc", "lesions_acls", "lesions_offsets"]
    assert done.summary.iloc[0][counts].tolist() == [2, 2, 2, 2]
    assert done.page.exists()


def test_the_sidecar_says_what_made_it(tmp_path, model):
    scan = save(tmp_path / "a.nii.gz", head())
    segment([scan], tmp_path / "out", options=FindOptions(min_volume_mm3=3))
    sidecar = json.loads(next((tmp_path / "out").rglob("*label-L_mask.json")).read_text())
    assert sidecar["ModelHash"] == model.sha256
    assert sidecar["Settings"]["min_volume_mm3"] == 3
    assert sidecar["Departures"] == ["made up for a test"]
    assert sidecar["Threshold"] == 0.5
    assert {"brain", "network", "instances"} <= set(sidecar["Seconds"])


def test_every_step_leaves_a_picture_that_the_sidecar_names(tmp_path, model):
    scan = save(tmp_path / "a.nii.gz", head())
    page = segment([scan], tmp_path / "out").page.read_text()
    sidecar = json.loads(next((tmp_path / "out").rglob("*label-L_mask.json")).read_text())
    steps = [stage["Step"] for stage in sidecar["Stages"]]
    assert steps[0] == "as read"
    assert len(steps) > 1
    pictures = [tmp_path / "out" / stage["Picture"] for stage in sidecar["Stages"]]
    assert pictures == sorted((tmp_path / "out").rglob("figures/*.webp"))
    for step in steps:
        assert f"<code>{step}</code>" in page


def test_a_bad_scan_among_several_is_listed_and_the_others_go_on(tmp_path, model):
    good = save(tmp_path / "good.nii.gz", head())
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"no image")
    done = segment([bad, good], tmp_path / "out")
    assert list(done.failures) == [str(bad)]
    assert "not a NIfTI file" in done.failures[str(bad)]
    failures = pd.read_csv(tmp_path / "out" / "failures.tsv", sep="\t")
    assert failures["file"].tolist() == [str(bad)]
    assert len(masks(tmp_path / "out")) == 1


def test_a_single_bad_scan_raises_and_leaves_no_image(tmp_path, model):
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"bad\.nii\.gz: not a NIfTI file"):
        segment([bad], tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


def test_a_scan_that_is_done_is_not_done_again(tmp_path, model):
    scan = save(tmp_path / "a.nii.gz", head())
    first = segment([scan], tmp_path / "out")
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.nii.gz")}
    again = segment([scan], tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in written} == written
    pd.testing.assert_frame_equal(first.summary, again.summary, check_dtype=False)
    table = pd.read_csv(tmp_path / "out" / "lesions.tsv", sep="\t")
    assert len(table) == 3
    segment([scan], tmp_path / "out", overwrite=True)
    assert any(path.stat().st_mtime_ns != time for path, time in written.items())


def test_other_settings_are_refused_unless_all_is_done_again(tmp_path, model):
    scan = save(tmp_path / "a.nii.gz", head())
    segment([scan], tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    other = FindOptions(also=("offsets", "acls", "cc"), threshold=0.9)
    with pytest.raises(InputError, match=r"was begun with threshold not set, now it is 0\.9"):
        segment([scan], tmp_path / "out", options=other)
    assert {path: path.read_bytes() for path in before} == before
    segment([scan], tmp_path / "out", options=other, overwrite=True)
    sidecar = json.loads(next((tmp_path / "out").rglob("*label-L_mask.json")).read_text())
    assert sidecar["Settings"]["threshold"] == 0.9
    second = save(tmp_path / "b.nii.gz", head("a"))
    with pytest.raises(InputError, match=r"was begun with threshold 0\.9, now it is not set"):
        segment([second], tmp_path / "out", overwrite=True)


def test_a_brain_mask_must_fit_the_scan_and_hold_something(tmp_path, model):
    scan = save(tmp_path / "a.nii.gz", head())
    wrong = save(tmp_path / "wrong.nii.gz", np.ones((10, 10, 10), np.uint8))
    with pytest.raises(InputError, match=r"wrong\.nii\.gz"):
        segment([scan], tmp_path / "out", brain_mask=wrong)
    empty = save(tmp_path / "empty.nii.gz", np.zeros(head().shape, np.uint8))
    with pytest.raises(InputError, match=r"empty\.nii\.gz: the brain mask is empty"):
        segment([scan], tmp_path / "out", brain_mask=empty)


def test_a_brain_mask_goes_with_one_scan(tmp_path, model):
    scans = [save(tmp_path / f"{name}.nii.gz", head()) for name in "ab"]
    with pytest.raises(InputError, match="goes with one scan"):
        segment(scans, tmp_path / "out", brain_mask=scans[0])


def test_results_need_a_place(tmp_path, model):
    scan = save(tmp_path / "a.nii.gz", head())
    with pytest.raises(InputError, match="is a file"):
        segment([scan], scan)


def snapshot(folder):
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*.nii.gz")}


def test_a_result_of_another_scan_is_never_overwritten(tmp_path, model):
    first = save(tmp_path / "anna" / "sub-1_FLAIR.nii.gz", head("a"))
    second = save(tmp_path / "bert" / "sub-1_FLAIR.nii.gz", head("ab"))
    segment([first], tmp_path / "out")
    before = snapshot(tmp_path / "out")
    with pytest.raises(InputError, match=r"bert/sub-1_FLAIR.*results of .*anna/sub-1_FLAIR"):
        segment([second], tmp_path / "out")
    with pytest.raises(InputError, match="choose another output folder"):
        segment([second], tmp_path / "out", overwrite=True)
    assert snapshot(tmp_path / "out") == before


def test_calls_one_by_one_share_the_tables_and_the_index(tmp_path, model):
    for name in "ab":
        done = segment([save(tmp_path / f"{name}.nii.gz", head(name))], tmp_path / "out")
        assert done.summary["subject"].tolist() == [f"sub-{name}"]
    scans = pd.read_csv(tmp_path / "out" / "scans.tsv", sep="\t")
    assert scans["subject"].tolist() == ["sub-a", "sub-b"]
    assert scans["source"].tolist() == [str(tmp_path / f"{name}.nii.gz") for name in "ab"]
    lesions = pd.read_csv(tmp_path / "out" / "lesions.tsv", sep="\t")
    assert lesions["source"].tolist() == scans["source"].tolist()
    described = json.loads((tmp_path / "out" / "scans.json").read_text())
    assert set(described) == set(scans.columns)
    index = (tmp_path / "out" / "index.html").read_text()
    assert "sub-a.html" in index
    assert "sub-b.html" in index


@pytest.mark.parametrize("what", ["cut", "missing map", "emptied table"])
def test_a_scan_whose_results_are_not_whole_is_done_again(tmp_path, model, what):
    scan = save(tmp_path / "a.nii.gz", head("ab"))
    segment([scan], tmp_path / "out")
    path = {
        "cut": masks(tmp_path / "out")[0],
        "missing map": next((tmp_path / "out").rglob("*seg-acls_dseg.nii.gz")),
        "emptied table": next((tmp_path / "out").rglob("*seg-offsets_dseg.tsv")),
    }[what]
    whole = path.read_bytes()
    if what == "missing map":
        path.unlink()
    else:
        path.write_bytes(whole[:300] if what == "cut" else whole.splitlines()[0])
    done = segment([scan], tmp_path / "out")
    assert path.read_bytes() == whole
    assert done.summary["lesions"].tolist() == [2]
    assert len(pd.read_csv(tmp_path / "out" / "lesions.tsv", sep="\t")) == 2


def test_scans_never_share_their_folder_with_results(tmp_path, model):
    scan = save(tmp_path / "scans" / "a.nii.gz", head("a"))
    with pytest.raises(InputError, match="would lie among the scans"):
        segment([scan.parent], scan.parent)
    assert list(scan.parent.iterdir()) == [scan]


def test_the_failure_of_one_call_stands_beside_the_results_of_another(tmp_path, model):
    good = save(tmp_path / "good.nii.gz", head("a"))
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"no image")
    segment([good], tmp_path / "out")
    with pytest.raises(InputError):
        segment([bad], tmp_path / "out")
    failures = pd.read_csv(tmp_path / "out" / "failures.tsv", sep="\t")
    assert failures["file"].tolist() == [str(bad)]
    save(bad, head("b"))
    segment([bad], tmp_path / "out")
    assert not (tmp_path / "out" / "failures.tsv").exists()
    assert len(pd.read_csv(tmp_path / "out" / "scans.tsv", sep="\t")) == 2


def test_the_volume_is_that_of_the_lesions_and_the_masks_is_told_where_it_differs(tmp_path, model):
    image = head("a")
    image[60:62, 40:41, 30:31] = 300  # 16 mm³ but 4 mm long: the size filter drops it
    scan = save(tmp_path / "a.nii.gz", image)
    done = segment([scan], tmp_path / "out", options=FindOptions(min_extent_mm=5))
    row = done.summary.iloc[0]
    assert (row["lesions"], row["volume_ml"], row["mask_volume_ml"]) == (1, 0.512, 0.528)
    assert "The whole mask measures 0.53 ml" in done.page.read_text()
