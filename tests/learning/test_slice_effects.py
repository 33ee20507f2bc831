"""Effects in the plane of slices."""

import numpy as np
import pytest
import torch

from lesionwise.learning.intensity_transforms import Blur, Compose, Sharpen
from lesionwise.learning.slice_effects import (
    DownsampleSlices,
    EachSlice,
    Exposure,
    LinearGradient,
    LocalContrast,
    RadialGradient,
)

EVERY = (
    EachSlice(Blur((0.8, 1.2))),
    EachSlice(Sharpen((0.8, 1.2))),
    DownsampleSlices((2.0, 3.0)),
    LocalContrast(),
    Exposure((1.2, 1.4)),
    LinearGradient((0.2, 0.4)),
    RadialGradient((0.2, 0.4)),
)
EVERYWHERE = torch.ones((24, 20, 3), dtype=torch.bool)


def rng(seed=0):
    return np.random.default_rng(seed)


def stack(seed=0):
    return torch.from_numpy(rng(seed).normal(5, 1, (24, 20, 3)).astype(np.float32))


@pytest.mark.parametrize("effect", EVERY, ids=lambda e: type(e).__name__)
def test_an_effect_changes_the_image_and_not_its_input(effect):
    image = stack()
    before = image.clone()
    changed = effect(image, EVERYWHERE, rng())
    assert changed.shape == image.shape
    assert changed.dtype == torch.float32
    assert not torch.allclose(changed, image)
    torch.testing.assert_close(image, before, rtol=0, atol=0)
    torch.testing.assert_close(effect(image, EVERYWHERE, rng()), changed, rtol=0, atol=0)


@pytest.mark.parametrize("effect", EVERY, ids=lambda e: type(e).__name__)
def test_what_lies_outside_the_brain_stays_0(effect):
    image = np.array(stack())[None]
    image[:, :6] = 0
    changed = Compose((effect,))(image, ("flair@followup",), rng())
    assert not changed[:, :6].any()
    assert np.isfinite(changed).all()


@pytest.mark.parametrize("effect", EVERY, ids=lambda e: type(e).__name__)
def test_one_slice_of_a_stack_never_reaches_another(effect):
    image = stack()
    image[:, :, 0] = 3.0
    other = image.clone()
    low, high = image.min(), image.max()
    other[:, :, 2] = stack(1)[:, :, 2].clamp(float(low), float(high))
    other[0, 0, 2], other[0, 1, 2] = low, high
    inside = EVERYWHERE
    first = effect(image, inside, rng())[:, :, :2]
    second = effect(other, inside, rng())[:, :, :2]
    torch.testing.assert_close(first, second)


def test_all_slices_are_changed_alike():
    image = stack()[:, :, :1].expand(24, 20, 3).contiguous()
    for effect in EVERY:
        changed = effect(image, EVERYWHERE, rng(4))
        torch.testing.assert_close(changed, changed[:, :, :1].expand_as(changed))


def test_a_linear_gradient_keeps_the_middle_and_its_zero():
    flat = torch.full((21, 21, 2), 2.0)
    changed = LinearGradient((0.4, 0.4))(flat, EVERYWHERE, rng(1))
    assert float(changed[10, 10, 0]) == pytest.approx(2.0)
    assert float(changed.max()) == pytest.approx(2.4)
    assert float(changed.min()) == pytest.approx(1.6)
    kept = LinearGradient((0.4, 0.4), zero=2.0)(flat, EVERYWHERE, rng(1))
    torch.testing.assert_close(kept, flat)


def test_a_radial_gradient_is_one_at_its_point_and_reaches_its_change_at_a_corner():
    flat = torch.full((21, 31, 1), 2.0)
    changed = RadialGradient((0.3, 0.3))(flat, EVERYWHERE, rng(2))
    ratio = changed / 2.0 - 1
    assert float(ratio.abs().max()) == pytest.approx(0.3, abs=1e-6)
    assert float(ratio.abs().min()) < 0.02


def test_local_contrast_keeps_the_range_and_a_flat_stack():
    image = stack()
    changed = LocalContrast()(image, EVERYWHERE, rng())
    assert float(changed.min()) >= float(image.min()) - 1e-4
    assert float(changed.max()) <= float(image.max()) + 1e-4
    assert float(changed.std()) > float(image.std())
    flat = torch.full((16, 16, 3), 2.0)
    inside = torch.ones_like(flat, dtype=torch.bool)
    torch.testing.assert_close(LocalContrast()(flat, inside, rng()), flat)


def test_a_higher_limit_changes_local_contrast_more():
    image = torch.from_numpy(rng().normal(5, 1, (64, 64, 1)).astype(np.float32))
    image[:32] += 10
    inside = torch.ones_like(image, dtype=torch.bool)
    little, much = (
        LocalContrast((limit, limit))(image, inside, rng()) for limit in (1 / 256, 16 / 256)
    )
    assert float((much - image).abs().mean()) > float((little - image).abs().mean())


def test_an_exposure_multiplies_from_its_zero_on():
    image = stack()
    changed = Exposure((1.3, 1.3), zero=-4.0)(image, EVERYWHERE, rng())
    torch.testing.assert_close(changed + 4, 1.3 * (image + 4))


def test_downsampling_keeps_a_constant_and_the_mean():
    flat = torch.full((20, 20, 3), 4.0)
    torch.testing.assert_close(DownsampleSlices((2.0, 3.0))(flat, EVERYWHERE, rng()), flat)
    image = stack()
    changed = DownsampleSlices((2.0, 2.0))(image, EVERYWHERE, rng())
    assert float(changed.mean()) == pytest.approx(float(image.mean()), abs=0.05)
    assert float(changed.std()) < float(image.std())
