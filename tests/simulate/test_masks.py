import numpy as np
import pytest

from lesionwise.simulate.lesions import LesionSettings, paint
from lesionwise.simulate.masks import find_masks, place_mask, read_lesion_mask, split_at_maxima
from lesionwise.types import Grid, InputError, Volume

NO_CHANGE = LesionSettings(new_rate=0, gone_rate=0, changing_rate=0)


def _balls(shape, *balls):
    index = np.indices(shape)
    out = np.zeros(shape, dtype=bool)
    for center, radius in balls:
        out |= sum((index[a] - center[a]) ** 2 for a in range(3)) <= radius**2
    return out


def test_two_joined_balls_are_two_lesions():
    mask = _balls((30, 16, 16), ((8, 8, 8), 5), ((20, 8, 8), 5))
    mask[8:20, 8, 8] = True
    labels = split_at_maxima(mask)
    assert labels[8, 8, 8] != labels[20, 8, 8]
    np.testing.assert_array_equal(labels > 0, mask)
    assert labels.max() == 2


def test_one_ball_is_one_lesion():
    assert split_at_maxima(_balls((16, 16, 16), ((8, 8, 8), 5))).max() == 1


def test_components_under_three_voxels_are_dropped():
    mask = np.zeros((9, 9, 9), dtype=bool)
    mask[1, 1, 1:3] = True
    mask[6, 6, 1:4] = True
    labels = split_at_maxima(mask)
    assert labels.max() == 1
    assert labels[6, 6, 1] == 1
    assert labels[1, 1, 1] == 0


def test_an_empty_mask_has_no_lesions():
    assert split_at_maxima(np.zeros((5, 5, 5), dtype=bool)).max() == 0


def test_unchanged_lesions_are_painted_as_they_were(toy):
    side = toy.white.shape[0]
    shape = (side,) * 3
    mask = _balls(shape, ((50, 36, 36), 5), ((60, 36, 36), 4), ((50, 55, 40), 3))
    affine = np.eye(4)
    affine[:3, 3] = toy.template_mm[:, 0, 0, 0]  # so that the mask's grid is the head's
    units = place_mask(np.random.default_rng(0), toy, Volume(mask, Grid(shape, affine)), 1)
    labels = paint(units, 0, shape).labels
    soft_edge = 0.03  # the mask is read by interpolation, which rounds corners
    assert ((labels > 0) ^ mask).sum() < soft_edge * mask.sum() + 12
    assert labels[50, 55, 40] not in (0, labels[50, 36, 36])


def test_fluid_is_cut_off(toy):
    side = toy.white.shape[0]
    shape = (side,) * 3
    affine = np.eye(4)
    affine[:3, 3] = toy.template_mm[:, 0, 0, 0]
    mask = _balls(shape, ((36, 36, 36), 8))
    assert (toy.fluid[mask] > 0).any()
    units = place_mask(
        np.random.default_rng(0), toy, Volume(mask, Grid(shape, affine)), 2, NO_CHANGE
    )
    for visit in (0, 1):
        labels = paint(units, visit, shape).labels
        assert labels.any()
        assert not (labels > 0)[toy.fluid > 0.5].any()


def test_masks_are_found_by_name_and_can_be_left_out(tmp_path):
    for subject in ("open01", "open19"):
        folder = tmp_path / f"sub-{subject}" / "anat"
        folder.mkdir(parents=True)
        (folder / f"sub-{subject}_label-lesion_mask.nii.gz").touch()
        (folder / f"sub-{subject}_desc-brain_mask.nii.gz").touch()
    found = find_masks(tmp_path, exclude=("open19",))
    assert [path.name for path in found] == ["sub-open01_label-lesion_mask.nii.gz"]


def test_a_folder_without_masks_is_refused(tmp_path):
    with pytest.raises(InputError, match="no lesion masks"):
        find_masks(tmp_path)


def test_an_empty_mask_file_is_refused(tmp_path):
    from lesionwise.io.nifti import write_volume

    path = tmp_path / "sub-01_label-L_mask.nii.gz"
    write_volume(path, Volume(np.zeros((4, 4, 4), dtype=bool), Grid((4, 4, 4), np.eye(4))))
    with pytest.raises(InputError, match="empty"):
        read_lesion_mask(path)
