"""Lesions of other tools' maps."""

import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from heads import save

from lesionwise.io.bids import write_dataset_description
from lesionwise.run.split import split
from lesionwise.types import InputError


def dumbbell():
    """Two balls of radius 4 voxels, 7 apart: one region, two lesions."""
    i, j, k = np.indices((24, 16, 16))
    centers = ((8, 8, 8), (15, 8, 8))
    return np.any([(i - a) ** 2 + (j - b) ** 2 + (k - c) ** 2 <= 16 for a, b, c in centers], axis=0)


def labels_of(path):
    return np.asarray(nib.load(path).dataobj)


def test_acls_separates_what_components_cannot(tmp_path):
    path = save(tmp_path / "x_mask.nii.gz", dumbbell().astype(np.uint8))
    merged = split([path], tmp_path / "cc", method="cc")
    apart = split([path], tmp_path / "acls", method="acls")
    assert merged.summary["lesions"].tolist() == [1]
    assert apart.summary["lesions"].tolist() == [2]
    assert np.array_equal(labels_of(apart.written[0]) > 0, dumbbell())


def test_a_probability_map_is_thresholded(tmp_path):
    path = save(tmp_path / "x_probseg.nii.gz", dumbbell() * np.float32(0.4) + np.float32(0.05))
    assert split([path], tmp_path / "a").summary["lesions"].tolist() == [0]
    found = split([path], tmp_path / "b", threshold=0.3, method="cc")
    assert found.summary["lesions"].tolist() == [1]


def test_small_lesions_go_unless_asked_for(tmp_path):
    mask = np.zeros((12, 12, 12), np.uint8)
    mask[2:4, 2:4, 2:4] = 1
    path = save(tmp_path / "x.nii.gz", mask, np.eye(4))
    assert split([path], tmp_path / "a").summary["lesions"].tolist() == [0]
    kept = split([path], tmp_path / "b", min_volume_mm3=0, min_extent_mm=0)
    assert kept.summary["lesions"].tolist() == [1]


def test_connectivity_is_an_option_and_written_down(tmp_path):
    mask = np.zeros((12, 12, 12), np.uint8)
    mask[1:5, 1:5, 1:5] = mask[5:9, 5:9, 5:9] = 1
    path = save(tmp_path / "x.nii.gz", mask)
    assert split([path], tmp_path / "a", method="cc").summary["lesions"].tolist() == [1]
    six = split([path], tmp_path / "b", method="cc", connectivity=6)
    assert six.summary["lesions"].tolist() == [2]
    sidecar = json.loads((tmp_path / "b" / "x_seg-cc_dseg.json").read_text())
    assert sidecar["Connectivity"] == 6


def test_several_maps_share_one_table_and_faults_are_listed(tmp_path):
    good = save(tmp_path / "a.nii.gz", dumbbell().astype(np.uint8))
    percent = save(tmp_path / "b.nii.gz", dumbbell() * np.float32(80.5))
    done = split([good, percent], tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "lesions.tsv", sep="\t")
    assert set(table["map"]) == {"a"}
    assert "a probability is from 0 to 1" in done.failures[str(percent)]
    with pytest.raises(InputError, match=r"b\.nii\.gz"):
        split([percent], tmp_path / "out")


def test_settings_that_cannot_hold_are_refused(tmp_path):
    path = save(tmp_path / "a.nii.gz", dumbbell().astype(np.uint8))
    with pytest.raises(InputError, match="--connectivity 8"):
        split([path], tmp_path / "out", connectivity=8)
    with pytest.raises(InputError, match="--method offsets"):
        split([path], tmp_path / "out", method="offsets")


def test_split_needs_no_torch():
    code = "import sys, lesionwise.run.split; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_calls_one_by_one_share_the_table(tmp_path):
    for name in "ab":
        split([save(tmp_path / f"{name}.nii.gz", dumbbell().astype(np.uint8))], tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "lesions.tsv", sep="\t")
    assert table["map"].tolist() == ["a", "a", "b", "b"]
    assert set(table["source"]) == {str(tmp_path / f"{name}.nii.gz") for name in "ab"}
    assert set(json.loads((tmp_path / "out" / "lesions.json").read_text())) == set(table.columns)


def test_the_failure_of_a_map_stays_as_long_as_the_map_is_there_and_not_repaired(tmp_path):
    good = save(tmp_path / "a.nii.gz", dumbbell().astype(np.uint8))
    bad = tmp_path / "bad.nii.gz"
    bad.write_text("junk")
    split([good, bad], tmp_path / "out")
    assert (tmp_path / "out" / "failures.tsv").exists()
    split([good], tmp_path / "out")
    assert (tmp_path / "out" / "failures.tsv").exists()
    bad.unlink()
    split([good], tmp_path / "out")
    assert not (tmp_path / "out" / "failures.tsv").exists()


def test_extensions_in_capitals_are_extensions(tmp_path):
    path = save(tmp_path / "x_mask.nii.gz", dumbbell().astype(np.uint8))
    path = path.rename(tmp_path / "EXPERT_MASK.NII.GZ")
    assert split([path], tmp_path / "out").written[0].name == "EXPERT_seg-acls_dseg.nii.gz"


def test_maps_of_one_name_in_several_folders_keep_apart(tmp_path):
    maps = [save(tmp_path / who / "m.nii.gz", dumbbell().astype(np.uint8)) for who in "xy"]
    done = split(maps, tmp_path / "out")
    assert done.summary["map"].tolist() == ["x_m", "y_m"]
    split([maps[0]], tmp_path / "alone")
    save(maps[1], np.roll(dumbbell(), 1, axis=0).astype(np.uint8))
    with pytest.raises(InputError, match=r"y/m\.nii\.gz: .* holds the results of .*x/m\.nii\.gz"):
        split([maps[1]], tmp_path / "alone")


def test_other_settings_and_foreign_tables_are_refused(tmp_path):
    path = save(tmp_path / "a.nii.gz", dumbbell().astype(np.uint8))
    split([path], tmp_path / "out")
    with pytest.raises(InputError, match="was begun with method acls, now it is cc"):
        split([path], tmp_path / "out", method="cc")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "lesions.tsv").write_text("my own")
    with pytest.raises(InputError, match=r"lesions\.tsv: exists already"):
        split([path], tmp_path / "mine")


def test_what_is_whole_comes_back(tmp_path):
    from lesionwise.results.split import map_records

    path = save(tmp_path / "a.nii.gz", dumbbell().astype(np.uint8))
    split([path], tmp_path / "out")
    (record,) = map_records(tmp_path / "out").values()
    assert record.sources == (str(path),)
    assert (record.input, record.threshold, record.connectivity) == ("mask", None, 26)
    assert set(record.files) == {"a_seg-acls_dseg.nii.gz", "a_seg-acls_dseg.tsv"}


def test_results_are_never_read_as_maps_of_a_folder(tmp_path):
    maps = tmp_path / "maps"
    for name in "ab":
        save(maps / f"{name}.nii.gz", dumbbell().astype(np.uint8))
    other = maps / "derivatives"
    save(other / "sub-1_label-L_mask.nii.gz", dumbbell().astype(np.uint8))
    write_dataset_description(other, "lesionwise segment")
    for _ in range(2):
        split([maps], maps / "out")
    split([maps / "a.nii.gz"], maps)  # the folder of a file that is named is allowed
    done = split([maps], tmp_path / "apart")
    assert done.summary["map"].tolist() == ["a", "b"]
    assert len(list((maps / "out").glob("*_dseg.nii.gz"))) == 2
    with pytest.raises(InputError, match="holds no map but results of lesionwise"):
        split([maps / "out"], tmp_path / "again")
    assert split([other], tmp_path / "other").summary["map"].tolist() == ["sub-1_label-L"]


def test_a_folder_that_is_read_takes_no_results(tmp_path):
    save(tmp_path / "maps" / "a.nii.gz", dumbbell().astype(np.uint8))
    with pytest.raises(InputError, match="would be among the scans"):
        split([tmp_path / "maps"], tmp_path / "maps")
    assert len(list((tmp_path / "maps").iterdir())) == 1


def test_a_name_too_long_for_results_stops_no_batch(tmp_path):
    maps = [
        save(tmp_path / f"{name}.nii.gz", dumbbell().astype(np.uint8))
        for name in ("a", "x" * 240, "c")
    ]
    done = split(maps, tmp_path / "out")
    assert done.summary["map"].tolist() == ["a", "c"]
    assert "File name too long" in done.failures[str(maps[1])]
    failed = pd.read_csv(tmp_path / "out" / "failures.tsv", sep="\t")
    assert failed["file"].tolist() == [str(maps[1])]


def test_extents_are_those_that_the_table_says_also_for_a_sagittal_file(tmp_path):
    mask = np.zeros((30, 30, 30), np.uint8)
    mask[3:10, 3:9, 4:6] = 1  # 7 voxels back to front, 6 upward, 2 slices of 5 mm to the right
    sagittal = np.array([[0, 0, 5.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    split([save(tmp_path / "a.nii.gz", mask, sagittal)], tmp_path / "out")
    row = pd.read_csv(tmp_path / "out" / "lesions.tsv", sep="\t").iloc[0]
    described = json.loads((tmp_path / "out" / "lesions.json").read_text())
    along = {described[f"extent_{axis}_mm"]["Description"].split()[-1]: axis for axis in "ijk"}
    sizes = {name: row[f"extent_{axis}_mm"] for name, axis in along.items()}
    assert sizes == {"left-right": 10, "back-front": 7, "down-up": 6}
