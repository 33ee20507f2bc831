import pytest

from lesionwise.methods.nnunet.settings import (
    Adam,
    Augmentation,
    InstanceHeads,
    Learning,
    LesionEnhancement,
    Plans,
    Plateau,
    Polynomial,
    from_json,
    to_json,
)


@pytest.mark.parametrize(
    "part",
    [
        Plans(spacing_mm=(1.0, 0.5, 0.5), first_axis="i"),
        Learning(optimizer=Adam(), schedule=Plateau()),
        Augmentation(mirror=("i",), enhancement=LesionEnhancement()),
        InstanceHeads(),
        None,
    ],
)
def test_settings_survive_json(part):
    assert from_json(to_json(part)) == part


def test_polynomial_rate_falls_from_start_to_last():
    schedule = Polynomial(power=0.9, last=1e-5)
    assert schedule.rate(1e-4, 0.0, [], []) == pytest.approx(1e-4)
    assert schedule.rate(1e-4, 0.5, [], []) == pytest.approx(1e-5 + 9e-5 * 0.5**0.9)
    assert schedule.rate(1e-4, 1.0, [], []) == pytest.approx(1e-5)


def test_plateau_divides_after_patience_without_a_drop_of_either_loss():
    schedule = Plateau(divisor=5, patience_epochs=30, least_drop=0.005)
    flat = [1.0] * 31
    assert schedule.rate(0.01, 0, flat[:30], flat[:30]) == 0.01
    assert schedule.rate(0.01, 0, flat, flat) == pytest.approx(0.002)
    assert schedule.rate(0.01, 0, [1.0] * 61, [1.0] * 61) == pytest.approx(0.0004)


def test_plateau_is_left_alone_while_one_loss_drops():
    schedule = Plateau(divisor=5, patience_epochs=30, least_drop=0.005)
    falling = [1 - 0.005 * n for n in range(61)]
    assert schedule.rate(0.01, 0, [1.0] * 61, falling) == 0.01
    assert schedule.rate(0.01, 0, falling, [1.0] * 61) == 0.01


def test_plateau_does_not_count_drops_below_the_least_one_by_one():
    schedule = Plateau(divisor=5, patience_epochs=2, least_drop=0.005)
    slow = [1.0, 0.997, 0.994, 0.991]  # the second drop of 0.003 adds up to 0.006
    assert schedule.rate(0.01, 0, slow[:3], slow[:3]) == 0.01
    assert schedule.rate(0.01, 0, [1.0, 0.997, 0.997], [1.0] * 3) == pytest.approx(0.002)
