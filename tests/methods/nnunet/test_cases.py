import numpy as np
import pytest
from boxes import study
from hypothesis import given
from hypothesis import strategies as st

from lesionwise.methods.nnunet.cases import (
    AugmentedCopies,
    Case,
    DropPlainSlices,
    images_of,
    mask_entropy,
)
from lesionwise.types import InputError, Study, Visit, Volume


def slices(*counts, side=512):
    """A case with one slice along k for each number of lesion voxels."""
    labels = np.zeros((side * side, len(counts)), np.uint8)
    for k, count in enumerate(counts):
        labels[:count, k] = 1
    labels = labels.reshape(side, side, len(counts))
    return Case(labels[None].astype(np.float32), labels, (1.0, 1.0, 1.0))


def test_slices_of_512_with_less_than_226_lesion_voxels_go():
    kept = list(DropPlainSlices()(slices(0, 225, 226, 400), np.random.default_rng(0)))
    assert len(kept) == 1
    assert kept[0].labels.sum(axis=(0, 1)).tolist() == [226, 400]
    assert kept[0].images.shape == (1, 512, 512, 2)


def test_a_case_without_a_slice_to_learn_from_goes():
    assert list(DropPlainSlices()(slices(0, 100), np.random.default_rng(0))) == []


def test_slices_lie_along_the_axis_that_is_named():
    case = slices(0, 20, side=16)
    turned = Case(
        case.images.transpose(0, 3, 1, 2), case.labels.transpose(2, 0, 1), case.spacing_mm
    )
    kept = list(DropPlainSlices(axis="i")(turned, np.random.default_rng(0)))
    assert kept[0].labels.shape == (1, 16, 16)


@given(st.floats(0, 1))
def test_entropy_is_that_of_the_complement(share):
    assert mask_entropy(np.array(share)) == pytest.approx(mask_entropy(np.array(1 - share)))
    assert 0 <= mask_entropy(np.array(share)) <= 1


def test_half_a_slice_has_one_bit():
    assert mask_entropy(np.array(0.5)) == pytest.approx(1.0)


def block():
    labels = np.zeros((20, 24, 3), np.uint8)
    labels[8:12, 10:16] = 1
    return Case(labels[None].astype(np.float32), labels, (1.0, 1.0, 1.0))


def test_five_copies_stand_beside_the_case_and_differ():
    case = block()
    made = list(AugmentedCopies()(case, np.random.default_rng(0)))
    assert len(made) == 6
    assert made[0] is case
    assert len({copy.images.tobytes() for copy in made}) == 6


def test_copies_move_labels_with_their_image():
    for copy in AugmentedCopies()(block(), np.random.default_rng(1)):
        both = ((copy.images[0] > 0.5) & (copy.labels > 0)).sum()
        assert 2 * both / ((copy.images[0] > 0.5).sum() + (copy.labels > 0).sum()) > 0.9


def test_copies_without_any_range_are_the_case():
    still = AugmentedCopies(2, rotation_deg=0, shift=0, shear_deg=0, zoom=0, flip=False)
    for copy in still(block(), np.random.default_rng(0)):
        np.testing.assert_array_equal(copy.labels, block().labels)


def test_a_flip_mirrors_left_and_right_only():
    flip = AugmentedCopies(20, rotation_deg=0, shift=0, shear_deg=0, zoom=0, flip=True)
    case = Case(np.random.default_rng(0).random((1, 6, 5, 1)), np.zeros((6, 5, 1), int), (1, 1, 1))
    copies = list(flip(case, np.random.default_rng(0)))[1:]
    kinds = {
        "same" if np.allclose(c.images, case.images) else
        "mirrored" if np.allclose(c.images, case.images[:, ::-1]) else "other" for c in copies
    }  # fmt: skip
    assert kinds == {"same", "mirrored"}


def test_scans_are_zero_outside_the_brain():
    one = study(0)
    images = images_of(one, ("flair",), within_brain=True)
    assert images.shape == (1, 28, 30, 26)
    assert images[0, 0, 0, 0] == 0
    assert images_of(one, ("flair",), within_brain=False)[0, 0, 0, 0] == 300


def test_visits_come_in_time_order():
    two = study(0, visits=2)
    images = images_of(two, ("flair",), within_brain=True)
    lesion = two.changes["new"].array > 0
    assert images[1][lesion].mean() > images[0][lesion].mean() + 50


def test_a_missing_scan_is_named():
    with pytest.raises(InputError, match="sub-0: no t1w scan"):
        images_of(study(0), ("flair", "t1w"), within_brain=True)


def test_voxels_that_are_not_finite_are_refused():
    one = study(0)
    one.followup.scans["flair"].array[3, 3, 3] = np.inf
    with pytest.raises(InputError, match="flair has voxels that are not finite"):
        images_of(one, ("flair",), within_brain=True)


def test_visits_on_different_grids_are_refused():
    two = study(0, visits=2)
    grid = type(two.baseline.scans["flair"].grid)((2, 2, 2), np.eye(4))
    other = Visit({"flair": Volume(np.ones((2, 2, 2), np.float32), grid)})
    with pytest.raises(InputError, match="different grids"):
        images_of(Study("0", (other, two.followup)), ("flair",), within_brain=True)
