"""Where the learning rate goes, worked out by hand."""

import math

import pytest

from lesionwise.learning.schedules import (
    Constant,
    CosineAnnealing,
    CosineRestarts,
    EarlyStopping,
    JointPlateau,
    LinearDecay,
    Piecewise,
    Plateau,
    Polynomial,
    StepDecay,
    TrainingProgress,
    stretched,
)


def at(epoch, epochs=100, history=()):
    return TrainingProgress(epoch / epochs, epochs, history)


def rows(metric, values, steps_per_epoch=10):
    return [
        {"epoch": n, "steps": n * steps_per_epoch} | ({} if v is None else {metric: v})
        for n, v in enumerate(values, start=1)
    ]


@pytest.mark.parametrize(
    ("schedule", "epoch", "factor"),
    [
        (Constant(), 77, 1.0),
        (CosineAnnealing(), 0, 1.0),
        (CosineAnnealing(), 50, 0.5),
        (CosineAnnealing(), 100, 0.0),
        (CosineAnnealing(end=0.1), 100, 0.1),
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
        (LinearDecay(constant_epochs=25), 25, 1.0),
        (LinearDecay(constant_epochs=25), 62.5, 0.5),
        (LinearDecay(constant_epochs=25), 100, 0.0),
    ],
)
def test_factors(schedule, epoch, factor):
    assert schedule.factor(at(epoch)) == pytest.approx(factor, abs=1e-6)


@pytest.mark.parametrize(
    "schedule",
    [
        StepDecay(0.9),
        StepDecay(0.1, every=4),
        CosineRestarts(period=7, end=0.01),
        LinearDecay(constant_epochs=25),
        CosineAnnealing(),
    ],
)
@pytest.mark.parametrize("epoch", [0, 3.5, 40, 99.5])
def test_a_stretched_schedule_has_the_same_course_over_other_epochs(schedule, epoch):
    longer = stretched(schedule, 250)
    now = TrainingProgress(fraction=epoch / 100, epochs=25_000)
    assert longer.factor(now) == pytest.approx(schedule.factor(at(epoch)), abs=1e-6)


def test_a_plateau_lowers_the_rate_after_its_patience_and_counts_again():
    schedule = Plateau(metric="total", gamma=0.2, patience=2)
    falling = rows("total", [1.0, 0.9, 0.8])
    assert schedule.factor(at(3, history=falling)) == 1.0
    assert schedule.factor(at(4, history=rows("total", [1.0, 0.9, 0.9]))) == 1.0
    still = rows("total", [1.0, 0.9, 0.9, 0.9])
    assert schedule.factor(at(4, history=still)) == pytest.approx(0.2)
    stiller = rows("total", [1.0, 0.9, 0.9, 0.9, 0.9, 0.9])
    assert schedule.factor(at(6, history=stiller)) == pytest.approx(0.04)


def test_an_improvement_below_the_smallest_is_none():
    schedule = Plateau(metric="total", patience=2, min_improvement=0.005)
    assert schedule.factor(at(3, history=rows("total", [1.0, 0.996, 0.9955]))) == pytest.approx(0.1)
    assert schedule.factor(at(3, history=rows("total", [1.0, 0.99, 0.98]))) == 1.0


def test_epochs_without_the_value_are_waited_through():
    schedule = Plateau("validation_dsc", patience=3, larger_is_better=True)
    history = rows("validation_dsc", [0.5, None, None, 0.6])
    assert schedule.factor(at(4, history=history)) == 1.0


def test_a_training_stops_after_so_many_steps_without_improvement():
    stop = EarlyStopping(patience=20)
    assert not stop.should_stop(rows("validation_dsc", [0.1, 0.3, 0.2]))
    assert stop.should_stop(rows("validation_dsc", [0.1, 0.3, 0.2, 0.2]))
    assert not stop.should_stop(rows("validation_dsc", [0.1, 0.3, 0.2, 0.31]))
    assert not stop.should_stop(rows("total", [1.0] * 50))


def test_an_equal_value_is_no_improvement():
    assert EarlyStopping(patience=20).should_stop(rows("validation_dsc", [0.3, 0.3, 0.3]))


def test_a_training_cut_short_runs_through_the_whole_schedule():
    assert CosineAnnealing().factor(TrainingProgress(fraction=1.0, epochs=10**6)) == pytest.approx(
        0
    )
    assert math.isclose(TrainingProgress(fraction=0.25, epochs=8).epoch, 2)


LOSS_STOPS = EarlyStopping(3, "epochs", metric="validation_loss", larger_is_better=False)


def test_a_training_stops_when_the_validation_loss_no_longer_falls():
    falling = rows("validation_loss", [0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert not LOSS_STOPS.should_stop(falling)
    assert not LOSS_STOPS.should_stop(rows("validation_loss", [0.9, 0.5, 0.6, 0.7]))
    assert LOSS_STOPS.should_stop(rows("validation_loss", [0.9, 0.5, 0.6, 0.7, 0.5]))


def test_the_rate_falls_with_the_validation_loss_before_the_training_stops():
    plateau = Plateau("validation_loss", gamma=0.1, patience=2)
    flat = rows("validation_loss", [0.9, 0.5, 0.5, 0.5])
    assert plateau.factor(at(4, history=flat)) == pytest.approx(0.1)
    assert not LOSS_STOPS.should_stop(flat)
    assert plateau.factor(at(4, history=rows("validation_loss", [0.9, 0.8, 0.7, 0.6]))) == 1.0


def test_a_small_improvement_does_not_keep_a_training_going():
    stop = EarlyStopping(2, "epochs", "validation_dsc", min_improvement=0.01)
    assert stop.should_stop(rows("validation_dsc", [0.5, 0.505, 0.509]))
    assert not stop.should_stop(rows("validation_dsc", [0.5, 0.505, 0.511]))


def test_what_is_not_a_number_is_no_improvement():
    nan = math.nan
    assert LOSS_STOPS.should_stop(rows("validation_loss", [0.5, nan, nan, nan]))
    assert not LOSS_STOPS.should_stop(rows("validation_loss", [nan] * 9))
    assert not LOSS_STOPS.should_stop([])
    plateau = Plateau("validation_loss", gamma=0.1, patience=2)
    history = rows("validation_loss", [nan, 0.5, nan, 0.4])
    assert plateau.factor(at(4, history=history)) == 1.0


def joint(training, validation):
    rows = zip(training, validation, strict=True)
    return [{"total": a, "validation_loss": b} for a, b in rows]


PLATEAU_OF_TWO = JointPlateau(("total", "validation_loss"), gamma=0.2, patience=30, min_drop=0.005)


def test_a_joint_plateau_waits_for_either_value():
    flat = [1.0] * 61
    falling = [1 - 0.005 * n for n in range(61)]
    for rows in (joint(flat, falling), joint(falling, flat)):
        assert PLATEAU_OF_TWO.factor(TrainingProgress(0.0, 300, rows)) == 1


def test_a_joint_plateau_reduces_after_its_patience_again_and_again():
    flat = joint([1.0] * 61, [1.0] * 61)
    factors = [
        PLATEAU_OF_TWO.factor(TrainingProgress(0.0, 300, flat[:epochs])) for epochs in (30, 31, 61)
    ]
    assert factors == pytest.approx([1, 0.2, 0.04])


def test_small_drops_of_a_joint_plateau_add_up_but_do_not_count_alone():
    plateau = JointPlateau(("total",), gamma=0.2, patience=2, min_drop=0.005)
    slow = [{"total": value} for value in (1.0, 0.997, 0.994)]  # 0.006 below the first
    assert plateau.factor(TrainingProgress(0.0, 9, slow)) == 1
    slower = [{"total": value} for value in (1.0, 0.997, 0.997)]
    assert plateau.factor(TrainingProgress(0.0, 9, slower)) == pytest.approx(0.2)


def test_a_value_that_is_no_number_does_not_fall():
    plateau = JointPlateau(("total", "validation_loss"), gamma=0.5, patience=2)
    rows = joint([1.0, 1.0, 1.0], [math.nan] * 3)
    assert plateau.factor(TrainingProgress(0.0, 9, rows)) == 0.5


def test_a_polynomial_ends_where_it_is_to():
    schedule = Polynomial(power=0.9, end=0.1)
    factors = [schedule.factor(TrainingProgress(f, 100)) for f in (0.0, 0.5, 1.0)]
    assert factors == pytest.approx([1, 0.1 + 0.9 * 0.5**0.9, 0.1])
