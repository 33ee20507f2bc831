"""What the brain's network sees, and how its answer comes back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy.spatial.transform import Rotation

from lesionwise.networks.unet import UNet
from lesionwise.preprocess.brain_network import (
    MULTIPLE,
    WORKING_MM,
    brain_probability,
    brain_unet,
    normalized,
    read_network,
    working_head,
    world_grid,
)
from lesionwise.types import Grid, InputError, Volume


def thick_oblique(shape=(60, 50, 20), spacing=(2.0, 2.0, 6.0), degrees=20):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("y", degrees, degrees=True).as_matrix() * spacing
    affine[:3, 3] = (-70, 30, -40)
    return Grid(shape, affine)


@given(
    st.tuples(*[st.integers(1, 90)] * 3),
    st.tuples(*[st.floats(0.5, 8)] * 3),
    st.tuples(*[st.floats(-180, 180)] * 3),
    st.integers(1, 16),
)
@settings(max_examples=40, deadline=None)
def test_a_world_grid_covers_every_voxel_of_the_scan(shape, spacing, degrees, multiple):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * spacing
    scan = Grid(shape, affine)
    grid = world_grid(scan, 2.5, multiple)
    assert all(n % multiple == 0 for n in grid.shape)
    np.testing.assert_allclose(grid.affine[:3, :3], 2.5 * np.eye(3))
    corners = scan.world_mm(
        np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in shape])).reshape(3, -1).T
    )
    index = (corners - grid.affine[:3, 3]) / 2.5
    assert (index >= -0.5 - 1e-3).all()
    assert (index <= np.array(grid.shape) - 0.5 + 1e-3).all()


def test_a_field_of_view_larger_than_any_head_is_cut_to_its_middle():
    grid = world_grid(Grid((400, 100, 100), np.diag([2.0, 2, 2, 1])), 2.5, 16, largest_mm=480)
    assert grid.shape[0] * 2.5 == 480
    assert grid.world_mm(np.array([[(grid.shape[0] - 1) / 2, 0, 0]]))[0, 0] == pytest.approx(399)


def test_intensities_do_not_depend_on_unit_and_background():
    head = np.random.default_rng(0).gamma(2, 50, (12, 12, 12)).astype(np.float32)
    one, other = normalized(head), normalized(7 * head + 300)
    np.testing.assert_allclose(one, other, atol=1e-4)
    assert one.min() == 0
    assert one.max() <= 2


def test_a_constant_array_is_dark():
    assert not normalized(np.full((4, 4, 4), 9.0)).any()


def test_the_working_head_has_the_networks_grid():
    head = working_head(Volume(np.ones((60, 50, 20), np.uint16), thick_oblique()))
    assert all(n % MULTIPLE == 0 for n in head.grid.shape)
    np.testing.assert_allclose(head.grid.spacing_mm, WORKING_MM)
    assert head.array.dtype == np.float32


def test_what_the_network_says_comes_back_to_where_it_was_seen():
    """A network that takes the bright for brain finds the bright ball of an oblique scan."""
    grid = thick_oblique()
    place = grid.world_mm(np.indices(grid.shape).reshape(3, -1).T).reshape(*grid.shape, 3)
    middle = grid.world_mm(np.array([[30, 25, 10]]))[0]
    ball = np.linalg.norm(place - middle, axis=3) < 35
    scan = Volume(np.where(ball, 100.0, 0.0).astype(np.float32), grid)
    found = brain_probability(scan, lambda head: 60 * (head - 0.25))
    assert found.grid is grid
    inside = found.array > 0.5
    assert 2 * (inside & ball).sum() / (inside.sum() + ball.sum()) > 0.95


def test_weights_are_read_and_a_head_gives_logits_of_its_shape(tmp_path):
    torch.manual_seed(0)
    save_file(brain_unet().state_dict(), tmp_path / "brain.safetensors")
    network = read_network(tmp_path / "brain.safetensors")
    logits = network(np.random.default_rng(0).random((32, 16, 16), dtype=np.float32))
    assert logits.shape == (32, 16, 16)
    assert np.isfinite(logits).all()


def test_weights_of_another_network_are_refused(tmp_path):
    save_file(UNet(1, 1, (4, 8), "instance").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="weights of another network"):
        read_network(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="no such weights file"):
        read_network(tmp_path / "none.safetensors")


def test_a_scan_smaller_than_the_network_can_halve_has_an_answer():
    scan = Volume(
        np.random.default_rng(0).random((8, 8, 8)).astype(np.float32), Grid((8, 8, 8), np.eye(4))
    )
    seen = []

    def network(head):
        seen.append(head.shape)
        return np.zeros_like(head)

    assert brain_probability(scan, network).array.shape == (8, 8, 8)
    assert seen == [(32, 32, 32)]
