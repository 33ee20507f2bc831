"""Effects on intensities: what they change, and what they never touch."""

import numpy as np
import pytest
import torch

from lesionwise.learning.intensity_transforms import (
    AllOf,
    AxialMean,
    BiasField,
    Blur,
    Brightness,
    Compose,
    Contrast,
    DropChannels,
    Gamma,
    LesionContrast,
    LowResolution,
    Noise,
    OnChannels,
    OneOf,
    Sharpen,
    Shift,
    blurred,
    gaussian_matrix,
    other_scanners,
    thick_slice_matrix,
)
from lesionwise.learning.spatial_transforms import apply_along_axis

PAIR = ("flair@baseline", "flair@followup")
EVERY = (
    Blur((0.5, 1.75)),
    Sharpen((0.5, 1.75)),
    AxialMean(),
    BiasField((0.1, 0.3)),
    Gamma((0.7, 1.5)),
    Gamma((0.7, 1.5), keep_moments=True),
    Contrast((0.5, 0.8)),
    Brightness((1.1, 1.3)),
    Shift((0.1, 0.3)),
    Noise((0.1, 0.3)),
    Shift((0.1, 0.3), relative=False),
    Noise((0.1, 0.3), relative=False),
    Gamma((0.7, 1.5), drawn="linear"),
    LowResolution((2.0, 4.0)),
    AllOf((Brightness((1.1, 1.3)), Shift((0.1, 0.3)))),
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
    seen = Compose((effect,))(image, PAIR, np.random.default_rng(1))
    assert seen.dtype == np.float32
    assert (seen[image == 0] == 0).all()
    assert not np.allclose(seen[image != 0], image[image != 0])
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("effect", EVERY, ids=repr)
def test_the_same_seed_gives_the_same_image(effect, image):
    seen = [Compose((effect,))(image, PAIR, np.random.default_rng(2)) for _ in range(2)]
    np.testing.assert_array_equal(*seen)


@pytest.mark.parametrize("effect", EVERY, ids=repr)
def test_probability_0_changes_nothing(effect, image):
    never = type(effect)(**{**vars(effect), "probability": 0.0})
    np.testing.assert_array_equal(Compose((never,))(image, PAIR, np.random.default_rng(3)), image)


def test_each_channel_has_its_own_effects(image):
    image[1] = image[0]
    seen = Compose((Brightness((0.5, 1.5)),))(image, PAIR, np.random.default_rng(4))
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
    marks = (Brightness((2.0, 2.0)), Brightness((3.0, 3.0)), Brightness((5.0, 5.0)))
    rng = np.random.default_rng(0)
    x = torch.ones((2, 2, 2))
    seen = [float(OneOf(marks)(x, x != 0, rng)[0, 0, 0]) for _ in range(600)]
    counts = [seen.count(mark) for mark in (2.0, 3.0, 5.0)]
    assert sum(counts) == 600
    assert min(counts) > 150


def test_background_stays_zero_and_the_seed_decides():
    rng = np.random.default_rng(1)
    image = rng.standard_normal((1, 24, 24, 24)).astype(np.float32)
    image[:, :10] = 0
    everything = other_scanners(1, 1, 1, 1, 1, 1)
    first = everything(image, ("flair@followup",), np.random.default_rng(5))
    again = everything(image, ("flair@followup",), np.random.default_rng(5))
    assert not first[:, :10].any()
    assert np.isfinite(first).all()
    assert not np.allclose(first, image)
    np.testing.assert_array_equal(first, again)


def test_intensity_changes_leave_an_empty_patch_alone():
    empty = np.zeros((1, 16, 16, 16), dtype=np.float32)
    changed = other_scanners(1, 1, 1, 1, 1, 1)(empty, ("flair@followup",), np.random.default_rng(0))
    np.testing.assert_array_equal(changed, empty)


@pytest.mark.parametrize("matrix", [gaussian_matrix(30, 0.8), thick_slice_matrix(30, 3.3)])
def test_smoothing_keeps_a_constant(matrix):
    flat = torch.full((30, 2, 2), 3.0)
    torch.testing.assert_close(apply_along_axis(0, flat, matrix), flat)


def test_thick_slices_average_across():
    ramp = torch.arange(12.0).reshape(12, 1, 1)
    seen = apply_along_axis(0, ramp, thick_slice_matrix(12, 3.0)).flatten()
    assert seen[1].item() == pytest.approx(1.0)  # the middle of the first slice
    assert seen[7].item() == pytest.approx(7.0)
    assert seen[0].item() == pytest.approx(1.0)  # nothing beyond: held


def test_dimmed_lesions_keep_a_fraction_of_their_excess():
    image = np.zeros((1, 16, 16, 16), np.float32)
    lesions = np.zeros((16, 16, 16), bool)
    lesions[4:12, 4:12, 4:12] = True
    image[0, lesions] = 2.0
    image[0, 0, 0, 0] = -3.0
    dim = LesionContrast(probability=1.0, kept_fraction=(0.5, 0.5))
    out = dim(image, lesions, np.random.default_rng(0))
    assert out[0, 8, 8, 8] == pytest.approx(1.0, abs=1e-3)
    assert out[0, 0, 0, 0] == -3.0
    assert image[0, 8, 8, 8] == 2.0


def test_lesions_are_dimmed_only_when_asked_for():
    image = np.ones((1, 8, 8, 8), np.float32)
    rng = np.random.default_rng(0)
    assert LesionContrast()(image, image[0] > 0, rng) is image
    assert LesionContrast(probability=1.0)(image, image[0] > 2, rng) is image


def test_all_of_changes_everything_or_nothing():
    both = AllOf((Brightness((2.0, 2.0)), Brightness((3.0, 3.0))), probability=0.5)
    rng = np.random.default_rng(0)
    ones = np.ones((1, 2, 2, 2), np.float32)
    seen = {float(Compose((both,))(ones, ("t1w@followup",), rng)[0, 0, 0, 0]) for _ in range(50)}
    assert seen == {1.0, 6.0}


def test_effects_together_are_the_same_on_every_channel(image):
    image[1] = image[0]
    everything = Compose(EVERY, together=True)
    seen = everything(image, PAIR, np.random.default_rng(4))
    np.testing.assert_array_equal(seen[0], seen[1])
    assert not np.array_equal(seen, everything(image, PAIR, np.random.default_rng(5)))


def test_effects_together_act_on_each_channel_by_its_own_values(image):
    image[1] *= 2
    darker = Compose((Contrast((0.5, 0.9)),), together=True)
    seen = darker(image, PAIR, np.random.default_rng(4))
    inside = image[0] != 0
    ratios = [seen[n][inside].std() / image[n][inside].std() for n in range(2)]
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-4)


def test_an_empty_channel_does_not_shift_the_draws_of_effects_together(image):
    image[1] = 0
    seen = Compose(EVERY, together=True)(image, PAIR, np.random.default_rng(4))
    assert not seen[1].any()
    assert np.isfinite(seen).all()


CHANNELS = ("flair@baseline", "flair@followup", "difference@followup")


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    ("scans", "changed"),
    [(("flair",), [0, 1]), (("difference",), [2]), (("difference", "flair"), [0, 1, 2])],
)
def test_other_scans_stay_bit_for_bit(scans, changed, together):
    rng = np.random.default_rng(0)
    image = rng.standard_normal((3, 8, 9, 10)).astype(np.float32)
    image[:, 0] = -0.0
    image[2, 1, 1, 1] = np.nan
    image.setflags(write=False)
    chosen = OnChannels(scans, (Brightness((2.0, 2.0)), Blur((1.0, 1.0))), together)
    seen = chosen(image, CHANNELS, np.random.default_rng(1))
    same = [n for n in range(3) if seen[n].tobytes() == image[n].tobytes()]
    assert same == [n for n in range(3) if n not in changed]


def test_a_scan_that_no_channel_shows_is_an_error(image):
    with pytest.raises(ValueError, match=r"no channel of t1w among flair@baseline"):
        OnChannels(("t1w",), EVERY)(image, PAIR, np.random.default_rng(0))


def test_every_channel_needs_a_name(image):
    with pytest.raises(ValueError, match="argument"):
        Compose(EVERY)(image, ("flair@followup",), np.random.default_rng(0))


@pytest.mark.parametrize("effect", EVERY, ids=repr)
def test_an_effect_takes_a_patch_of_one_slice(effect, image):
    one = image[..., 5:6]
    seen = Compose((effect,))(one, PAIR, np.random.default_rng(1))
    assert seen.shape == one.shape
    assert np.isfinite(seen).all()
    assert (seen[one == 0] == 0).all()


def test_nothing_is_averaged_across_the_only_slice(image):
    one = image[..., 5:6]
    np.testing.assert_allclose(
        Compose((AxialMean(),))(one, PAIR, np.random.default_rng(1)), one, rtol=1e-6
    )
    two_dimensional = image[0, :, :, 5]
    seen = blurred(torch.from_numpy(two_dimensional[..., None].copy()), 1.0)[..., 0].numpy()
    rows, columns = (gaussian_matrix(n, 1.0).numpy() for n in two_dimensional.shape)
    np.testing.assert_allclose(seen, rows @ two_dimensional @ columns.T, rtol=1e-4)


@pytest.mark.parametrize("flat", [0, 1, 2])
def test_thick_slices_lie_along_the_axes_of_the_plane(flat):
    rng = np.random.default_rng(0)
    shape = [12, 12, 12]
    shape[flat] = 1
    plane = torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
    for _ in range(10):
        seen = LowResolution((3.0, 3.0))(plane, plane != 0, rng)
        axis = [a for a in range(3) if a != flat]
        expected = [apply_along_axis(a, plane, thick_slice_matrix(12, 3.0)) for a in axis]
        assert any(torch.allclose(seen, e) for e in expected)


def test_a_relative_noise_scales_with_the_brain():
    x = torch.linspace(1, 2, 1000).reshape(10, 10, 10)
    seen = [
        Noise((0.5, 0.5), relative=relative)(scale * x, x > 0, np.random.default_rng(0)) - scale * x
        for relative in (True, False)
        for scale in (1.0, 10.0)
    ]
    stds = [float(noise.std()) for noise in seen]
    assert stds[1] == pytest.approx(10 * stds[0], rel=1e-3)
    assert stds[3] == pytest.approx(stds[2], rel=1e-3)
    assert stds[2] == pytest.approx(0.5, rel=0.1)


def test_a_power_is_drawn_evenly_on_the_scale_that_was_asked_for():
    x = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 1, 3)
    medians = []
    for drawn in ("linear", "log"):
        rng = np.random.default_rng(0)
        gamma = Gamma((0.25, 4.0), drawn=drawn)
        values = [float(gamma(x, x > -1, rng)[0, 0, 1]) for _ in range(800)]
        medians.append(-np.log2(np.median(values)))
    assert medians == pytest.approx([2.125, 1.0], rel=0.1)


def test_dropped_channels_are_empty_and_the_others_stay():
    rng = np.random.default_rng(0)
    image = rng.random((3, 4, 4, 4)).astype(np.float32) + 1
    names = ("flair@followup", "t1w@followup", "t2w@followup")
    counts, dropped = np.zeros(4, dtype=int), np.zeros(3, dtype=int)
    for seed in range(900):
        seen = DropChannels((0, 1, 2))(image, names, np.random.default_rng(seed))
        empty = ~seen.reshape(3, -1).any(axis=1)
        np.testing.assert_array_equal(seen[~empty], image[~empty])
        counts[empty.sum()] += 1
        dropped += empty
    assert counts[3] == 0
    assert counts[:3].min() > 250
    assert dropped.min() > 250
    assert image.all()


def test_the_only_channel_that_shows_something_is_never_dropped():
    image = np.zeros((3, 2, 2, 2), dtype=np.float32)
    image[1] = 1.0
    for seed in range(20):
        seen = DropChannels((1, 2))(image, ("a", "b", "c"), np.random.default_rng(seed))
        np.testing.assert_array_equal(seen, image)
    assert not DropChannels()(np.zeros_like(image), ("a", "b", "c"), np.random.default_rng(0)).any()
