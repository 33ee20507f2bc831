import numpy as np
import pytest
import SimpleITK

from lesionwise.preprocess.bias_field import log_bias_field


@pytest.fixture(scope="module")
def biased():
    """Two tissues and noise in an ellipsoid off the middle, under a known field; not cubic."""
    shape = (30, 36, 24)
    i, j, k = (at / (n - 1) for at, n in zip(np.indices(shape), shape, strict=True))
    mask = ((i - 0.45) / 0.4) ** 2 + ((j - 0.5) / 0.4) ** 2 + ((k - 0.55) / 0.35) ** 2 < 1
    tissue = np.where(np.sin(25 * i) + np.sin(22 * j) + np.sin(19 * k) > 0, 100.0, 70.0)
    log_field = 0.4 * i - 0.3 * j**2 + 0.2 * i * k
    noise = np.random.default_rng(0).normal(0, 1, shape)
    return (tissue + noise) * np.exp(log_field), mask, log_field


def itk_field(image, mask, levels, iterations, tolerance, patches, fwhm):
    n4 = SimpleITK.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations([iterations] * levels)
    n4.SetConvergenceThreshold(tolerance)
    n4.SetNumberOfControlPoints([patches + 3] * 3)
    n4.SetBiasFieldFullWidthAtHalfMaximum(fwhm)
    images = [SimpleITK.GetImageFromArray(a.T) for a in (image, mask.astype(np.uint8))]
    n4.Execute(SimpleITK.Cast(images[0], SimpleITK.sitkFloat32), images[1])
    return SimpleITK.GetArrayFromImage(n4.GetLogBiasFieldAsImage(images[0])).T


@pytest.mark.parametrize(
    ("levels", "iterations", "patches", "fwhm"), [(1, 8, 1, 0.15), (3, 5, 1, 0.05), (2, 4, 2, 0.15)]
)
def test_field_is_that_of_itk(biased, levels, iterations, patches, fwhm):
    image, mask, _ = biased
    # no tolerance: rounding must not decide how often
    settings = {"tolerance": 0.0, "patches": patches, "fwhm": fwhm}
    ours = log_bias_field(image, mask, levels=levels, iterations=iterations, **settings)
    theirs = itk_field(image, mask, levels, iterations, **settings)
    assert np.abs(ours - theirs)[mask].max() < 1e-4


def test_known_field_is_found(biased):
    image, mask, log_field = biased
    found = log_bias_field(image, mask)
    left = (log_field - found)[mask]
    assert left.std() < 0.25 * log_field[mask].std()


def test_what_lies_outside_the_mask_does_not_count(biased):
    image, mask, _ = biased
    spoilt = np.where(mask, image, -5.0)
    one, other = (log_bias_field(each, mask, levels=2, iterations=3) for each in (image, spoilt))
    assert np.array_equal(one, other)


def test_one_value_has_no_field():
    mask = np.zeros((5, 6, 7), bool)
    mask[1:4, 2:5, 3] = True
    assert not log_bias_field(np.full(mask.shape, 3.0), mask).any()


def test_one_voxel_is_enough():
    mask = np.zeros((4, 4, 4), bool)
    mask[1, 2, 3] = True
    assert np.isfinite(log_bias_field(np.full(mask.shape, 3.0), mask)).all()


def test_equal_input_gives_equal_output(biased):
    image, mask, _ = biased
    one, other = (log_bias_field(image, mask, levels=2, iterations=3) for _ in range(2))
    assert np.array_equal(one, other)
