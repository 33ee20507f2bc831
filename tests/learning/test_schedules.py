"""Where the learning rate goes, worked out by hand."""

import math

import pytest

from lesionwise.learning.schedules import (
    Constant,
    CosineRestarts,
    HalfCosine,
    LinearDecay,
    Moment,
    Patience,
    Piecewise,
    Plateau,
    Polynomial,
    StepDecay,
)


def at(epoch, epochs=100, history=()):
    return Moment(epoch / epochs, epochs, history)


def rows(metric, values, steps_per_epoch=10):
    return [
        {"epoch": n, "steps": n * steps_per_epoch} | ({} if v is None else {metric: v})
        for n, v in enumerate(values, start=1)
    ]


@pytest.mark.parametrize(
    ("schedule", "epoch", "factor"),
    [
        (Constant(), 77, 1.0),
        (HalfCosine(), 0, 1.0),
        (HalfCosine(), 50, 0.5),
        (HalfCosine(), 100, 0.0),
        (HalfCosine(end=0.1), 100, 0.1),
        (CosineRestarts(period=10), 5, 0.5),
        (CosineRestarts(period=10), 10, 1.0),
        (CosineRestarts(period=10, end=0.01), 9.999999, 0.01),
        (Polynomial(), 0.9, 1.0),
        (Polynomial(), 50, 0.5**0.9),
        (StepDecay(0.9), 2.5, 0.81),
        (StepDecay(0.1, every=4), 8, 0.01),
        (Piecewise(((0.5, 0.1), (0.8, 0.01))), 49, 1.0),
        (Piecewise(((0.5, 0.1), (0.8, 0.01))), 50, 0.1),
        (Piecewise(((0.5, 0.1), (0.8, 0.01))), 80, 0.01),
        (LinearDecay(constant=25), 25, 1.0),
        (LinearDecay(constant=25), 62.5, 0.5),
        (LinearDecay(constant=25), 100, 0.0),
    ],
)
def test_factors(schedule, epoch, factor):
    assert schedule.factor(at(epoch)) == pytest.approx(factor, abs=1e-6)


def test_a_plateau_lowers_the_rate_after_its_patience_and_counts_again():
    schedule = Plateau(metric="total", factor_each=0.2, patience=2)
    falling = rows("total", [1.0, 0.9, 0.8])
    assert schedule.factor(at(3, history=falling)) == 1.0
    assert schedule.factor(at(4, history=rows("total", [1.0, 0.9, 0.9]))) == 1.0
    still = rows("total", [1.0, 0.9, 0.9, 0.9])
    assert schedule.factor(at(4, history=still)) == pytest.approx(0.2)
    stiller = rows("total", [1.0, 0.9, 0.9, 0.9, 0.9, 0.9])
    assert schedule.factor(at(6, history=stiller)) == pytest.approx(0.04)


def test_a_gain_below_the_least_is_none():
    schedule = Plateau(metric="total", patience=2, least_gain=0.005)
    assert schedule.factor(at(3, history=rows("total", [1.0, 0.996, 0.9955]))) == pytest.approx(0.1)
    assert schedule.factor(at(3, history=rows("total", [1.0, 0.99, 0.98]))) == 1.0


def test_epochs_without_the_value_are_waited_through():
    schedule = Plateau("validation_dsc", patience=3, larger_is_better=True)
    history = rows("validation_dsc", [0.5, None, None, 0.6])
    assert schedule.factor(at(4, history=history)) == 1.0


def test_patience_ends_after_so_many_steps_without_gain():
    stop = Patience(steps=20)
    assert not stop.is_over(rows("validation_dsc", [0.1, 0.3, 0.2]))
    assert stop.is_over(rows("validation_dsc", [0.1, 0.3, 0.2, 0.2]))
    assert not stop.is_over(rows("validation_dsc", [0.1, 0.3, 0.2, 0.31]))
    assert not stop.is_over(rows("total", [1.0] * 50))


def test_an_equal_value_is_no_gain():
    assert Patience(steps=20).is_over(rows("validation_dsc", [0.3, 0.3, 0.3]))


def test_a_training_cut_short_runs_through_the_whole_schedule():
    assert HalfCosine().factor(Moment(share=1.0, epochs=10**6)) == pytest.approx(0)
    assert math.isclose(Moment(share=0.25, epochs=8).epoch, 2)
