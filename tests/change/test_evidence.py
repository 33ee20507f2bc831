"""What two scans say about a place: scale, bias, noise and contrast, on a head that is drawn."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude

from lesionwise.change.evidence import ScanChange, compare_scans, match_scale
from lesionwise.change.rules import TrackingRules
from lesionwise.types import Grid

SHAPE = (48, 48, 48)
GRID = Grid(SHAPE, np.eye(4))
BRAIN = np.zeros(SHAPE, dtype=np.bool_)
BRAIN[4:44, 4:44, 4:44] = True
LESION = np.stack(np.meshgrid(*[np.arange(20, 25)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
ELSEWHERE = LESION + np.array([0, 0, 12])
NOISE = 2.0


def scan(seed: int, *lesions: NDArray[np.int64], noise: float = NOISE) -> NDArray[np.float32]:
    """Gray and white matter, 100 and 130, that lie alike in every scan, white around the lesions.

    Lesions are at 180.
    """
    tissue = gaussian_filter(np.random.default_rng(9).normal(size=SHAPE), 2) > 0
    tissue[12:33, 12:33, 12:] = False
    image = np.where(tissue, 100.0, 130.0) * BRAIN
    for lesion in lesions:
        image[tuple(lesion.T)] = 180
    image += np.random.default_rng(seed).normal(0, noise, SHAPE)
    return image.astype(np.float32)


def change(earlier: NDArray[np.float32], later: NDArray[np.float32]) -> ScanChange:
    doubtful = np.zeros(SHAPE, dtype=np.bool_)
    for lesion in (LESION, ELSEWHERE):
        doubtful[tuple(lesion.T)] = True
    found = compare_scans(earlier, later, (BRAIN, BRAIN), doubtful, GRID)
    assert found is not None
    return found


def test_a_lesion_that_came_is_brighter_beyond_the_noise_and_all_of_it_is_new() -> None:
    found = change(scan(1), scan(2, LESION))
    evidence = found.of_lesion(LESION)
    assert evidence.z > 6
    assert evidence.contrast_gain == pytest.approx(1, abs=0.1)


def test_a_lesion_that_both_scans_show_did_not_come_on_whatever_scanner() -> None:
    found = change(scan(1, LESION), 40 + 3 * scan(2, LESION))
    evidence = found.of_lesion(LESION)
    assert abs(evidence.z) < 1
    assert evidence.contrast_gain == pytest.approx(0, abs=0.1)


def test_a_lesion_that_went_is_darker_and_none_of_it_is_left() -> None:
    found = change(scan(1, LESION), scan(2))
    evidence = found.of_lesion(LESION, disappeared=True)
    assert evidence.z < -6
    assert evidence.contrast_gain == pytest.approx(1, abs=0.1)


def test_half_a_contrast_more_is_half_new() -> None:
    half = scan(1)
    half[tuple(LESION.T)] += (180 - half[tuple(LESION.T)]) / 2
    assert change(half, scan(2, LESION)).of_lesion(LESION).contrast_gain == pytest.approx(
        0.5, abs=0.1
    )


def test_a_smooth_change_of_the_coil_is_no_change() -> None:
    field = 10 * np.linspace(-1, 1, SHAPE[2])
    found = change(scan(1, LESION), (scan(2, LESION) + field).astype(np.float32))
    for place in (LESION, ELSEWHERE):
        assert abs(found.mean_z(place)) < TrackingRules().min_z
    plain = scan(2, LESION) + field - scan(1, LESION)
    assert plain[:, :, 40].mean() > TrackingRules().min_z * NOISE


def test_z_has_the_spread_of_noise_in_unchanged_tissue() -> None:
    found = change(scan(1), scan(2))
    values = found.z[found.normal]
    assert float(np.median(values)) == pytest.approx(0, abs=0.1)
    assert float(1.4826 * np.median(np.abs(values))) == pytest.approx(1, abs=0.1)


def test_edges_that_moved_are_noisier_than_flat_tissue() -> None:
    later = np.roll(scan(1, noise=0.0), 1, axis=0) + scan(3) - scan(1, noise=0.0)
    later = later.astype(np.float32)
    found = change(scan(1), later)
    edges = gaussian_gradient_magnitude(later, 1)
    noise = np.abs(found.later - found.earlier) / np.maximum(np.abs(found.z), 1e-6)
    low, high = np.quantile(edges[found.normal], [0.2, 0.8])
    flat, steep = found.normal & (edges < low), found.normal & (edges > high)
    assert np.median(noise[steep]) > np.median(noise[flat])


def test_a_place_that_only_one_visit_shows_is_unknown() -> None:
    less = BRAIN.copy()
    less[:, :, 30:] = False
    found = compare_scans(scan(1), scan(2), (less, BRAIN), np.zeros(SHAPE, dtype=np.bool_), GRID)
    assert found is not None
    assert np.isnan(found.mean_z(ELSEWHERE))
    assert np.isnan(found.of_lesion(ELSEWHERE).contrast_gain)
    assert np.isfinite(found.mean_z(LESION))


def test_no_voxels_say_nothing() -> None:
    assert np.isnan(change(scan(1), scan(2)).mean_z(LESION[:0]))


@pytest.mark.parametrize("brain", [np.zeros(SHAPE, dtype=np.bool_), BRAIN])
def test_too_little_normal_tissue_gives_nothing(brain: NDArray[np.bool_]) -> None:
    assert compare_scans(scan(1), scan(2), (brain, BRAIN), brain, GRID) is None


def test_the_ring_of_normal_tissue_is_measured_in_mm() -> None:
    grid = Grid(SHAPE, np.diag([1.0, 1.0, 4.0, 1.0]))
    normal = np.ones(SHAPE, dtype=np.bool_)
    normal[:, :, 24] = False
    flat = np.zeros(SHAPE, dtype=np.float32)
    later = flat.copy()
    later[24, 24, 24] = 10
    # the next slices, 4 mm away, lie in the ring; those after, 8 mm away, do not
    later[:, :, [23, 25]] = 4
    later[:, :, [22, 26]] = 1000
    earlier = flat.copy()
    earlier[24, 24, 24] = 3
    found = ScanChange(earlier, later, flat, normal, normal | True, grid)
    # 3 above a ring of 0, then 10 above a ring of 4
    assert found.of_lesion(np.array([[24, 24, 24]])).contrast_gain == pytest.approx(1 - 3 / 6)


def test_a_linear_scale_is_found_and_continued_beyond_what_tissue_shows() -> None:
    earlier = np.linspace(100, 200, 30**3, dtype=np.float32).reshape(30, 30, 30)
    later = 3 * earlier - 50
    tissue = np.ones(earlier.shape, dtype=np.bool_)
    beyond = np.full_like(earlier, 400.0)
    mapped = match_scale(np.concatenate([earlier, beyond]), np.concatenate([later, beyond]),
                         np.concatenate([tissue, ~tissue]))  # fmt: skip
    assert np.allclose(mapped[:30], later, atol=2)
    assert np.allclose(mapped[30:], 3 * 400 - 50, rtol=0.02)


def test_the_scale_never_turns_around() -> None:
    rng = np.random.default_rng(4)
    earlier = rng.uniform(0, 1, (20, 20, 20)).astype(np.float32)
    mapped = match_scale(earlier, -earlier, np.ones(earlier.shape, dtype=np.bool_))
    order = np.argsort(earlier, axis=None)
    assert (np.diff(mapped.reshape(-1)[order]) >= -1e-5).all()


def test_one_value_is_shifted() -> None:
    flat = np.full((4, 4, 4), 5.0, dtype=np.float32)
    assert np.allclose(match_scale(flat, flat + 2, flat > 0), 7)
