"""Grades: a good scan passes, each fault is named."""

from dataclasses import replace

import edt
import numpy as np
import pytest
from scipy import ndimage

from lesionwise.io.nifti import read_mask, read_volume
from lesionwise.preprocess.geometry import resample_to, respaced
from lesionwise.preprocess.quality import (
    air_levels,
    cut_fraction,
    noise_level,
    protocol_changes,
    scan_quality,
    tissue_order,
)
from lesionwise.preprocess.template import template_maps
from lesionwise.types import Grid, Visit, Volume


def brainlike(spacing=(2.0, 2.0, 2.0), shape=(110, 110, 90)):
    """A ball of 1.2 l with a dark middle in dark air, slightly noisy, and its mask."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * spacing
    grid = Grid(shape, affine)
    radius = np.linalg.norm(grid.world_mm(np.indices(shape).reshape(3, -1).T), axis=1).reshape(
        shape
    )
    brain = radius < 66
    noise = np.random.default_rng(0).normal(0, 2, shape)
    array = np.where(brain, 100, 5) - 70 * (radius < 20) + np.where(radius < 45, -8, 0) + noise
    return Volume(array.astype(np.float32), grid), Volume(brain, grid)


def changed(scan, array):
    return Volume(np.asarray(array, dtype=np.float32), scan.grid)


def zigzag(array, by_vox):
    """Every other slice moved along i."""
    moved = array.copy()
    moved[..., ::2] = np.roll(array[..., ::2], by_vox, axis=0)
    return moved


def test_a_sound_scan_is_good():
    scan, brain = brainlike()
    quality = scan_quality(scan, brain)
    assert (quality.grade, quality.reasons) == ("good", ())
    assert quality.measures["brain_volume_ml"] == pytest.approx(4 / 3 * np.pi * 6.6**3, rel=0.01)


def test_a_z_scored_scan_has_the_grade_of_the_scan():
    scan, brain = brainlike()
    stripped = changed(scan, np.where(brain.array, scan.array, 0))
    inside = stripped.array[brain.array]
    scored = changed(scan, (stripped.array - inside.mean()) / inside.std())
    right, seen = scan_quality(stripped, brain), scan_quality(scored, brain)
    assert (seen.grade, seen.reasons) == (right.grade, right.reasons)
    for name, value in right.measures.items():
        assert seen.measures[name] == pytest.approx(value, rel=1e-3, nan_ok=True), name


@pytest.mark.parametrize(
    ("spoil", "grade", "reason"),
    [
        (lambda a: np.zeros_like(a), "poor", "same value"),
        (lambda a: np.where(a > 90, np.nan, a), "poor", "not finite"),
        (lambda a: a + np.random.default_rng(1).normal(0, 12, a.shape), "fair", "noisy"),
        (lambda a: a + np.random.default_rng(1).normal(0, 40, a.shape), "poor", "noisy"),
        (lambda a: 200 - a, "poor", "inverted"),
        (lambda a: np.minimum(a, 99), "fair", "cut off at the highest"),
        (lambda a: 90 + 0.02 * a, "poor", "contrast"),
        (lambda a: zigzag(a, 1), "fair", "slices are shifted"),
        (lambda a: zigzag(a, 3), "poor", "slices are shifted"),
    ],
)
def test_each_fault_is_named(spoil, grade, reason):
    scan, brain = brainlike()
    quality = scan_quality(changed(scan, spoil(scan.array)), brain)
    assert quality.grade == grade
    assert any(reason in each for each in quality.reasons)


def test_ghosts_beside_the_head_are_motion():
    scan, brain = brainlike()
    clean = scan_quality(scan, brain)
    assert clean.measures["ghost_fraction"] < 0.002
    for axis in (0, 1):
        for strength, grade in ((0.004, "good"), (0.03, "fair"), (0.1, "poor")):
            array = scan.array + strength * np.roll(scan.array, scan.array.shape[axis] // 2, axis)
            found = scan_quality(changed(scan, array), brain)
            assert found.grade == grade, (axis, strength, found)
            assert any("motion" in r for r in found.reasons) == (grade != "good")


def test_noise_beside_the_head_is_no_ghost_where_the_corners_are_darkened():
    scan, brain = brainlike()
    rng = np.random.default_rng(0)
    # sharpened noise varies more from voxel to voxel than that of a magnitude image
    noise = np.abs(rng.normal(0, 5, scan.array.shape)) ** 1.5
    array = scan.array + noise
    margin = scan.array.shape[0] // 5
    array[:, :margin] *= 0.05
    array[:, -margin:] = 0
    quality = scan_quality(changed(scan, array), brain)
    assert quality.measures["ghost_fraction"] == 0
    assert not any("ghost" in reason for reason in quality.reasons)


@pytest.mark.parametrize("subject", ["thick03", "thick08"])
def test_ghosts_are_seen_in_a_clinical_scan_that_has_none_itself(shared, subject):
    name = f"sub-{subject}_ses-01"
    scan = read_volume(shared(f"data_thick/sub-{subject}/ses-01/anat/{name}_FLAIR.nii.gz"))
    folder = shared(f"data_thick/derivatives/brains/sub-{subject}/ses-01/anat")
    brain = read_mask(folder / f"{name}_space-orig_desc-silver_mask.nii.gz")
    assert scan_quality(scan, brain).measures["ghost_fraction"] == 0
    copy = scan.array + 0.08 * np.roll(scan.array, scan.array.shape[0] // 2, 0)
    assert scan_quality(changed(scan, copy), brain).measures["ghost_fraction"] > 0.02


def test_noise_alike_in_neighbors_is_seen_in_the_air():
    scan, brain = brainlike()
    rng = np.random.default_rng(0)
    one, two = (ndimage.gaussian_filter(rng.normal(0, 1, scan.array.shape), 1.5) for _ in "ab")
    scale = 12 / one.std()
    array = np.hypot(scan.array - 5 + scale * one, scale * two)
    assert noise_level(array, brain.array) < 4
    reasons = scan_quality(changed(scan, array), brain).reasons
    assert any("noisy" in reason for reason in reasons)


def test_a_head_that_fills_the_picture_has_no_air():
    scan, brain = brainlike()
    box = np.s_[25:85, 25:85, 20:70]
    assert air_levels(scan.array[box], brain.array[box], (2.0, 2.0, 2.0)) is None


def test_gray_matter_darker_than_white_is_no_flair():
    scan, brain = brainlike()
    depth = ndimage.distance_transform_edt(brain.array, sampling=2.0)
    cortex = (depth > 0) & (depth < 9)
    spread = np.random.default_rng(0).normal(0, 7, scan.array.shape)  # folds differ, white less
    t1w = np.where(cortex, 72 + spread, scan.array)
    flair = np.where(cortex, 118 + spread, scan.array)
    for array, is_t1w in ((t1w, True), (flair, False)):
        reasons = scan_quality(changed(scan, array), brain).reasons
        assert any("T1-weighted" in reason for reason in reasons) == is_t1w
    assert scan_quality(changed(scan, t1w), brain, flair=False).grade == "good"


def test_tissue_order_of_nothing_is_zero():
    assert tissue_order(np.zeros((4, 4, 4)), np.zeros((4, 4, 4), bool), (1.0, 1.0, 1.0)) == 0


def test_thick_slices_are_fair_and_very_thick_ones_poor():
    for thickness, grade in ((4.0, "good"), (5.0, "fair"), (8.1, "fair"), (10.0, "poor")):
        scan, _ = brainlike((2.0, 2.0, thickness), (80, 80, 40))
        assert scan_quality(scan, None).grade == grade


def test_a_brain_that_leaves_the_field_of_view_is_named():
    scan, brain = brainlike()
    cut = np.s_[:, :, :60]
    grid = Grid(scan.array[cut].shape, scan.grid.affine)
    quality = scan_quality(Volume(scan.array[cut], grid), Volume(brain.array[cut], grid))
    assert quality.grade == "poor"
    assert "the field of view cuts through the brain" in quality.reasons


def test_cut_share_by_hand():
    mask = np.zeros((4, 4, 4), bool)
    mask[1:3, 1:3, :] = True
    mask[1, 1, 3] = False
    # four voxels in the largest section along k, three of them on the upper face
    assert cut_fraction(mask) == 0.75
    mask[:, :, 3] = False
    assert cut_fraction(mask) == 0.75  # the lower face: 4 of 4, less the quarter it may have


def test_noise_is_measured_in_the_scans_units_and_smooth_fields_do_not_count():
    generator = np.random.default_rng(0)
    smooth = np.linspace(0, 500, 40)[:, None, None] + np.zeros((40, 40, 10))
    inside = np.zeros(smooth.shape, bool)
    inside[1:-1, 1:-1] = True  # no second difference exists on the outermost rows
    assert noise_level(smooth, inside) < 1e-3
    assert noise_level(smooth + generator.normal(0, 7, smooth.shape), inside) == pytest.approx(
        7, rel=0.05
    )


def test_protocol_changes_are_told_by_visit():
    scan, brain = brainlike()
    thick, thick_brain = brainlike((2.0, 2.0, 4.0), (110, 110, 45))
    first = Visit({"flair": scan}, {}, brain, "M00")
    assert protocol_changes((first, replace(first, session="M12"))) == ()
    second = Visit({"flair": thick}, {}, thick_brain, "M12")
    assert protocol_changes((first, second)) == ("voxel sizes differ between M00 and M12",)


def test_a_real_scan_is_good_and_others_are_not_taken_for_flair(shared, supplied_mask):
    flair = read_volume(
        shared("data/sub-openlong01/ses-02/anat/sub-openlong01_ses-02_FLAIR.nii.gz")
    )
    brain = Volume(supplied_mask("openlong01", "02", flair.grid), flair.grid)
    assert scan_quality(flair, brain).grade == "good"
    common = "data/derivatives/coregistered/sub-openlong12"
    t2w = read_volume(shared(f"{common}/ses-01/anat/sub-openlong12_ses-01_space-common_T2w.nii.gz"))
    mask = read_volume(shared(f"{common}/anat/sub-openlong12_space-common_desc-brain_mask.nii.gz"))
    reasons = scan_quality(t2w, mask).reasons
    assert any("fluid is brighter" in reason for reason in reasons)
    t1w = read_volume(shared(f"{common}/ses-01/anat/sub-openlong12_ses-01_space-common_T1w.nii.gz"))
    assert any("T1-weighted" in reason for reason in scan_quality(t1w, mask).reasons)
    assert not any("fluid" in r for r in scan_quality(t2w, mask, flair=False).reasons)


def test_a_backward_head_is_poor_and_the_reason_says_so():
    mask = template_maps().brain
    grid = respaced(mask.grid, 3.0)
    small = resample_to(mask, grid, order=0).array.astype(bool)
    noise = np.random.default_rng(3).normal(0, 2, grid.shape)
    scan = np.where(small, 100, 4) + noise
    for array, brain, said in (
        (scan, small, None),
        (scan[:, ::-1], small[:, ::-1], "backward"),
        (scan[:, ::-1, ::-1], small[:, ::-1, ::-1], "upside down"),
    ):
        made = Volume(np.ascontiguousarray(array, dtype=np.float32), grid)
        quality = scan_quality(made, Volume(np.ascontiguousarray(brain), grid))
        told = [reason for reason in quality.reasons if "by its header" in reason]
        assert bool(told) == (said is not None)
        if said:
            assert said in told[0]
            assert quality.grade == "poor"


MASK_FAULTS = ("brain mask", "its mask", "by its header")


def mask_reasons(scan, mask):
    """What is said about a mask, and nothing of what is said about the scan itself."""
    quality = scan_quality(scan, Volume(mask, scan.grid))
    return [r for r in quality.reasons if any(words in r for words in MASK_FAULTS)]


THICK = [f"thick{number:02d}" for number in range(1, 16)]


@pytest.mark.parametrize("subject", THICK)
def test_masks_of_thick_slice_scans_are_told_from_spoiled_ones(shared, subject):
    """The silver mask passes; one too wide, a half, and one without vertex do not."""
    name = f"sub-{subject}_ses-01"
    scan = read_volume(shared(f"data_thick/sub-{subject}/ses-01/anat/{name}_FLAIR.nii.gz"))
    folder = shared(f"data_thick/derivatives/brains/sub-{subject}/ses-01/anat")
    mask = read_mask(folder / f"{name}_space-orig_desc-silver_mask.nii.gz").array.astype(bool)
    assert mask_reasons(scan, mask) == []
    spacing = scan.grid.spacing_mm
    wide = edt.edt(~mask, anisotropy=spacing, black_border=False) <= 10
    assert mask_reasons(scan, wide)
    index = np.argwhere(mask)
    half, vertex = mask.copy(), mask.copy()
    half[int(np.median(index[:, 0])) :] = False
    assert mask_reasons(scan, half)
    vertex[:, :, index[:, 2].max() - round(35 / spacing[2]) :] = False
    assert mask_reasons(scan, vertex)
