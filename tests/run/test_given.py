"""Masks of other tools followed, separated and shown."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from heads import LESIONS, SHAPE, head, save
from series import write_series

from lesionwise.run.compare import compare
from lesionwise.run.find_lesions import FindOptions, find_lesions
from lesionwise.run.given import given_models, maps_on_scans, split_on_scans
from lesionwise.run.segment import read_scan
from lesionwise.run.split import maps_of
from lesionwise.types import InputError

BARE = FindOptions(extract_brain=False)


def cubes(names, shift=(0, 0, 0)):
    mask = np.zeros(SHAPE, np.uint8)
    for name in names:
        i, j, k = LESIONS[name]
        mask[i : i + 4, j : j + 4, k : k + 4] = 1
    return np.roll(mask, shift, axis=(0, 1, 2))


@pytest.fixture(autouse=True)
def _no_template(monkeypatch):
    def nowhere(*arguments):
        raise InputError("no template in this test")

    def no_model(*arguments, **options):
        raise AssertionError("no model is needed")

    monkeypatch.setattr("lesionwise.run.locations.find_landmarks", nowhere)
    monkeypatch.setattr("lesionwise.run.compare.load_model", no_model)


def test_given_masks_are_followed_and_the_scans_bright_spots_are_not(tmp_path):
    scans = [save(tmp_path / f"sub-1_ses-{n}_FLAIR.nii.gz", head("abc")) for n in "12"]
    masks = [save(tmp_path / f"m{n}.nii.gz", cubes(names)) for n, names in enumerate(["a", "ab"])]
    done = compare(scans, tmp_path / "out", lesions=masks, options=BARE)
    rows = done.summary.set_index("session")
    assert rows["lesions"].tolist() == [1, 2]
    assert rows.loc["ses-2", "stable"] == 1
    written = next((tmp_path / "out").rglob("sub-1_ses-2_*label-L_mask.nii.gz"))
    assert np.array_equal(np.asarray(nib.load(written).dataobj) > 0, cubes("ab") > 0)
    assert done.page.is_file()


def test_each_visit_needs_its_mask(tmp_path):
    scans = [save(tmp_path / f"sub-1_ses-{n}_FLAIR.nii.gz", head("a")) for n in "12"]
    mask = save(tmp_path / "m.nii.gz", cubes("a"))
    with pytest.raises(InputError, match="1 given for 2 scans"):
        compare(scans, tmp_path / "out", lesions=[mask], options=BARE)
    assert not (tmp_path / "out").exists()


def test_a_mask_of_other_voxels_is_named(tmp_path):
    scan = save(tmp_path / "sub-1_FLAIR.nii.gz", head("a"))
    mask = save(tmp_path / "m.nii.gz", cubes("a")[:-1])
    with pytest.raises(InputError, match=r"m\.nii\.gz"):
        split_on_scans([mask], [scan], tmp_path / "out", extract_brain=False)


def test_lesions_outside_of_the_brain_stay(tmp_path):
    scan = save(tmp_path / "sub-1_FLAIR.nii.gz", head("a"))
    mask = cubes("a")
    mask[0:4, 0:4, 0:4] = 1
    save(tmp_path / "m.nii.gz", mask)
    done = split_on_scans([tmp_path / "m.nii.gz"], [scan], tmp_path / "out", extract_brain=False)
    assert done.summary["lesions"].tolist() == [2]


def test_a_map_on_its_scan_gets_a_page_intensities_and_lesion_load(tmp_path):
    scan = save(tmp_path / "sub-1_FLAIR.nii.gz", head("ab"))
    mask = save(tmp_path / "m.nii.gz", cubes("ab"))
    done = split_on_scans([mask], [scan], tmp_path / "out", method="cc", extract_brain=False)
    assert done.page.is_file()
    lesions = pd.read_csv(tmp_path / "out" / "lesions.tsv", sep="\t")
    assert lesions["mean_intensity"].tolist() == [300, 300]
    assert lesions["volume_mm3"].tolist() == [512, 512]
    scans = pd.read_csv(tmp_path / "out" / "scans.tsv", sep="\t")
    expected = 100 * 1.024 / scans["brain_volume_ml"][0]
    assert scans["lesion_load_percent"][0] == pytest.approx(expected, abs=6e-4)


def test_a_folder_stands_for_the_maps_in_it_and_not_for_scans(tmp_path):
    for name in ("sub-2_mask.nii.gz", "sub-1_mask.nii.gz", "sub-1_FLAIR.nii.gz"):
        save(tmp_path / "maps" / name, cubes("a"))
    found = [path.name for path in maps_of([tmp_path / "maps"])]
    assert found == ["sub-1_mask.nii.gz", "sub-2_mask.nii.gz"]


def visits(tmp_path, *names):
    return [save(tmp_path / "scans" / f"{name}.nii.gz", head("ab")) for name in names]


def test_maps_that_are_named_for_other_visits_are_refused(tmp_path):
    scans = visits(tmp_path, "sub-1_ses-1_FLAIR", "sub-1_ses-2_FLAIR")
    masks = [save(tmp_path / f"sub-1_ses-{n}_mask.nii.gz", cubes("a")) for n in "21"]
    with pytest.raises(InputError, match=r"ses-2_mask.nii.gz: by their names"):
        compare(scans, tmp_path / "out", lesions=masks, options=BARE)
    with pytest.raises(InputError, match=r"ses-2_mask.nii.gz: by their names"):
        split_on_scans(masks, scans, tmp_path / "out", extract_brain=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("scan", "mask"),
    [
        ("sub-{}_ses-1_FLAIR", "sub-{}_ses-1_mask"),
        ("sub-{}_FLAIR", "sub-{}/space-flair_seg-lst"),  # LST-AI in a folder for each subject
        ("sub-{}_FLAIR", "sub-{}_desc-flames_mask"),
        ("case_{}_0000", "case_{}"),  # nnU-Net
    ],
)
def test_folders_of_maps_and_scans_are_paired_by_name(tmp_path, scan, mask):
    scans = visits(tmp_path, *(scan.format(number) for number in ("001", "002", "003")))
    masks = [
        save(tmp_path / "maps" / f"{mask.format(number)}.nii.gz", cubes("a"))
        for number in ("002", "003")
    ]
    pairs, errors = maps_on_scans([tmp_path / "maps"], [tmp_path / "scans"])
    assert [(path, found.path) for path, found in pairs] == list(zip(masks, scans[1:], strict=True))
    assert errors == {}


def test_a_map_without_a_scan_is_listed_and_the_others_are_split(tmp_path):
    visits(tmp_path, "sub-1_FLAIR", "sub-3_FLAIR")
    for name in ("sub-1_mask", "sub-2_mask"):
        save(tmp_path / "maps" / f"{name}.nii.gz", cubes("a"))
    done = split_on_scans(
        [tmp_path / "maps"], [tmp_path / "scans"], tmp_path / "out", extract_brain=False
    )
    assert done.summary["subject"].tolist() == ["sub-1"]
    (error,) = done.failures.values()
    assert "sub-2_mask.nii.gz: no scan in" in error


def test_folders_without_a_pair_are_refused(tmp_path):
    visits(tmp_path, "sub-1_FLAIR")
    save(tmp_path / "maps" / "sub-2_mask.nii.gz", cubes("a"))
    with pytest.raises(InputError, match="no map in it is named like a scan"):
        split_on_scans([tmp_path / "maps"], [tmp_path / "scans"], tmp_path / "out")


def test_a_threshold_holds_for_the_brain_as_for_the_lesions(tmp_path):
    scan = save(tmp_path / "sub-1_FLAIR.nii.gz", head("a"))
    probability = np.zeros(SHAPE, np.float32)
    probability[0:4, 0:4, 0:4] = 0.4  # outside of the brain
    path = save(tmp_path / "m.nii.gz", probability)
    (model,) = given_models([path], [scan], threshold=0.3)
    found = find_lesions(read_scan(scan, "1"), model, FindOptions(instances="cc", threshold=0.3))
    assert np.array_equal(found.mask.array, probability > 0.3)


def test_a_map_that_fails_alone_is_listed(tmp_path):
    scan = save(tmp_path / "sub-1_FLAIR.nii.gz", head("a"))
    bad = tmp_path / "m.nii.gz"
    bad.write_text("junk")
    with pytest.raises(InputError):
        split_on_scans([bad], [scan], tmp_path / "out", extract_brain=False)
    assert str(bad) in (tmp_path / "out" / "failures.tsv").read_text()
    save(bad, cubes("a"))
    split_on_scans([bad], [scan], tmp_path / "out", extract_brain=False)
    assert not (tmp_path / "out" / "failures.tsv").exists()


def test_a_finished_scan_is_not_split_again_unless_its_map_has_changed(tmp_path):
    scan = save(tmp_path / "sub-1_FLAIR.nii.gz", head("ab"))
    mask = save(tmp_path / "m.nii.gz", cubes("a"))

    def written():
        done = split_on_scans([mask], [scan], tmp_path / "out", extract_brain=False)
        (path,) = (tmp_path / "out").rglob("*label-L_mask.json")
        return path.stat().st_mtime_ns, done.summary["lesions"].tolist(), len(done.quality)

    first = written()
    assert written() == first
    save(mask, cubes("ab"))
    time, lesions, _ = written()
    assert time > first[0]
    assert lesions == [2]


def test_other_settings_are_refused_and_change_nothing(tmp_path):
    scan = save(tmp_path / "sub-1_FLAIR.nii.gz", head("a"))
    mask = save(tmp_path / "m.nii.gz", cubes("a"))
    split_on_scans([mask], [scan], tmp_path / "out", extract_brain=False)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="begun with instances acls, now it is cc; choose another"):
        split_on_scans([mask], [scan], tmp_path / "out", method="cc", extract_brain=False)
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before


def test_a_series_never_takes_the_place_of_another_patients_scan(tmp_path):
    affine = np.array([[2, 0, 0, -78], [0, 2, 0, -94], [0, 0, 2, -72], [0, 0, 0, 1.0]])
    mask = save(tmp_path / "m.nii.gz", cubes("a"), affine)
    scans = [tmp_path / center / "p1" for center in "ab"]
    for folder, gain in zip(scans, (1.0, 0.5), strict=True):
        write_series(folder, head("a") * gain, patient=folder.parent.name)
    split_on_scans([mask], [scans[0]], tmp_path / "out", extract_brain=False)
    (converted,) = (tmp_path / "out").rglob("*_FLAIR.nii.gz")
    before = converted.read_bytes()
    (sidecar,) = (tmp_path / "out").rglob("*label-L_mask.json")
    assert json.loads(sidecar.read_text())["Settings"]["dicom_seg"] is True
    with pytest.raises(InputError, match="holds the results of"):
        split_on_scans([mask], [scans[1]], tmp_path / "out", extract_brain=False)
    assert converted.read_bytes() == before


def test_results_in_the_folder_of_maps_are_not_split_again(tmp_path):
    visits(tmp_path, "sub-1_FLAIR")
    maps = tmp_path / "maps"
    save(maps / "sub-1_mask.nii.gz", cubes("a"))
    for _ in range(2):
        out = maps / "out"
        done = split_on_scans([maps], [tmp_path / "scans"], out, extract_brain=False)
        assert not done.failures
    pairs, errors = maps_on_scans([maps], [tmp_path / "scans"])
    assert [path.name for path, _ in pairs] == ["sub-1_mask.nii.gz"]
    assert not errors
