"""Effects on intensities: what they change, and what they never touch."""

import numpy as np
import pytest
import torch

from lesionwise.learning.effects import (
    AxialMean,
    BiasField,
    Blur,
    Contrast,
    Effects,
    Gain,
    Gamma,
    Noise,
    OneOf,
    Sharpen,
    Shift,
    blurred,
)

EVERY = (
    Blur((0.5, 1.75)),
    Sharpen((0.5, 1.75)),
    AxialMean(),
    BiasField((0.1, 0.3)),
    Gamma((0.7, 1.5)),
    Gamma((0.7, 1.5), keep_moments=True),
    Contrast((0.5, 0.8)),
    Gain((1.1, 1.3)),
    Shift((0.1, 0.3)),
    Noise((0.1, 0.3)),
)


@pytest.fixture
def image():
    rng = np.random.default_rng(0)
    image = 5 + rng.standard_normal((2, 10, 11, 12)).astype(np.float32)
    image[:, :3] = 0
    return image


def impulse(n=9):
    x = torch.zeros((3, 3, n))
    x[1, 1, n // 2] = 1
    return x


@pytest.mark.parametrize("effect", EVERY, ids=repr)
def test_an_effect_changes_the_brain_and_leaves_the_outside_at_0(effect, image):
    before = image.copy()
    seen = Effects((effect,))(image, np.random.default_rng(1))
    assert seen.dtype == np.float32
    assert (seen[image == 0] == 0).all()
    assert not np.allclose(seen[image != 0], image[image != 0])
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("effect", EVERY, ids=repr)
def test_the_same_seed_gives_the_same_image(effect, image):
    seen = [Effects((effect,))(image, np.random.default_rng(2)) for _ in range(2)]
    np.testing.assert_array_equal(*seen)


@pytest.mark.parametrize("effect", EVERY, ids=repr)
def test_probability_0_changes_nothing(effect, image):
    never = type(effect)(**{**vars(effect), "probability": 0.0})
    np.testing.assert_array_equal(Effects((never,))(image, np.random.default_rng(3)), image)


def test_each_channel_has_its_own_effects(image):
    image[1] = image[0]
    seen = Effects((Gain((0.5, 1.5)),))(image, np.random.default_rng(4))
    assert not np.allclose(seen[0], seen[1])


@pytest.mark.parametrize(("size", "where"), [(2, [4, 5]), (3, [3, 4, 5]), (4, [3, 4, 5, 6])])
def test_an_axial_mean_spreads_a_voxel_along_k_alone(size, where):
    x = impulse()
    seen = AxialMean((size,))(x, x != 0, np.random.default_rng(0))
    expected = torch.zeros_like(x)
    expected[1, 1, where] = 1 / size
    torch.testing.assert_close(seen, expected)


def test_sharpening_adds_what_blurring_takes_away():
    x = torch.randn((6, 7, 8), generator=torch.Generator().manual_seed(0))
    seen = Sharpen((1.0, 1.0))(x, x != 0, np.random.default_rng(0))
    torch.testing.assert_close(seen - x, x - blurred(x, 1.0))


def test_a_gamma_keeps_the_least_and_the_greatest_value():
    x = torch.linspace(2, 10, 27).reshape(3, 3, 3)
    seen = Gamma((2.0, 2.0))(x, x != 0, np.random.default_rng(0))
    assert float(seen.min()) == pytest.approx(2)
    assert float(seen.max()) == pytest.approx(10, abs=1e-4)
    assert float(seen[1, 1, 1]) == pytest.approx(2 + 8 * 0.25, abs=1e-3)


def test_a_gain_acts_from_the_value_named_zero():
    x = torch.full((4, 4, 4), -4.0)
    seen = BiasField((0.3, 0.3), zero=-4.0)(x, x != 0, np.random.default_rng(0))
    torch.testing.assert_close(seen, x)


def test_one_of_takes_each_about_as_often():
    marks = (Gain((2.0, 2.0)), Gain((3.0, 3.0)), Gain((5.0, 5.0)))
    rng = np.random.default_rng(0)
    x = torch.ones((2, 2, 2))
    seen = [float(OneOf(marks)(x, x != 0, rng)[0, 0, 0]) for _ in range(600)]
    counts = [seen.count(mark) for mark in (2.0, 3.0, 5.0)]
    assert sum(counts) == 600
    assert min(counts) > 150
