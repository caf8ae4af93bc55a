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
