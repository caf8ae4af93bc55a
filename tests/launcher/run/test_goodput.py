"""What an interruption costs is counted by the GPUs that each start had."""

from launcher.run import goodput
from launcher.run.ledger import History

HOUR = 3600.0


def event(name, generation, time, **fields):
    return {"event": name, "generation": generation, "writer": "batch", "time": time, **fields}


def ranged():
    """On 8 ranks for an hour, then on 4: 10 of 100 steps are done again, and the restart took half an hour."""
    return History(
        [
            event("start", 1, 0.0, cause="submitted", world_size=8),
            event("checkpoint", 1, 0.0, step=0, path="a"),
            event("checkpoint", 1, HOUR, step=100, path="b"),
            event("end", 1, HOUR, state="preempted", cause="killed", message=""),
            event("start", 2, HOUR, cause="killed", world_size=4),
            event("restored", 2, 1.5 * HOUR, step=90, lost_steps=10),
            event("end", 2, 2 * HOUR, state="done", cause="done", message=""),
        ]
    )


def test_what_was_done_twice_is_of_the_ranks_before_and_what_a_start_takes_of_those_after():
    (cost,) = goodput.interruptions(ranged(), 8)
    assert cost["lost_gpu_hours"] == 0.5 * 4 + 0.1 * 8
    assert goodput.interruptions(ranged(), 0)[0]["lost_gpu_hours"] == 0


def test_gpu_hours_are_those_of_every_starts_own_world():
    assert goodput.worked_gpu_seconds(ranged(), 8) == HOUR * 8 + HOUR * 4
    assert goodput.worked_gpu_seconds(ranged(), 0) == 0


def test_a_start_of_long_ago_that_does_not_say_has_the_specs():
    old = History({key: value for key, value in each.items() if key != "world_size"} for each in ranged())
    assert goodput.worked_gpu_seconds(old, 8) == 2 * HOUR * 8


def spared():
    """Three nodes of a job, one of them in reserve: it takes the place of one that is lost after an hour, and the job
    is preempted another hour later."""
    return History(
        [
            event("start", 1, 0.0, cause="submitted", job="7", world_size=2, spares=1),
            event("left_out", 1, HOUR, node="n2", why="is lost"),
            event("end", 1, HOUR, state="preempted", cause="node_failure", message="", in_place=True, node="n2"),
            event("start", 2, HOUR + 2, cause="node_failure", job="7", world_size=2),
            event("restored", 2, HOUR + 12, step=90, lost_steps=10),
            event("end", 2, 2 * HOUR, state="preempted", cause="killed", message="", requeued=True, why="no time"),
            event("start", 3, 2 * HOUR + 60, cause="killed", job="7", world_size=2, spares=1),
            event("end", 3, 3 * HOUR + 60, state="failed", cause="crash", message=""),
            event("submitted", 4, 4 * HOUR, job="8", folder=""),
            event("start", 4, 4 * HOUR, cause="crash", job="8", world_size=2, spares=1),
        ]
    )


def test_a_restart_in_the_same_job_is_told_from_one_through_the_queue_and_one_by_hand():
    costs = [
        {key: cost[key] for key in ("where", "in_place", "why", "node")} for cost in goodput.interruptions(spared(), 2)
    ]
    assert costs == [
        {"where": "same job", "in_place": True, "why": None, "node": "n2"},
        {"where": "queue", "in_place": False, "why": "no time", "node": None},
        {"where": "by hand", "in_place": False, "why": None, "node": None},
    ]


def test_why_only_slurm_could_mend_an_end_is_not_said_where_the_cause_says_it():
    assert goodput.reason({"cause": "time_limit", "why": "time limit"}) == ""


def test_a_spare_brought_the_restart_that_took_it_and_cost_the_hours_in_which_it_waited():
    assert goodput.spares(spared(), 8) == {
        "restarts": 1,
        "went_on_after_s": [12.0],
        "idle_node_hours": 2.0,
        "idle_gpu_hours": 16.0,
    }
    assert goodput.spares(spared(), 0)["idle_gpu_hours"] == 0


def test_a_run_that_never_had_a_spare_has_nothing_to_say_of_it():
    assert goodput.spares(ranged(), 8) is None
