"""The corners of the learning rate: first step, end of the warm-up, last step."""

import itertools

import pytest

from launcher.spec import TrainConfig
from methods.schedules import learning_rate

STEPS, PER_EPOCH = 100, 10


def curve(**options):
    config = TrainConfig(lr=0.4, **options)
    return [learning_rate(config, step, STEPS, PER_EPOCH) for step in range(STEPS)]


def test_a_constant_stays():
    assert set(curve(schedule="constant")) == {0.4}


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
