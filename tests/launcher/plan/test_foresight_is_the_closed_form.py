"""What a simulation says of a run is what can be reckoned, where it can; and it costs turns by starts, not by steps."""

import math
from dataclasses import replace

import numpy as np
import pytest

from launcher.plan.foresight import DRAWS, FEWEST, cheapest, draws_for, simulate, with_intervals
from launcher.plan.weather import Hazard, Journey, Spread, Weather, young_daly

MTBF, RESTART, SAVE, EVERY, STEPS = 5000.0, 60.0, 20.0, 400, 40_000
JOURNEY = Journey(steps=STEPS, step=1.0, every=EVERY, stall=SAVE, save=SAVE)
FAILURES = Weather(hazards=(Hazard("crash", 3600 / MTBF, must_progress=False),), start=Spread.always(RESTART))


def daly(every: float, stall: float, *, mtbf: float = MTBF, restart: float = RESTART) -> float:
    """Expected seconds of the whole run: Daly 2006, equation 20, and what its first start costs as every other does."""
    segments = STEPS / every
    return mtbf * math.exp(restart / mtbf) * (math.exp((every + stall) / mtbf) - 1) * segments + mtbf * (
        math.exp(restart / mtbf) - 1
    )


def error_of(values: np.ndarray) -> float:
    """Five times the Monte Carlo error of the mean: the seed is fixed, and no other one would be out either."""
    return 5 * float(values.std()) / math.sqrt(len(values))


def test_without_blows_it_takes_what_it_takes():
    (found,) = simulate([JOURNEY], Weather(start=Spread.always(RESTART), queue=Spread.always(30.0)), draws=FEWEST)
    exact = 30.0 + RESTART + STEPS + (STEPS // EVERY - 1) * SAVE + SAVE
    assert set(found.finish) == {exact}
    assert set(found.saves) == {STEPS // EVERY} and not found.lost.any() and found.goodput == 1.0
    assert found.node_hours == pytest.approx((exact - 30.0) / 3600)  # the queue holds no node


def test_a_save_at_the_end_is_the_last_one():
    (found,) = simulate([replace(JOURNEY, steps=EVERY + 1)], Weather(), draws=FEWEST)
    assert set(found.finish) == {EVERY + 1 + 2 * SAVE} and set(found.saves) == {2}


@pytest.mark.parametrize("every", [100, 400, 1600])
def test_failures_alone_cost_what_daly_reckons(every):
    (found,) = simulate([replace(JOURNEY, every=every)], FAILURES, draws=4000, seed=1)
    assert found.finish.mean() == pytest.approx(daly(every, SAVE), abs=error_of(found.finish))


def test_twice_the_nodes_fail_twice_as_often():
    (found,) = simulate([replace(JOURNEY, nodes=2)], FAILURES, draws=4000, seed=1)
    assert found.finish.mean() == pytest.approx(daly(EVERY, SAVE, mtbf=MTBF / 2), abs=error_of(found.finish))
    assert found.held.mean() == pytest.approx(2 * found.finish.mean())  # nothing waits in a queue here


def test_the_interval_of_young_and_daly_is_the_cheapest():
    best = round(young_daly(SAVE, MTBF))
    found = simulate(with_intervals(JOURNEY, [best // 4, best // 2, best, 2 * best, 4 * best]), FAILURES, seed=2)
    assert cheapest(found).journey.every == best


def test_a_save_behind_the_training_that_is_under_way_is_lost_with_what_came_since_the_one_before():
    """Of a blow that comes at a time that is known: after the save of step 400 began, and before that of 800 counts."""
    once = Weather(hazards=(Hazard("crash", 3600 / 1e9),), limit=math.inf)
    behind = replace(JOURNEY, stall=0.0, save=50.0)
    for until, lost in ((430.0, 430.0), (460.0, 60.0), (840.0, 440.0), (860.0, 60.0)):
        # The limit of a job that is left is such a time; to be told of it saves all, and so here a hazard is put there.
        (found,) = _struck_at(once, behind, until)
        assert found.lost[0] == pytest.approx(lost)


def _struck_at(weather, journey, seconds):
    """Simulated with the first gap between blows set to `seconds`, and no other blow."""
    from launcher.plan import foresight

    gaps = iter([seconds])

    class Once(foresight._Lives):
        def turn(self):
            gap = next(gaps, math.inf)
            self._rates[:] = 0.0 if gap == math.inf else 1.0 / gap
            uniform, level = super()._uniform, [1 - math.exp(-1.0)]  # of which the exponential gap is its mean
            self._uniform = lambda lives: np.full(len(lives), level.pop()) if level else uniform(lives)
            super().turn()

    lives = Once([journey], weather, FEWEST, 0)
    while lives.going:
        lives.turn()
    return lives.forecasts()


def test_a_grace_that_holds_a_save_loses_nothing():
    rate = 3600 / MTBF
    told = Weather(hazards=(Hazard("preempted", rate, saved=1.0, must_progress=False),), queue=Spread.always(600.0))
    untold = replace(told, hazards=(replace(told.hazards[0], saved=0.0),))
    (kept,), (lost,) = (simulate([JOURNEY], weather, seed=3) for weather in (told, untold))
    assert not kept.lost.any() and kept.goodput == 1.0
    assert lost.lost.mean() > EVERY / 4 * lost.restarts["preempted"].mean()
    # Each comes after MTBF seconds of a job, and costs a wait.
    assert kept.restarts["preempted"].mean() == pytest.approx(kept.held.mean() / MTBF, rel=0.05)
    waited = kept.finish - kept.held
    assert np.allclose(waited, 600.0 * (1 + kept.restarts["preempted"]))


def test_the_time_limit_of_a_job_is_a_stop_that_saves_and_queues():
    (found,) = simulate([JOURNEY], Weather(queue=Spread.always(600.0), limit=10_000.0), draws=FEWEST)
    assert set(found.restarts) == {"time_limit"} and not found.lost.any()
    assert set(found.restarts["time_limit"]) == {4}  # 42,000 s of training and saves


def test_what_the_job_mends_itself_waits_in_no_queue_and_a_spare_takes_the_place_of_a_lost_node():
    queue = Spread.always(3600.0)
    lost = Hazard("node_failure", 3600 / MTBF, must_progress=False)
    here = Hazard("crash", 3600 / MTBF, in_place=True, must_progress=False)
    waits = {
        name: float((found.finish - found.held / (1 + spares)).mean())
        for name, hazard, spares in (("queue", lost, 0), ("place", here, 0), ("spare", lost, 1))
        for found in simulate([JOURNEY], Weather(hazards=(hazard,), queue=queue, spares=spares), seed=4)
    }
    assert waits["place"] == pytest.approx(3600.0)  # that of the submission
    # Every second loss of a node finds no spare left.
    assert waits["place"] < waits["spare"] < 0.7 * waits["queue"]


def test_a_start_in_the_same_job_may_be_a_faster_one():
    """The first start takes 300 s, unless it is struck before they are over; then all is as if none ever had."""
    here = replace(FAILURES.hazards[0], in_place=True)
    (found,) = simulate([JOURNEY], Weather((here,), Spread.always(300.0), Spread.always(RESTART)), draws=4000, seed=9)
    struck, restart = 1 - math.exp(-300.0 / MTBF), MTBF * (math.exp(RESTART / MTBF) - 1)
    exact = daly(EVERY, SAVE) + MTBF * struck - (1 - struck) * restart
    assert found.finish.mean() == pytest.approx(exact, abs=error_of(found.finish))
    (slow,) = simulate([JOURNEY], Weather((here,), Spread.always(300.0)), draws=4000, seed=9)
    assert slow.finish.mean() > found.finish.mean() + 5 * (300.0 - RESTART)


def test_a_person_is_needed_once_what_is_forgiven_is_used_up():
    rarely, often = (
        simulate([JOURNEY], Weather(hazards=(Hazard("killed", rate, in_place=True, forgiven=3),)), seed=5)[0]
        for rate in (3600 / (100 * STEPS), 3600 / (STEPS / 10))
    )
    assert (rarely.by_hand > 0).mean() < 0.01 and (often.by_hand > 0).mean() > 0.9


def test_a_run_that_cannot_get_on_is_said_never_to_end():
    weather = Weather(hazards=(Hazard("crash", 3600 / 10.0, must_progress=False),), start=Spread.always(600.0))
    (found,) = simulate([JOURNEY], weather, draws=FEWEST)
    assert found.seconds(0.1) == math.inf
    assert found.to_json()["finish_hours"]["p50"] is None and found.to_json()["never_ends"] == 1.0


def test_a_run_under_way_goes_on_from_its_step_and_loses_from_its_save():
    going = replace(JOURNEY, done=30_100, saved=30_000, waits=False)
    weather = Weather(queue=Spread.always(1e6), start=Spread.always(1e6))
    (found,) = simulate([going], weather, draws=FEWEST)
    assert set(found.finish) == {9900 + 24 * SAVE + SAVE}
    (found,) = _struck_at(Weather(hazards=(Hazard("crash", 1.0),)), going, 50.0)
    assert found.lost[0] == pytest.approx(150.0)


def test_a_rate_that_was_counted_is_as_unsure_as_few_events_are():
    counted = replace(FAILURES.hazards[0], counted=(3.0, 3 * MTBF / 3600))
    known, unsure = (
        simulate([JOURNEY], replace(FAILURES, hazards=(hazard,)), seed=6)[0]
        for hazard in (FAILURES.hazards[0], counted)
    )
    width = {name: found.seconds(0.9) - found.seconds(0.1) for name, found in (("known", known), ("unsure", unsure))}
    assert width["unsure"] > 1.3 * width["known"]


def test_the_same_seed_is_the_same_chance_for_every_journey():
    (alone,), (other,) = (simulate([JOURNEY], FAILURES, seed=seed) for seed in (7, 8))
    beside, _ = simulate([JOURNEY, replace(JOURNEY, every=100)], FAILURES, seed=7)
    assert np.array_equal(alone.finish, beside.finish) and not np.array_equal(alone.finish, other.finish)


def test_it_takes_turns_by_starts_and_not_by_steps():
    """30 days on 512 GPUs, in steps of a hundredth of a second: 259 million of them."""
    weather = Weather(hazards=(Hazard("preempted", 0.1 / 24, saved=1.0, must_progress=False),), limit=86_400.0)
    journey = Journey(steps=259_200_000, step=0.01, every=10_000, stall=1, save=2, nodes=64)
    found = simulate([journey, replace(journey, every=99_999)], weather, draws=FEWEST)
    starts = 1 + max(sum(row[draw] for row in each.restarts.values()) for each in found for draw in range(FEWEST))
    assert found[0].turns == starts < 400


def test_fewer_lives_are_drawn_where_each_has_many_starts():
    weather = Weather(hazards=(Hazard("preempted", 10.0, saved=1.0),))
    assert draws_for([JOURNEY], Weather()) == DRAWS
    assert draws_for([replace(JOURNEY, nodes=512)] * 20, weather) == FEWEST
