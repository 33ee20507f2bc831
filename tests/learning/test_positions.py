"""Lists of patches and the orders in which they are learned."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionwise.learning.positions import (
    EqualClasses,
    EveryPatch,
    EverySlice,
    InMiddleSlice,
    MiddleInside,
    NonzeroPatches,
    PatchPosition,
    PositiveFraction,
    PositivePatches,
    RegularGrid,
    axes_with_last,
    in_turn,
)

POSITIVE = np.array([True, False, False, True, False, False, False, False])


def test_every_slice_has_one_place_for_each_normal():
    positions = EverySlice(normals=(0, 1, 2)).of((4, 6, 8), (6, 6, 1))
    assert [p.axes for p in positions].count((1, 2, 0)) == 4
    assert [p.axes for p in positions].count((0, 2, 1)) == 6
    assert [p.axes for p in positions].count((0, 1, 2)) == 8


def test_a_stack_of_slices_reaches_beyond_both_ends():
    starts = [p.start for p in EverySlice().of((4, 4, 3), (4, 4, 3))]
    assert starts == [(0, 0, -1), (0, 0, 0), (0, 0, 1)]


def test_slices_are_centered_in_the_plane():
    assert EverySlice().of((4, 10, 1), (8, 8, 1))[0].start == (-2, 1, 0)


@given(
    shape=st.tuples(*[st.integers(1, 20)] * 3),
    size=st.tuples(*[st.integers(1, 8)] * 3),
    data=st.data(),
)
def test_a_grid_whose_steps_leave_no_gap_covers_every_voxel(shape, size, data):
    stride = tuple(data.draw(st.integers(1, n)) for n in size)
    seen = np.zeros(shape, dtype=bool)
    for position in RegularGrid(stride).of(shape, size):
        box = tuple(slice(max(0, a), a + n) for a, n in zip(position.start, size, strict=True))
        seen[box] = True
    assert seen.all()


def test_a_grid_can_have_another_axis_last():
    order = axes_with_last(0)
    assert order == (1, 2, 0)
    assert {p.axes for p in RegularGrid((4, 4, 1), normals=(0,)).of((3, 8, 8), (4, 4, 1))} == {
        order
    }


def test_every_place_comes_once_an_epoch_and_in_another_order():
    first, second = (EveryPatch().order(POSITIVE, epoch, 0) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(8))
    assert list(first) != list(second)


@given(n=st.integers(1, 30), count=st.integers(1, 40), seed=st.integers(0, 9))
def test_members_in_turn_come_once_before_any_comes_twice(n, count, seed):
    members = np.arange(n) + 100
    row = np.concatenate([in_turn(members, e * count, count, seed) for e in range(4)])
    for first in range(0, len(row) - n + 1, n):
        assert sorted(row[first : first + n]) == list(members)
    counts = np.bincount(row - 100, minlength=n)
    assert counts.max() - counts.min() <= 1


def test_empty_patches_are_each_taken_once_before_any_is_taken_again():
    balance = PositivePatches(empty_fraction=0.5, times=2)
    assert balance.kept(POSITIVE) == 4 + 3
    epochs = [balance.order(POSITIVE, epoch, 3) for epoch in (0, 1)]
    for order in epochs:
        assert sorted(n for n in order if POSITIVE[n]) == [0, 0, 3, 3]
    assert sorted(n for order in epochs for n in order if not POSITIVE[n]) == [1, 2, 4, 5, 6, 7]


def test_classes_are_made_equal_by_repeating_the_rarer():
    balance = EqualClasses()
    order = balance.order(POSITIVE, 0, 0)
    assert len(order) == balance.kept(POSITIVE) == 12
    assert POSITIVE[order].sum() == 6
    assert np.bincount(order, minlength=8)[[0, 3]].tolist() == [3, 3]


def test_a_fraction_of_an_epoch_holds_lesions():
    balance = PositiveFraction(fraction=0.3, per_epoch=10)
    assert POSITIVE[balance.order(POSITIVE, 5, 0)].sum() == 3


@pytest.mark.parametrize("balance", [EqualClasses(), PositiveFraction(0.5), PositivePatches(1.0)])
@pytest.mark.parametrize("all_of_them", [True, False])
def test_one_class_alone_is_learned_as_it_is(balance, all_of_them):
    same = np.full(5, all_of_them)
    order = balance.order(same, 0, 0)
    assert len(order) == balance.kept(same)
    assert set(order) <= set(range(5))


def test_empty_patches_are_left_out():
    image = np.zeros((8, 8, 2))
    image[5, 6, 1] = 1.0
    keeps = NonzeroPatches()
    positions = RegularGrid((4, 4, 1)).of(image.shape, (4, 4, 1))
    kept = [p.start for p in positions if keeps([np.zeros_like(image), image], p, (4, 4, 1))]
    assert kept == [(4, 4, 1)]


def test_a_patch_that_only_its_part_beyond_the_volume_could_fill_is_empty():
    image = np.zeros((4, 4, 4))
    image[3, 3, 3] = 1.0
    assert not NonzeroPatches()([image], PatchPosition(axes_with_last(2), (-3, -3, -3)), (4, 4, 4))
    assert not NonzeroPatches()([image], PatchPosition(axes_with_last(2), (-9, 0, 0)), (4, 4, 4))
    assert NonzeroPatches()([image], PatchPosition(axes_with_last(2), (3, 3, 3)), (4, 4, 4))


@pytest.mark.parametrize(
    ("start", "kept"),
    [((0, 0, 0), True), ((0, 0, 1), False), ((-9, 0, 0), False), ((9, 0, 0), False)],
)
def test_patches_whose_middle_voxel_is_in_the_brain_are_kept(start, kept):
    image = np.zeros((8, 8, 8))
    image[2, 2, 2] = -0.5
    position = PatchPosition(axes_with_last(2), start)
    assert MiddleInside()([np.zeros_like(image), image], position, (4, 4, 4)) is kept


@pytest.mark.parametrize("slices", [3, 5])
def test_a_stack_is_judged_by_its_middle_slice(slices):
    stack = np.zeros((2, 2, slices), dtype=bool)
    stack[0, 0, slices // 2 - 1] = True
    assert not InMiddleSlice()(stack)
    stack[1, 1, slices // 2] = True
    assert InMiddleSlice()(stack)
