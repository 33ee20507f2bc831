import numpy as np
import pytest

from lesionwise.io.nifti import write_volume
from lesionwise.simulate.masks import find_masks
from lesionwise.simulate.tissue_maps import (
    FLUID,
    GRAY,
    LESION,
    WHITE,
    find_tissue_maps,
    read_tissue_map,
    tissue_classes,
)
from lesionwise.types import Grid, InputError, Volume

TABLE = "index\tname\tabbreviation\n0\tbackground\tBG\n1\tcerebrospinal fluid\tCSF\n"
TABLE += "2\tgrey matter\tGM\n3\twhite matter\tWM\n4\tlesion\tL\n"


def _labels(values):
    array = np.array(values, dtype=np.int32).reshape(1, 1, -1)
    return Volume(array, Grid(array.shape, np.eye(4)))


def test_maps_are_found_at_any_depth_and_some_can_be_left_out(tmp_path):
    for name in ("sub-01/anat/sub-01_dseg", "sub-02_seg-truth_dseg", "sub-03_dseg", "sub-04_mask"):
        path = tmp_path / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert [path.name[:6] for path in find_tissue_maps(tmp_path)] == ["sub-01", "sub-03"]
    assert [path.name[:6] for path in find_tissue_maps(tmp_path, ("01",))] == ["sub-03"]


@pytest.mark.parametrize("exclude", [(), ("01",)])
def test_a_folder_without_maps_is_an_error(tmp_path, exclude):
    if exclude:
        (tmp_path / "sub-01_dseg.nii.gz").touch()
    with pytest.raises(InputError, match="no tissue maps"):
        find_tissue_maps(tmp_path, exclude)


def test_the_table_above_tells_what_labels_mean(tmp_path):
    folder = tmp_path / "sub-01" / "anat"
    folder.mkdir(parents=True)
    (tmp_path / "dseg.tsv").write_text(TABLE)
    write_volume(folder / "sub-01_dseg.nii.gz", _labels([0, 1, 2, 3, 4]))
    found = read_tissue_map(folder / "sub-01_dseg.nii.gz").array.ravel().tolist()
    assert found == [0, FLUID, GRAY, WHITE, LESION]


def test_the_table_beside_a_map_goes_before_that_above(tmp_path):
    (tmp_path / "dseg.tsv").write_text(TABLE)
    (tmp_path / "sub-01_dseg.tsv").write_text("index\tname\n1\tWM\n2\tGM\n")
    write_volume(tmp_path / "sub-01_dseg.nii.gz", _labels([1, 2, 2]))
    found = read_tissue_map(tmp_path / "sub-01_dseg.nii.gz").array.ravel().tolist()
    assert found == [WHITE, GRAY, GRAY]


def test_labels_without_a_table_are_not_guessed(tmp_path):
    write_volume(tmp_path / "sub-01_dseg.nii.gz", _labels([1, 2, 3]))
    with pytest.raises(InputError, match=r"sub-01_dseg.nii.gz: no dseg.tsv"):
        read_tissue_map(tmp_path / "sub-01_dseg.nii.gz")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("label\tname\n1\tCSF\n", "columns index and name"),
        ("index\tname\none\tCSF\n", "'one' is no index"),
    ],
)
def test_a_table_that_is_none_is_named(tmp_path, table, message):
    (tmp_path / "dseg.tsv").write_text(table)
    write_volume(tmp_path / "sub-01_dseg.nii.gz", _labels([1, 2, 3]))
    with pytest.raises(InputError, match=f"dseg.tsv: .*{message}"):
        read_tissue_map(tmp_path / "sub-01_dseg.nii.gz")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2, 3, 9], "no name is known for label 9"),
        ([1, 2, 3, 5], "label 5 is 'bone'"),
        ([1, 2, 4], "no white matter"),
        ([1, 3, 4], "no gray matter"),
    ],
)
def test_maps_that_cannot_be_used_are_named(values, message):
    names = {1: "CSF", 2: "GM", 3: "WM", 4: "lesion", 5: "bone"}
    with pytest.raises(InputError, match=f"^a.nii: {message}"):
        tissue_classes(_labels(values), names, name="a.nii")


def test_a_map_of_four_dimensions_is_refused(tmp_path):
    from nibabel.nifti1 import Nifti1Image

    (tmp_path / "dseg.tsv").write_text(TABLE)
    array = np.arange(16, dtype=np.uint8).reshape(2, 2, 2, 2) % 4
    Nifti1Image(array, np.eye(4)).to_filename(tmp_path / "sub-01_dseg.nii.gz")
    with pytest.raises(InputError, match=r"sub-01_dseg.nii.gz"):
        read_tissue_map(tmp_path / "sub-01_dseg.nii.gz")


@pytest.mark.parametrize("find", [find_tissue_maps, find_masks])
def test_a_folder_that_is_missing_is_named(tmp_path, find):
    with pytest.raises(InputError, match="gone: no such file or folder"):
        find(tmp_path / "gone")
