"""The corners of what moves with time: first step, end of the warm-up, middle, last step, and beyond."""

import itertools
import math

import pytest

from launcher.spec.schema import TrainConfig
from methods.parts.schedules import cosine, learning_rate, linear

STEPS, PER_EPOCH = 100, 10


def curve(**options):
    config = TrainConfig(**{"lr": 0.4, **options})
    return [learning_rate(config, step, STEPS, PER_EPOCH) for step in range(STEPS)]


def test_a_constant_stays():
    assert set(curve(schedule="constant", final_lr=0.1)) == {0.4}


def test_a_cosine_starts_whole_is_half_in_the_middle_and_ends_at_nothing():
    rates = curve(schedule="cosine")
    assert rates[0] == 0.4
    assert rates[STEPS // 2] == pytest.approx(0.2)
    assert 0 <= rates[-1] < 0.4 / 1000
    assert all(after < before for before, after in itertools.pairwise(rates))


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_warm_up_climbs_from_a_hundredth_to_the_whole(schedule):
    rates = curve(schedule=schedule, warmup_epochs=2.0)
    assert rates[0] == pytest.approx(0.004)
    assert rates[10] == pytest.approx(0.4 * 0.505)
    assert rates[20] == 0.4 == max(rates)
    assert all(after > before for before, after in itertools.pairwise(rates[:21]))


def test_a_warm_up_of_part_of_an_epoch_counts_its_steps():
    assert curve(warmup_epochs=0.2)[:3] == pytest.approx([0.004, 0.4 * 0.505, 0.4])


@pytest.mark.parametrize("warmup", [10.0, 50.0])
def test_a_warm_up_as_long_as_the_run_never_reaches_the_schedule(warmup):
    rates = curve(schedule="cosine", warmup_epochs=warmup)
    assert max(rates) == rates[-1] < 0.4


def test_swav_climbs_from_0_3_to_4_8_and_falls_to_0_0048():
    rates = curve(schedule="cosine", lr=4.8, warmup_lr=0.3, final_lr=0.0048, warmup_epochs=1.0)
    assert rates[0] == pytest.approx(0.3)
    assert rates[5] == pytest.approx((0.3 + 4.8) / 2)
    assert rates[10] == 4.8
    assert rates[55] == pytest.approx((4.8 + 0.0048) / 2)  # the middle of the 90 steps that fall
    last = 0.0048 + (4.8 - 0.0048) * 0.5 * (1 + math.cos(math.pi * 89 / 90))
    assert rates[-1] == pytest.approx(last) and rates[-1] > 0.0048


def test_dino_climbs_from_nothing():
    assert curve(warmup_lr=0.0, warmup_epochs=1.0)[:2] == pytest.approx([0, 0.04])


@pytest.mark.parametrize("schedule", [linear, cosine])
@pytest.mark.parametrize("start, end", [(0.04, 0.4), (0.996, 1.0), (1.0, 0.99), (0.5, 0.5)])
def test_a_curve_meets_its_ends_exactly_and_its_middle(schedule, start, end):
    assert schedule(0, 10, start, end) == start
    assert schedule(5, 10, start, end) == pytest.approx((start + end) / 2)
    assert schedule(10, 10, start, end) == schedule(11, 10, start, end) == end
    assert schedule(0, 0, start, end) == end  # no time at all


def test_a_line_is_straight_and_half_a_cosine_is_flat_at_its_ends():
    line = [linear(step, 8, 0.0, 1.0) for step in range(9)]
    assert line == [step / 8 for step in range(9)]
    bow = [cosine(step, 8, 0.0, 1.0) for step in range(9)]
    rises = [after - before for before, after in itertools.pairwise(bow)]
    assert rises == pytest.approx(rises[::-1]) and rises[0] < rises[1] < rises[2] < rises[3]
    assert bow[2] == pytest.approx(0.5 * (1 - math.cos(math.pi / 4)))


def test_the_temperature_of_dinos_teacher_by_epoch():
    temperatures = [linear(epoch, 30, 0.04, 0.07) for epoch in (0, 15, 29, 30, 299)]
    assert temperatures == pytest.approx([0.04, 0.055, 0.069, 0.07, 0.07])
