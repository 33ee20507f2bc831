from pathlib import Path

import numpy as np
import pytest

from lesionwise.simulate.patient import simulate_patient
from lesionwise.simulate.tissue_heads import (
    TissueHead,
    clean_tissue,
    compose_tissue,
    make_tissue_head,
    read_aligned_map,
)
from lesionwise.simulate.tissue_maps import FLUID, GRAY, LESION, WHITE

SIDE = 48


def _map():
    """White matter in a shell of cortex and fluid, with a ventricle in its middle."""
    i, j, k = np.meshgrid(*[np.arange(SIDE) - SIDE // 2] * 3, indexing="ij")
    edge = SIDE // 2 - np.maximum(np.maximum(abs(i), abs(j)), abs(k))
    labels = np.full((SIDE,) * 3, WHITE, dtype=np.uint8)
    labels[edge <= 8] = GRAY
    labels[edge <= 5] = FLUID
    labels[edge <= 3] = 0
    from_middle = np.maximum(np.maximum(abs(i), abs(j)), abs(k))
    labels[from_middle <= 4] = GRAY  # partial volume of fluid and white matter
    labels[from_middle <= 3] = FLUID
    zero = np.zeros(labels.shape, dtype=np.float32)
    guide = {"ventricle_mm": (from_middle - 3).astype(np.float32), "deep": zero, "core": zero}
    # above the tentorium, beside the midline
    place = (zero + 40, zero, zero + 40)
    return labels, guide, place


def _cleaned(labels, guide, place):
    brain = np.zeros(labels.shape, dtype=bool)
    brain[4:-3, 4:-3, 4:-3] = True
    return clean_tissue(labels, brain, guide, place)


def test_the_lateral_ventricles_are_found_and_their_gray_lining_is_white():
    labels, guide, place = _map()
    tissue, ventricles = _cleaned(labels, guide, place)
    middle = slice(SIDE // 2 - 6, SIDE // 2 + 7)
    assert ventricles.sum() == 7**3
    assert (tissue[middle, middle, middle] == WHITE).all()


def test_cortex_and_the_fluid_around_it_stay():
    labels, guide, place = _map()
    tissue, _ = _cleaned(labels, guide, place)
    assert (tissue[labels == 0] == FLUID).all()
    outer = np.ones(labels.shape, dtype=bool)
    outer[12:-12, 12:-12, 12:-12] = False
    assert (tissue[outer & (labels > 0)] == labels[outer & (labels > 0)]).all()


def test_lesions_of_the_map_and_small_islands_become_white_matter():
    labels, guide, place = _map()
    labels[10:13, 20:24, 20:24] = LESION
    labels[14, 30, 30] = GRAY
    labels[30:32, 14, 14] = FLUID
    tissue, _ = _cleaned(labels, guide, place)
    assert (tissue[10:15, 14:35, 14:35] == WHITE).all()
    assert (tissue[30:32, 14, 14] == WHITE).all()


def test_folded_cortex_deep_in_white_matter_stays_gray():
    labels, guide, place = _map()
    labels[20:23, 6:16, 20:32] = GRAY  # a sulcus whose banks touch
    tissue, _ = _cleaned(labels, guide, place)
    assert (tissue[20:23, 8:16, 20:32] == GRAY).all()


def test_gray_in_the_core_of_the_template_is_white():
    labels, guide, place = _map()
    labels[20:23, 6:16, 20:32] = GRAY
    guide["core"] = guide["core"] + 1
    tissue, _ = _cleaned(labels, guide, place)
    assert not (tissue == GRAY).any()


@pytest.fixture(scope="module")
def head():
    """Layers along i, from fluid through cortex to white matter, and a ventricle at the end."""
    shape = (40, 12, 12)
    i = np.arange(40, dtype=np.float32)[:, None, None] + np.zeros(shape, dtype=np.float32)
    fields = {
        "white": np.clip((i - 11.5) / 2, 0, 1),
        "gray": np.clip((i - 8.5) / 2, 0, 1) * np.clip((13.5 - i) / 2, 0, 1),
        "ventricle_mm": 34 - i,
        "cortex_mm": np.clip(i - 12, 0, None),
        "brain_mm": 6 - i,
        "deep": np.clip(1 - abs(i - 28) / 3, 0, 1),
    }
    rng = np.random.default_rng(0)
    shifts = rng.normal(0, 0.3, (2, *shape)).astype(np.float32)
    shells = np.zeros(shape, dtype=np.uint8)
    return TissueHead(fields, shifts[0], shifts[1], 0.5, shells, np.stack([i] * 3))


def test_fractions_sum_to_one_in_the_brain(head):
    anatomy = compose_tissue(head)
    total = anatomy.white + anatomy.gray + anatomy.fluid
    np.testing.assert_allclose(total[anatomy.brain], 1, atol=1e-5)
    assert anatomy.fluid[~anatomy.brain].max() == 0
    for part in (anatomy.white, anatomy.gray, anatomy.fluid, anatomy.ventricles):
        assert part.min() >= 0
        assert part.max() <= 1
    assert (anatomy.deep_gray <= anatomy.gray).all()


def test_atrophy_widens_ventricles_and_thins_the_cortex_of_a_tissue_head(head):
    first, later = compose_tissue(head), compose_tissue(head, atrophy_mm=0.4)
    assert later.ventricles.sum() > first.ventricles.sum()
    assert later.gray.sum() < first.gray.sum()
    assert (later.fluid - first.fluid)[later.brain].min() > -1e-5


def test_nuclei_come_from_the_template_where_the_map_says_white(head):
    anatomy = compose_tissue(head)
    assert head.fields["white"][28].min() == 1
    assert anatomy.gray[28].min() > 0.9


@pytest.fixture(scope="module")
def real_map(shared) -> Path:
    folder = shared("data/derivatives/labelmaps")
    return next(folder.rglob("sub-open03*_dseg.nii.gz"))


@pytest.mark.slow
def test_one_seed_gives_one_head_and_another_seed_another(real_map):
    aligned = read_aligned_map(real_map)
    anatomy, again, other = (
        compose_tissue(make_tissue_head(np.random.default_rng(seed), aligned)) for seed in (4, 4, 5)
    )
    np.testing.assert_array_equal(again.gray, anatomy.gray)
    np.testing.assert_array_equal(again.shells, anatomy.shells)
    assert (abs(other.gray - anatomy.gray) > 0.5).mean() > 0.01


@pytest.mark.slow
def test_a_real_brain_has_usual_volumes_at_two_visits_and_no_lesions_of_its_own(real_map):
    """In ml; wide bounds around what is measured in adults. No lesion of the map shows."""
    patient = simulate_patient(
        3, 2, spacing_mm=(2.0, 2.0, 2.0), lesion_load=0, tissue_map=read_aligned_map(real_map)
    )
    for visit in patient.study.visits:
        assert not visit.labels["instances"].array.any()
        tissue = visit.labels["tissue"].array
        fluid, gray, white, lesion = (8e-3 * (tissue == label).sum() for label in (1, 2, 3, 4))
        assert 900 < fluid + gray + white < 1600
        assert 300 < gray < 900
        assert 350 < white < 800
        assert lesion == 0
