import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionwise.networks.warp import squared_gradient, warp


def fields(shape, along=(0.0, 0.0, 0.0)):
    return torch.tensor(along).reshape(1, 3, 1, 1, 1).expand(1, 3, *shape).clone()


@settings(deadline=None)
@given(st.integers(-3, 3), st.integers(-3, 3), st.integers(-3, 3))
def test_each_voxel_gets_what_lies_where_the_field_points(i, j, k):
    image = torch.rand(1, 2, 9, 10, 11)
    moved = warp(image, fields((9, 10, 11), (float(i), float(j), float(k))))
    inner = (slice(None), slice(None), slice(3, 6), slice(3, 7), slice(3, 8))
    there = (
        slice(None),
        slice(None),
        slice(3 + i, 6 + i),
        slice(3 + j, 7 + j),
        slice(3 + k, 8 + k),
    )
    torch.testing.assert_close(moved[inner], image[there], atol=1e-5, rtol=1e-4)


def test_between_voxels_it_is_linear_and_beyond_the_border_the_nearest_counts():
    ramp = torch.arange(5.0).reshape(1, 1, 5, 1, 1).expand(1, 1, 5, 4, 3)
    moved = warp(ramp, fields((5, 4, 3), (0.25, 0.0, 0.0)))
    torch.testing.assert_close(moved[0, 0, :, 1, 1], torch.tensor([0.25, 1.25, 2.25, 3.25, 4.0]))


def test_an_axis_of_one_voxel_is_kept():
    image = torch.rand(1, 1, 4, 5, 1)
    torch.testing.assert_close(warp(image, fields((4, 5, 1))), image)


def test_a_field_of_its_own_for_each_sample():
    image = torch.rand(1, 1, 6, 6, 6).expand(2, 1, 6, 6, 6)
    field = torch.cat([fields((6, 6, 6)), fields((6, 6, 6), (0.0, 1.0, 0.0))])
    moved = warp(image, field)
    torch.testing.assert_close(moved[0], image[0])
    torch.testing.assert_close(moved[1][:, :, :5], image[1][:, :, 1:])


def test_gradients_reach_image_and_field():
    image = torch.rand(1, 1, 5, 5, 5, requires_grad=True)
    field = (0.3 * torch.ones(1, 3, 5, 5, 5)).requires_grad_()
    warp(image, field).square().sum().backward()
    assert float(image.grad.abs().sum()) > 0
    assert all(float(field.grad[0, axis].abs().sum()) > 0 for axis in range(3))


def test_squared_steps_are_added_over_axes_and_channels():
    values = torch.zeros(1, 2, 3, 3, 3)
    values[0, 0, 1, 1, 1] = 2
    values[0, 1, 1, 1, 1] = 1
    steps = squared_gradient(values)[0, 0]
    assert float(steps[1, 1, 1]) == 3 * 5  # to the next along each axis
    assert float(steps[0, 1, 1]) == float(steps[1, 0, 1]) == float(steps[1, 1, 0]) == 5
    assert float(steps.sum()) == 30
    assert squared_gradient(torch.ones(1, 1, 2, 2, 1)).sum() == pytest.approx(0)
