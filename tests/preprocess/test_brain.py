"""The brain mask: found, recognized, or missed with a reason."""

import numpy as np
import pytest
from scipy import ndimage

from lesionwise.io.nifti import read_volume
from lesionwise.preprocess import brain as brain_module
from lesionwise.preprocess.brain import (
    ExtractBrain,
    NoBrainFound,
    brain_mask,
    find_brain,
    follow_border,
    head_template,
    largest_filled,
    not_background,
    template_mask,
)
from lesionwise.preprocess.brain_network import working_head
from lesionwise.preprocess.geometry import resample_to, respaced
from lesionwise.types import Grid, InputError, Study, Visit, Volume


def volume(array, spacing=1.0):
    affine = np.diag([spacing, spacing, spacing, 1.0])
    return Volume(array, Grid(array.shape, affine))


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def flair_like_head():
    """The template's head, turned, smaller, with bright tissue, dark fluid and noise."""
    head, brain, _ = head_template()
    angle = np.deg2rad(12)
    world = np.diag([1.12, 1.12, 1.12, 1.0])
    world[:2, :2] @= np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    world[:3, 3] = (5, -8, 6)
    grid = respaced(head.grid, (2.0, 2.0, 4.0))
    array = resample_to(head, grid, order=1, world=world).array
    inside = resample_to(brain, grid, order=1, world=world).array > 0.5
    bright = np.where(inside, 0.7 + 0.3 * array, 0.6 * array)
    noise = np.random.default_rng(0).normal(0, 0.02, grid.shape)
    return Volume((100 * (bright + noise)).astype(np.float32), grid), inside


def knows(scan, inside):
    """A network that was told where the brain is."""
    grid = working_head(scan).grid
    laid = resample_to(Volume(inside.astype(np.float32), scan.grid), grid, order=1)
    return lambda head: 16 * (laid.array - 0.5)


def finds_nothing(head):
    return np.full(head.shape, -9.0, np.float32)


def test_the_networks_brain_is_one_region_on_the_scans_grid():
    scan, inside = flair_like_head()
    beside = inside.copy()
    beside[:2, :2, :2] = True  # a second region that the network takes for brain
    found = find_brain(scan, network=knows(scan, beside))
    assert found.way == "network"
    assert found.mask.array.dtype == bool
    assert found.mask.grid is scan.grid
    assert dice(found.mask.array, inside) > 0.97
    _, regions = ndimage.label(found.mask.array)
    assert regions == 1


def test_without_weights_the_template_is_laid_on_and_the_log_says_why(monkeypatch, caplog):
    def missing():
        raise InputError("brain.safetensors: no such weights file")

    monkeypatch.setattr(brain_module, "shipped_network", missing)
    scan, inside = flair_like_head()
    with caplog.at_level("WARNING", "lesionwise"):
        mask = brain_mask(scan, name="07 flair")
    assert dice(mask.array, inside) > 0.95
    assert caplog.messages == [
        "07 flair: the brain is the template's: brain.safetensors: no such weights file"
    ]


def test_where_the_network_finds_nothing_in_a_clear_head_the_template_is_laid_on():
    scan, inside = flair_like_head()
    found = find_brain(scan, network=finds_nothing)
    assert found.way == "template"
    assert "the network finds 0.00 l" in found.reason
    assert dice(found.mask.array, inside) > 0.95


def test_the_template_finds_the_brain_of_a_head_with_skull():
    scan, inside = flair_like_head()
    mask, agreement = template_mask(scan)
    assert mask.grid is scan.grid
    assert dice(mask.array, inside) > 0.95
    assert agreement < -0.25
    _, regions = ndimage.label(mask.array)
    assert regions == 1


@pytest.mark.parametrize("background", [0.0, -1.5])
def test_a_stripped_scan_is_its_own_mask_with_holes_filled(background):
    scan, inside = flair_like_head()
    array = np.where(inside, scan.array, background)
    middle = tuple(np.argwhere(inside).mean(axis=0).astype(int))
    array[middle] = background
    found = find_brain(Volume(array, scan.grid), network=knows(scan, inside))
    assert found.way == "stripped"
    np.testing.assert_array_equal(found.mask.array, largest_filled(inside))
    assert found.mask.array[middle]


def test_background_is_one_value_of_many_voxels_else_zero():
    stripped = np.full((6, 6, 6), -2.5)
    stripped[2:4, 2:4, 2:4] = [[[-1, 0], [1, 2]], [[3, 4], [5, 6]]]
    assert not_background(stripped).sum() == 8
    block = np.arange(27.0).reshape(3, 3, 3)
    np.testing.assert_array_equal(not_background(block), block != 0)


def test_a_given_mask_is_left_alone():
    given = volume(np.zeros((4, 4, 4), bool))
    scan = volume(np.ones((4, 4, 4), np.float32))
    study = ExtractBrain()(Study("01", (Visit({"flair": scan}, {}, given),)))
    assert study.visits[0].brain is given


def test_a_constant_scan_is_refused_by_name():
    scan = volume(np.full((16, 16, 16), 3.0, np.float32), 8.0)
    with pytest.raises(NoBrainFound, match=r"^07 M06 flair: no brain found"):
        ExtractBrain()(Study("07", (Visit({"flair": scan}, {}, None, "M06"),)))
    assert issubclass(NoBrainFound, InputError)


def test_noise_holds_no_brain():
    noise = np.random.default_rng(0).random((48, 48, 48), dtype=np.float32)
    with pytest.raises(NoBrainFound, match=r"^scan: no brain found \(0.00 l"):
        find_brain(volume(noise, 4.0), network=finds_nothing)
    with pytest.raises(NoBrainFound, match=r"^scan: no brain found \("):
        template_mask(volume(noise, 4.0))


def test_values_that_are_not_finite_are_refused():
    array = np.ones((8, 8, 8), np.float32)
    array[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="not finite"):
        brain_mask(volume(array))


def test_border_moves_out_to_the_end_of_the_tissue_and_not_across_a_gap():
    i, j, k = np.indices((60, 60, 60)) * 2.0 - 59
    radius = np.sqrt(i**2 + j**2 + k**2)
    scan = volume(np.where((radius < 46) | ((radius > 50) & (radius < 55)), 100.0, 5.0), 2.0)
    refined = follow_border(scan, radius < 43)
    assert dice(refined, radius < 46) > 0.99


def test_border_stays_where_the_scan_shows_none():
    i, j, k = np.indices((40, 40, 40)) * 2.0 - 39
    laid = np.sqrt(i**2 + j**2 + k**2) < 30
    stripes = volume(np.where(np.indices((40, 40, 40))[0] % 4 < 3, 1.0, 100.0), 2.0)
    np.testing.assert_array_equal(follow_border(stripes, laid), laid)


def test_largest_region_is_kept_and_filled():
    mask = np.zeros((9, 9, 9), bool)
    mask[1:6, 1:6, 1:6] = True
    mask[3, 3, 3] = False
    mask[8, 8, 8] = True
    out = largest_filled(mask)
    assert out.sum() == 125
    assert out[3, 3, 3]
    assert not out[8, 8, 8]
    assert not largest_filled(np.zeros((2, 2, 2), bool)).any()
    assert largest_filled(np.ones((3, 3, 3), bool)).all()


@pytest.mark.parametrize(("subject", "session"), [("openlong01", "02"), ("openlong12", "01")])
def test_real_scans_reach_the_supplied_masks(shared, supplied_mask, subject, session):
    path = f"data/sub-{subject}/ses-{session}/anat/sub-{subject}_ses-{session}_FLAIR.nii.gz"
    scan = read_volume(shared(path))
    assert dice(brain_mask(scan).array, supplied_mask(subject, session, scan.grid)) > 0.95
