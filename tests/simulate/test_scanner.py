from dataclasses import replace

import numpy as np
import pytest

from lesionwise.simulate.anatomy import SHAPE, Anatomy, head_grid
from lesionwise.simulate.lesions import LesionLayer
from lesionwise.simulate.scanner import (
    Protocol,
    acquire,
    draw_contrast,
    draw_protocol,
    resample_labels,
    scan_grid,
)

# 64 mm around voxel (96, 114, 114) of the head; enough to see what a scanner does
PERFECT = Protocol(
    (1.0, 1.0, 1.0), (64.0, 64.0, 64.0), blur_mm=0, bias=0, noise=0, noise_scale_vox=0, scale=100
)


@pytest.fixture(scope="module")
def empty() -> tuple[Anatomy, LesionLayer]:
    """A head that is brain everywhere and has no lesions."""
    zero = np.zeros(SHAPE, dtype=np.float32)
    brain = np.ones(SHAPE, dtype=bool)
    anatomy = Anatomy(
        white=zero + 1, gray=zero, fluid=zero, ventricles=zero, deep_gray=zero, brain=brain,
        infratentorial=~brain, ventricle_mm=zero, cortex_mm=zero,
        shells=np.zeros(SHAPE, dtype=np.uint8), template_mm=zero[None],
    )  # fmt: skip
    labels = np.zeros(SHAPE, dtype=np.int32)
    return anatomy, LesionLayer(labels, labels, zero, zero)


def test_a_grid_has_the_spacing_and_extent_asked_for():
    grid = scan_grid(replace(PERFECT, spacing_mm=(0.8, 0.8, 3.0), rotation_degrees=(4, -3, 9)))
    np.testing.assert_allclose(grid.spacing_mm, (0.8, 0.8, 3.0))
    assert grid.shape == (80, 80, 21)


def test_a_perfect_scanner_shows_the_signal(empty):
    signal = np.full(SHAPE, 1.5, dtype=np.float32)
    scan = acquire(signal, *empty, PERFECT, np.random.default_rng(0))
    assert scan.image.dtype == np.uint16
    assert np.median(scan.image) == 150


def test_thick_slices_average_what_they_cover(empty):
    """A slab of 1 mm in slices of 4 mm: its slice shows about a quarter of it."""
    signal = np.zeros(SHAPE, dtype=np.float32)
    signal[:, :, 100] = 1
    thick = replace(PERFECT, spacing_mm=(2.0, 2.0, 4.0), scale=1000)
    scan = acquire(signal, *empty, thick, np.random.default_rng(0))
    middle = scan.image[16, 16].astype(float) / 1000
    assert middle.max() < 0.45
    np.testing.assert_allclose(middle.sum() * 4, 1, atol=0.15)


def test_labels_follow_the_scan(empty):
    anatomy, _ = empty
    labels = np.zeros(SHAPE, dtype=np.int32)
    labels[86:106, 104:124, 104:124] = 7
    lesions = LesionLayer(
        labels, labels, (labels > 0).astype(np.float32), labels.astype(np.float32)
    )
    turned = replace(PERFECT, rotation_degrees=(5, 5, 5), spacing_mm=(1.0, 1.0, 2.0))
    scan = acquire(np.ones(SHAPE, np.float32), anatomy, lesions, turned, np.random.default_rng(0))
    assert set(np.unique(scan.labels)) == {0, 7}
    volume = (scan.labels == 7).sum() * scan.grid.voxel_volume_mm3
    assert abs(volume / 8000 - 1) < 0.03
    center = scan.grid.world_mm(np.argwhere(scan.labels == 7)).mean(axis=0)
    truth = head_grid().world_mm(np.argwhere(labels == 7)).mean(axis=0)
    np.testing.assert_allclose(center, truth, atol=0.15)


def test_labels_of_another_visit_come_by_nearest_neighbor():
    labels = np.zeros(SHAPE, dtype=np.int32)
    labels[80:90, 100:110, 90:100] = 3
    np.testing.assert_array_equal(resample_labels(labels, head_grid()), labels)


def test_noise_is_rician_and_as_strong_as_asked(empty):
    noisy = replace(PERFECT, noise=0.05, scale=10000)
    ones = np.ones(SHAPE, dtype=np.float32)
    scan = acquire(ones, *empty, noisy, np.random.default_rng(0))
    inner = scan.image[4:-4, 4:-4, 4:-4] / 10000
    assert abs(inner.std() - 0.05) < 0.001
    scan = acquire(0 * ones, *empty, noisy, np.random.default_rng(0))
    dark = scan.image[4:-4, 4:-4, 4:-4] / 10000
    assert abs(dark.mean() - 0.05 * np.sqrt(np.pi / 2)) < 0.001  # the mean of a Rayleigh law


def test_stripped_scans_are_zero_outside_the_brain(empty):
    anatomy, lesions = empty
    brain = anatomy.brain.copy()
    brain[:, :, :110] = False
    ones = np.ones(SHAPE, dtype=np.float32)
    noisy = replace(PERFECT, noise=0.05)
    head = replace(anatomy, brain=brain)
    scan = acquire(ones, head, lesions, noisy, np.random.default_rng(0), stripped=True)
    assert scan.image[~scan.brain].max() == 0
    assert (~scan.brain).any()


def test_realistic_contrasts_are_those_of_flair():
    for seed in range(50):
        contrast = draw_contrast(np.random.default_rng(seed), "realistic")
        assert contrast.fluid < 0.5 < 1 < contrast.gray < contrast.lesion


def test_draws_repeat():
    a, b = (draw_protocol(np.random.default_rng(9), "randomized") for _ in range(2))
    assert a == b


def test_sagittal_slices_average_along_i(empty):
    signal = np.zeros(SHAPE, dtype=np.float32)
    signal[100] = 1
    thick = replace(PERFECT, spacing_mm=(4.0, 2.0, 2.0), scale=1000)
    scan = acquire(signal, *empty, thick, np.random.default_rng(0))
    line = scan.image[:, 16, 16].astype(float) / 1000
    assert line.max() < 0.45
    np.testing.assert_allclose(line.sum() * 4, 1, atol=0.15)
