"""What a cluster does to runs is counted in their ledgers, and what was not seen is as its config says."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from launcher.compose.training import resolve
from launcher.report import climate
from launcher.report import observed as reading
from launcher.report.observed import Observed
from launcher.run.causes import CAUSES
from launcher.run.ledger import History
from launcher.spec.runspec import FromRun

HOUR = 3600.0


def event(name, generation, time, writer="batch", **fields):
    return {"event": name, "generation": generation, "writer": writer, "time": time, **fields}


def weathered(nodes="n[1-4]", wait=600.0):
    """Two hours until it is preempted, in which it saves, `wait` in the queue, an hour until a rank is killed, 5 s to
    the next start in place, and an hour to the end: a step takes 10 s."""
    again = 2 * HOUR + wait
    killed = again + HOUR
    last = killed + 5.0
    told = {"job": "7", "nodes": nodes, "world_size": 4}
    return History(
        [
            event("submitted", 1, -300.0, "submit", job="7"),
            event("start", 1, 0.0, cause="submitted", **told),
            event("checkpoint", 1, HOUR, "rank0", step=300, seconds=8.0),
            event("stopped_at_safe_point", 1, 2 * HOUR - 4.0, "rank0"),
            event("end", 1, 2 * HOUR, cause="preempted", state="preempted", requeued=True),
            event("start", 2, again, cause="preempted", **told),
            event("restored", 2, again + 60.0, "rank0", step=700, lost_steps=0, lost_seconds=0.0),
            event("end", 2, killed, cause="killed", state="preempted", in_place=True),
            event("start", 3, last, cause="killed", **told),
            event("restored", 3, last + 90.0, "rank0", step=900, lost_steps=143, lost_seconds=0.0),
            event("checkpoint", 3, last + 2000.0, "rank0", step=1100, seconds=12.0),
            event("finished", 3, last + 3590.0, "rank0", step=1200, seconds={"training": 2900.0, "data": 100.0,
                  "checkpointing": 30.0, "evaluation": 500.0}),
            event("end", 3, last + HOUR, cause="done", state="done"),
        ]
    )  # fmt: skip


def config(*overrides, save=10.0, step=1.0, cluster="h100"):
    spec, _ = resolve(["method=rotnet", f"cluster={cluster}", *overrides], planning=True)
    return climate.expected(spec, save, step, 60.0)


def rates(weather):
    return {each.cause: each.per_node_hour for each in weather.hazards}


def observed(*histories):
    found = Observed()
    for history in histories:
        found.add(history)
    return found


@pytest.mark.parametrize(("source", "waits"), [(None, [300.0, 600.0]), (object.__new__(FromRun), [600.0])])
def test_what_a_run_waited_for_others_is_no_wait_in_the_queue(source, waits):
    sources = {"init_from": source} if source else {}
    spec, found = SimpleNamespace(sources=sources), Observed()
    found.add_run(SimpleNamespace(spec=lambda: spec, history=weathered, spoke=lambda: 0.0))
    assert sorted(found.queue) == waits


def test_blows_are_counted_by_cause_over_the_node_hours_of_all_starts():
    found = observed(weathered(), weathered())
    assert found.blows == {"preempted": 2, "killed": 2}  # that it was done is none
    assert found.node_hours == pytest.approx(2 * 4 * 4)
    weather = climate.measured(found, config())
    assert rates(weather)["preempted"] == pytest.approx(2 / 32) == rates(weather)["killed"]
    assert {each.cause: each.counted for each in weather.hazards}["killed"] == (2.0, 32.0)


def test_what_was_never_seen_is_as_the_config_says_the_less_the_longer_nobody_saw_it():
    prior = config()
    hours = {count: climate.measured(observed(*[weathered()] * count), prior) for count in (1, 1000)}
    lost = {count: rates(weather)["node_failure"] for count, weather in hours.items()}
    assert 0.9 * rates(prior)["node_failure"] < lost[1] < rates(prior)["node_failure"]
    assert lost[1000] == pytest.approx(0.5 / (16_000 + 0.5 / rates(prior)["node_failure"]))


def test_waits_starts_and_gaps_are_those_that_were_seen():
    found = observed(*(weathered(wait=wait) for wait in (600.0, 1200.0, 60.0)))
    weather = climate.measured(found, config())
    assert weather.queue.values == (60.0, 300.0, 300.0, 300.0, 600.0, 1200.0)
    assert weather.start.values == (60.0, 60.0, 60.0) and weather.start_here.values == (90.0, 90.0, 90.0)
    assert weather.same_job.values == (5.0, 5.0, 5.0)
    stops = {each.cause: each.stops for each in weather.hazards}
    assert stops["preempted"].values == (4.0, 4.0, 4.0)
    # 343 steps of 10.1 s from a minute after the start on: what is left of the hour came after the last.
    assert stops["killed"].values == pytest.approx([HOUR - 60 - 343 * 10.1] * 3)


def test_the_launchers_own_pause_is_no_gap_of_the_cluster():
    """After a start that brought nothing it waits for ten seconds, and then for thirty."""
    told = {"job": "7", "nodes": "n1", "world_size": 1}
    rows, moment = [], 0.0
    for generation, gap in ((1, 12.0), (2, 32.0), (3, 0.0)):
        rows.append(event("start", generation, moment, cause="killed", **told))
        moment += 100.0
        rows.append(event("end", generation, moment, cause="killed", state="preempted", in_place=True))
        moment += gap
    assert observed(History(rows)).same_job == [pytest.approx(2.0), pytest.approx(2.0)]


def test_a_few_of_anything_are_not_taken_for_how_it_is():
    prior = config()
    weather = climate.measured(observed(weathered()), prior)
    assert weather.queue == prior.queue and weather.same_job == prior.same_job


def test_how_many_save_in_time_is_counted_too_and_the_config_counts_as_one_more():
    found = {
        each.cause: each.saved for each in climate.measured(observed(weathered()), config("cluster.grace_s=1")).hazards
    }
    assert found == {"preempted": 0.5, "killed": 0.0, "node_failure": 0.0}
    assert {each.cause: each.saved for each in config().hazards}["preempted"] == 1.0  # 10 s fit into KillWait


def test_what_a_run_did_in_its_last_start_tells_its_pace_and_what_a_save_costs():
    found = observed(weathered())
    assert found.steps == [10.0] and found.stalls == [30.0] and found.closings == [pytest.approx(510.0)]
    assert reading.middle(found.saves, 0.0) == 10.0


def test_every_end_that_a_run_goes_on_after_is_a_blow_but_for_the_limit_of_its_job():
    for cause, known in CAUSES.items():
        history = History([event("start", 1, 0.0, cause="submitted"), event("end", 1, HOUR, cause=cause, state="x")])
        assert bool(observed(history).blows) == (known.forgiven != 0 and cause != "time_limit"), cause


def test_a_start_that_a_person_asked_for_waited_in_no_queue():
    asked = History(
        [
            *weathered(),
            event("submitted", 4, 9e6, "submit", job="9"),
            event("start", 4, 1e7, cause="done", job="9", nodes="n1"),
        ]
    )
    assert max(observed(asked).queue) == 600.0


def test_what_the_config_says_becomes_hazards():
    day = {cause: 24 * rate for cause, rate in rates(config()).items()}
    assert day == {"preempted": 0.0, "node_failure": pytest.approx(0.004)}
    given = ["cluster.interruptions_per_node_day=1", "cluster.preemptible=true"]
    assert 24 * rates(config(*given))["preempted"] == pytest.approx(0.996)
    assert 24 * rates(config(*given, "cluster.preemptions_per_node_day=0.3"))["node_failure"] == pytest.approx(0.7)
    assert 24 * rates(config(cluster="generic"))["preempted"] == pytest.approx(0.096)
    weather = config("cluster.queue_minutes=[5,50]", "cluster.timeout_min=100", "cluster.spare_nodes=2")
    assert weather.limit == 6000 - 60 and weather.spares == 2
    assert weather.queue.median == pytest.approx(300, rel=0.05) and min(weather.queue.values) == climate.CRED_EXPIRE


def test_no_two_hazards_are_lost_where_the_config_has_none():
    (history,) = [replace_cause(weathered(), "killed", "node_failure")]
    found = {each.cause: each for each in climate.measured(observed(history), replace(config(), hazards=())).hazards}
    assert {cause: (each.in_place, each.forgiven) for cause, each in found.items()} == {
        "preempted": (False, None),
        "node_failure": (False, 20),
    }


def replace_cause(history, before, after):
    return History({**each, "cause": after} if each.get("cause") == before else each for each in history)


def test_runs_of_another_cluster_tell_nothing(ledgers):
    mine, other = (ledgers.create("method=rotnet", "recipe=tiny", f"seed={seed}") for seed in (0, 1))
    ledgers.start(mine)
    assert [run.id for run in reading.alike(ledgers.folder, "local")] == [mine.id]  # the other one never started
    ledgers.start(other)
    assert {run.id for run in reading.alike(ledgers.folder, "local")} == {mine.id, other.id}
    assert not [*reading.alike(ledgers.folder, "h100")] and not [*reading.alike(ledgers.folder / "no", "local")]
    assert not [*reading.alike(ledgers.folder, None)]  # whoever names a folder means runs of a cluster
    assert len([*reading.alike(ledgers.folder, "local", most=1)]) == 1
