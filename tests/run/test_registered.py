import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from lesionwise.io.bids import find_scans
from lesionwise.io.nifti import read_volume, write_volume
from lesionwise.run.registered import itk_affine, write_registered
from lesionwise.types import Grid, InputError, Volume

SHAPE = (24, 26, 22)


@pytest.fixture
def pair(tmp_path):
    """A head and the same 3 voxels to the right, twice as bright, with one brighter block."""
    array = np.zeros(SHAPE, np.float32)
    array[4:16, 4:20, 4:18] = 50 + np.random.default_rng(1).normal(0, 5, (12, 16, 14))
    later = np.roll(array, 3, axis=0) * 2
    later[12:14, 10:12, 10:12] += 100
    grid = Grid(SHAPE, np.diag([1.5, 1.0, 2.0, 1.0]))
    volumes = [Volume(array, grid), Volume(later, grid)]
    paths = [tmp_path / f"sub-1_ses-{name}_FLAIR.nii.gz" for name in "AB"]
    for path, volume in zip(paths, volumes, strict=True):
        write_volume(path, volume)
    world = np.eye(4)
    world[0, 3] = 4.5
    brains = [Volume(volume.array > 0, grid) for volume in volumes]
    return find_scans(paths), volumes, brains, [np.eye(4), world]


def test_the_follow_up_lies_on_the_baseline_and_the_subtraction_shows_what_is_new(pair, tmp_path):
    moved, change, _ = write_registered(tmp_path / "out", *pair)
    assert moved.name == "sub-1_ses-B_space-baseline_FLAIR.nii.gz"
    base = pair[1][0].array
    found = read_volume(moved).array
    stable = base > 0
    stable[9:11, 10:12, 10:12] = False
    assert np.allclose(found[stable], 2 * base[stable], rtol=1e-4)
    shown = read_volume(change).array
    assert np.abs(shown[stable]).max() < 12
    assert shown[9:11, 10:12, 10:12].min() > 60


def test_itk_resamples_with_the_transform_that_is_written(pair, tmp_path):
    moved, _, transform = write_registered(tmp_path / "out", *pair)
    scans = [str(scan.path) for scan in pair[0]]
    fixed, moving = (sitk.ReadImage(path, sitk.sitkFloat32) for path in scans)
    found = sitk.Resample(moving, fixed, sitk.ReadTransform(str(transform)), sitk.sitkLinear)
    assert np.allclose(sitk.GetArrayFromImage(found).T, read_volume(moved).array, atol=1e-2)


def test_a_turn_is_written_in_the_axes_of_itk():
    turn = np.eye(4)
    turn[:2, :2] = [[0, -1], [1, 0]]
    turn[:3, 3] = 1, 2, 3
    numbers = itk_affine(turn).splitlines()[3].removeprefix("Parameters: ").split()
    assert [float(n) for n in numbers] == [0, -1, 0, 1, 0, 0, 0, 0, 1, -1, -2, 3]


def test_brains_that_do_not_meet_are_told(pair, tmp_path):
    scans, volumes, brains, worlds = pair
    nothing = Volume(np.zeros(SHAPE, bool), brains[0].grid)
    with pytest.raises(InputError, match="shares no brain"):
        write_registered(tmp_path / "out", scans, volumes, [brains[0], nothing], worlds)
