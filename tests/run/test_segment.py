"""What ``segment`` writes, refuses and does not do twice."""

import json
import os

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from heads import head, save

from lesionwise.report.folder import rebuild_pages
from lesionwise.run.find_lesions import FindOptions
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
    with pytest.raises(InputError, match="needs a single scan"):
        segment(scans, tmp_path / "out", brain_mask=scans[0])


def test_results_need_a_place(tmp_path, model):
    scan = save(tmp_path / "a.nii.gz", head())
    with pytest.raises(InputError, match="is a file"):
        segment([scan], scan)


def test_the_volume_is_that_of_the_lesions_and_the_masks_is_told_where_it_differs(tmp_path, model):
    image = head("a")
    image[60:62, 40:41, 30:31] = 300  # 16 mm³ but 4 mm long: the size filter drops it
    scan = save(tmp_path / "a.nii.gz", image)
    done = segment([scan], tmp_path / "out", options=FindOptions(min_extent_mm=5))
    row = done.summary.iloc[0]
    mask = nib.load(next((tmp_path / "out").rglob("*_label-L_mask.nii.gz")))
    mask_ml = round(float((np.asarray(mask.dataobj) > 0).sum()) * 8 / 1000, 3)
    assert (row["lesions"], row["volume_ml"], row["mask_volume_ml"]) == (1, 0.512, mask_ml)
    assert mask_ml >= 0.512 + 2 * 0.008  # the dropped spot and, perhaps, bright noise
    assert f"The whole mask has a volume of {mask_ml:.2f} ml" in done.page.read_text()


def test_a_file_whose_name_is_no_text_gets_its_page(tmp_path, model):
    scan = save(tmp_path / "x.nii.gz", head("ab"))
    odd = scan.rename(tmp_path / os.fsdecode(b"pati\xe9nt.nii.gz"))
    done = segment([odd], tmp_path / "out", options=FindOptions(extract_brain=False))
    assert done.page.is_file()
    assert rebuild_pages(tmp_path / "out").failures == {}
