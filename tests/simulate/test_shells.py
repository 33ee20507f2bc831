"""What surrounds a simulated brain."""

import numpy as np
import pytest

from lesionwise.simulate.anatomy import HeadSettings, compose, make_head
from lesionwise.simulate.scanner import Protocol, draw_contrast, draw_protocol
from lesionwise.simulate.shells import (
    CLINICAL_SHELLS,
    CORD,
    FAT,
    MUSCLE,
    SKIN,
    ShellSettings,
)


@pytest.fixture(scope="module")
def heads():
    """The same head under usual and under thick shells."""
    thick = ShellSettings((10.0, 10.0), (9.0, 9.0), (16.0, 16.0))
    return [
        compose(make_head(np.random.default_rng(1), HeadSettings(shells=shells)))
        for shells in (ShellSettings(), thick)
    ]


def test_thick_shells_make_a_larger_head_around_the_same_brain(heads):
    usual, thick = heads
    np.testing.assert_array_equal(usual.brain, thick.brain)
    assert (thick.shells > 0).sum() > 1.15 * (usual.shells > 0).sum()
    assert (thick.shells == FAT).sum() > (usual.shells == FAT).sum()


def test_temporal_muscles_lie_under_skin_and_fat_beside_the_brain(heads):
    _, thick = heads
    x, y, z = thick.template_mm
    temple = (np.abs(y - 8) < 8) & (np.abs(z + 8) < 8) & (np.abs(x) > 60)
    here = thick.shells[temple & ~thick.brain]
    assert (here == MUSCLE).sum() > 0.1 * (here > 0).sum()
    assert (here == SKIN).any()


def test_the_cord_leaves_below_the_brain(heads):
    usual, _ = heads
    cord = np.argwhere(usual.shells == CORD)
    brain = np.argwhere(usual.brain)
    assert len(cord) > 500
    assert cord[:, 2].max() < np.percentile(brain[:, 2], 10)


def test_clinical_fat_is_as_bright_as_tissue_and_more():
    contrasts = [draw_contrast(np.random.default_rng(n), "clinical") for n in range(20)]
    assert min(c.shells[FAT] for c in contrasts) > 0.85
    usual = [draw_contrast(np.random.default_rng(n), "realistic") for n in range(20)]
    assert max(c.shells[FAT] for c in usual) < 0.95


def test_clinical_slices_are_thick_along_any_axis():
    drawn = [draw_protocol(np.random.default_rng(n), "clinical") for n in range(60)]
    assert {protocol.slice_axis for protocol in drawn} == {0, 1, 2}
    assert all(3 <= max(protocol.spacing_mm) <= 8.2 for protocol in drawn)
    assert any(protocol.face_cut_mm is None for protocol in drawn)
    assert any(protocol.face_cut_mm == 8 for protocol in drawn)


def test_slices_are_stacked_along_the_longest_voxels_and_along_k_where_all_are_alike():
    assert Protocol((1.0, 1.0, 1.0)).slice_axis == 2
    assert Protocol((5.0, 1.0, 1.0)).slice_axis == 0
    assert Protocol((1.0, 3.0, 1.0)).slice_axis == 1


def test_what_is_drawn_after_a_head_does_not_depend_on_its_shells():
    """So that a patient's lesions and atrophy stay the same under another scalp."""
    left = []
    for shells in (ShellSettings(), CLINICAL_SHELLS):
        rng = np.random.default_rng(4)
        make_head(rng, HeadSettings(shells=shells))
        left.append(rng.random())
    assert left[0] == left[1]
