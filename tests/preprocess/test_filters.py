"""Noise taken off, edges kept."""

from dataclasses import replace

import numpy as np
import pytest

from lesionwise.io.nifti import read_mask, read_volume
from lesionwise.preprocess.filters import AnisotropicDiffusion, Denoise, noise_level
from lesionwise.types import Grid, InputError, Study, Visit, Volume

STEPS = [Denoise(), AnisotropicDiffusion()]


def study(array, brain=None, spacing=(1.0, 1.0, 1.0)):
    where = Grid(array.shape, np.diag([*spacing, 1.0]))
    mask = None if brain is None else Volume(brain, where)
    return Study("01", (Visit({"flair": Volume(array, where)}, {}, mask, "M00"),))


def scan(study):
    return study.visits[0].scans["flair"].array


def two_halves(noise=4.0, shape=(32, 32, 32)):
    """100 and 160, and the same with Gaussian noise."""
    clean = np.full(shape, 100, np.float32)
    clean[shape[0] // 2 :] = 160
    rng = np.random.default_rng(0)
    return clean, (clean + rng.normal(0, noise, shape)).astype(np.float32)


def test_noise_level_of_known_noise():
    clean, noisy = two_halves(noise=4.0)
    mask = np.ones(clean.shape, bool)
    assert noise_level(noisy, mask) == pytest.approx(4.0, rel=0.05)
    assert noise_level(clean, mask) < 1e-6 * 160  # rounding
    assert noise_level(noisy, np.zeros(clean.shape, bool)) == 0


def test_noise_level_by_hand():
    # along i alone, each less half its two neighbors: 0, -1, 2, -1, 0; the ends have themselves
    array = np.array([0, 0, 2, 0, 0], np.float32).reshape(-1, 1, 1)
    # the median is 0, and that of 0, 1, 2, 1, 0 is 1; two neighbors: variance 3/2
    expected = 1.4826 * np.sqrt(2 / 3)
    assert noise_level(array, np.ones((5, 1, 1), bool)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("step", STEPS)
def test_noise_falls_and_edges_stay(step):
    clean, noisy = two_halves()
    out = scan(step(study(noisy)))
    for flat in (slice(2, 13), slice(19, 30)):
        assert out[flat].std() < 0.6 * noisy[flat].std()
        assert abs(out[flat].mean() - clean[flat].mean()) < 0.2
    jump = out[16].mean() - out[15].mean()
    assert jump > 0.95 * 60


def test_denoising_leaves_what_lies_far_from_the_brain():
    _, noisy = two_halves()
    brain = np.zeros(noisy.shape, bool)
    brain[12:20, 12:20, 12:20] = True
    out = scan(Denoise()(study(noisy, brain)))
    far = np.ones(noisy.shape, bool)
    far[9:23, 9:23, 9:23] = False
    np.testing.assert_array_equal(out[far], noisy[far])
    assert out[brain].std() < noisy[brain].std()


def test_denoising_follows_the_scale_of_the_scan():
    _, noisy = two_halves()
    cached_loader = scan(Denoise()(study(noisy)))
    scaled = scan(Denoise()(study(noisy * 100)))
    np.testing.assert_allclose(scaled / 100, cached_loader, rtol=1e-3)


def test_diffusion_repeats_to_the_last_bit():
    _, noisy = two_halves()
    step = AnisotropicDiffusion()
    np.testing.assert_array_equal(scan(step(study(noisy))), scan(step(study(noisy))))


def test_diffusion_is_stable_for_small_voxels():
    _, noisy = two_halves()
    out = scan(AnisotropicDiffusion()(study(noisy, spacing=(0.4, 0.4, 3.0))))
    assert noisy.min() <= out.min() < out.max() <= noisy.max()
    assert out[2:13].std() < noisy[2:13].std()


@pytest.mark.parametrize("step", STEPS)
def test_scans_without_noise_or_contrast_stay(step):
    for value in (0, 7):
        array = np.full((6, 6, 6), value, np.float32)
        np.testing.assert_array_equal(scan(step(study(array))), array)
    single = np.full((1, 1, 1), 3, np.float32)
    np.testing.assert_array_equal(scan(step(study(single))), single)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("shape", [(9, 9, 1), (9, 1, 9), (2, 2, 2)])
def test_thin_scans_are_taken(step, shape):
    array = np.random.default_rng(0).normal(100, 5, shape).astype(np.float32)
    out = scan(step(study(array)))
    assert out.shape == shape
    assert np.isfinite(out).all()


@pytest.mark.parametrize("step", STEPS)
def test_integers_give_what_their_values_give(step):
    _, noisy = two_halves(shape=(12, 12, 12))
    whole = np.round(noisy).astype(np.uint16)
    out = scan(step(study(whole)))
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, scan(step(study(whole.astype(np.float32)))))


@pytest.mark.parametrize("step", STEPS)
def test_values_that_are_not_finite_are_refused(step):
    _, noisy = two_halves(shape=(8, 8, 8))
    noisy[1, 2, 3] = np.inf
    with pytest.raises(InputError, match="01 M00 flair: some voxels are not finite"):
        step(study(noisy))


def test_an_empty_brain_is_refused():
    _, noisy = two_halves(shape=(8, 8, 8))
    with pytest.raises(InputError, match="the brain mask is empty"):
        Denoise()(study(noisy, np.zeros(noisy.shape, bool)))


@pytest.mark.parametrize("step", STEPS)
def test_the_study_keeps_all_else(step):
    _, noisy = two_halves(shape=(8, 8, 8))
    before = study(noisy, np.ones(noisy.shape, bool))
    kept = noisy.copy()
    visit = replace(before.visits[0], labels={"lesions": before.visits[0].brain})
    before = replace(before, visits=(visit,), changes={"new": visit.brain})
    after = step(before)
    assert after.changes is before.changes
    assert after.visits[0].brain is visit.brain
    assert after.visits[0].labels is visit.labels
    np.testing.assert_array_equal(noisy, kept)


@pytest.mark.parametrize("step", STEPS)
def test_a_real_scan_gets_less_noise_and_keeps_its_lesions(step, shared):
    name = "data/{}sub-open19/ses-01/anat/sub-open19_ses-01_{}.nii.gz"
    whole = read_volume(shared(name.format("", "FLAIR")))
    lesions = read_mask(
        shared(name.format("derivatives/lesions/", "space-MNI152_label-lesion_mask"))
    )
    part = (slice(60, 120), slice(60, 160), slice(85, 105))
    before = whole.array[part].astype(np.float32)
    lesion = lesions.array[part].astype(bool)
    brain = before > 0
    after = scan(step(study(before, brain)))
    assert noise_level(after, brain) < 0.8 * noise_level(before, brain)
    contrast = [a[lesion].mean() - a[brain & ~lesion].mean() for a in (before, after)]
    assert contrast[1] > 0.9 * contrast[0] > 0


def test_settings_out_of_range_are_refused():
    for wrong in ({"patch_vox": 2}, {"reach_vox": 0}, {"strength": 0}):
        with pytest.raises(ValueError, match=r"must be|need"):
            Denoise(**wrong)
    for wrong in ({"iterations": 0}, {"conductance": 0}, {"time_step": -1}):
        with pytest.raises(ValueError, match="positive"):
            AnisotropicDiffusion(**wrong)
