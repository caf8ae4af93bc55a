"""What state a run is in, by its ledger, its lock and the queue."""

import dataclasses

import pytest

from launcher.run import state
from launcher.run.ledger import History
from launcher.run.state import State
from launcher.slurm.commands import SlurmJob


def row(event: str, generation: int, time: float = 0.0, **fields) -> dict:
    return {"event": event, "generation": generation, "time": time, **fields}


def start(generation: int = 1, job: str | None = "7") -> dict:
    return row("start", generation, **({"job": job} if job else {}))


def end(word: str, generation: int = 1, message: str = "said", **fields) -> dict:
    return row("end", generation, state=word, message=message, **fields)


def submitted(generation: int = 1, job: str = "7", time: float = 10.0) -> dict:
    return row("submitted", generation, time, job=job)


def cancel(job: str = "7", time: float = 11.0) -> dict:
    return row("cancel", 1, time, job=job)


SINCE = "2026-11-30T01:32:27"


def queue(word: str | None = None, job: str = "7") -> dict[str, SlurmJob]:
    """Slurm's, where `job` is in this state; or without it."""
    other = SlurmJob("8", "8", "other", "PENDING", "Priority", "", "", "", "", "")
    mine = SlurmJob(job, job, "mine", word or "", "Resources" if word == "PENDING" else "None", "", "", "", "", "")
    mine = dataclasses.replace(mine, suspended=SINCE if word == "SUSPENDED" else None)
    return {"8": other, **({job: mine} if word else {})}


WAITS = State("pending", "", "7", "Resources")
RUNS = State("running", job="7")
STANDS = State("running", job="7", suspended=SINCE)
UNKNOWN = None
# what has happened -> by the lock and the queue, the state
NEVER_STARTED = {
    "nothing": ([], {(False, UNKNOWN): State("pending"), (True, UNKNOWN): State("running")}),
    "asked for": (
        [submitted()],
        {
            (False, UNKNOWN): State("pending", job="7"),
            (False, "PENDING"): WAITS,
            (False, "RUNNING"): RUNS,
            (False, "COMPLETING"): RUNS,
            (False, "SUSPENDED"): STANDS,
            (False, ""): State("failed", "job 7 ended before the run began"),
        },
    ),
    "asked for twice": (
        [submitted(job="5"), submitted()],
        {(False, UNKNOWN): State("pending", job="7"), (False, "PENDING"): WAITS},
    ),
    "asked for, then cancelled": (
        [submitted(), cancel()],
        {
            (False, UNKNOWN): State("cancelled"),
            (False, ""): State("cancelled"),
            (False, "PENDING"): WAITS,  # a job that is still there is the truth
        },
    ),
    "asked for, then cancelled from a machine whose clock is behind": (
        [submitted(time=10.0), cancel(time=-3600.0)],
        {(False, UNKNOWN): State("cancelled"), (False, ""): State("cancelled")},
    ),
    "cancelled from a machine whose clock is ahead, then asked for": (
        [submitted(job="5"), cancel("5", 3600.0), submitted(time=10.0)],
        {(False, UNKNOWN): State("pending", job="7"), (False, "PENDING"): WAITS},
    ),
}
KILLED = State("failed", "killed: job 7 is gone and left no word")
ON = {
    "at work": (
        [submitted(), start()],
        {
            (True, UNKNOWN): RUNS,
            (True, ""): RUNS,
            (False, UNKNOWN): RUNS,  # nobody can say
            (False, "RUNNING"): RUNS,
            (True, "SUSPENDED"): STANDS,
            (False, "SUSPENDED"): STANDS,
            (False, "PENDING"): State("preempted", "killed before it could say why", "7", "Resources"),
            (False, ""): KILLED,
        },
    ),
    "at work, then cancelled": (
        [submitted(), start(), row("cancel", 1)],
        {
            (True, UNKNOWN): RUNS,
            (False, "COMPLETING"): RUNS,
            (False, UNKNOWN): RUNS,  # it may be saving, where no lock can be seen
            (False, ""): State("cancelled", "killed where it stood"),
        },
    ),
    "at work here": (
        [start(job=None)],
        {(True, UNKNOWN): State("running"), (False, UNKNOWN): State("failed"), (False, "RUNNING"): State("failed")},
    ),
    "ended and asked for again": (
        [start(), end("done"), submitted(2, job="7")],
        {(False, UNKNOWN): State("pending", job="7"), (False, "RUNNING"): RUNS},
    ),
    "ended, cancelled long ago, and asked for again": (
        [start(), row("cancel", 1, 99.0), end("stopped"), submitted(2)],
        {(False, UNKNOWN): State("pending", job="7"), (False, ""): State("failed", "job 7 ended before the run began")},
    ),
    "started again": ([start(), end("failed"), start(2)], {(True, ""): RUNS, (False, ""): KILLED}),
    "started again in another job": (
        [start(job="5"), start(2)],
        {(False, "RUNNING"): RUNS, (False, ""): KILLED},
    ),
}
AGAIN = end("preempted", requeued=True)
HERE = end("preempted", in_place=True)
OVER = {
    "done": ([start(), end("done", message="")], {(False, UNKNOWN): State("done"), (False, "RUNNING"): State("done")}),
    "failed": ([start(), end("failed")], {(False, UNKNOWN): State("failed", "said")}),
    "an end without a message": ([start(), row("end", 1, state="failed")], {(False, UNKNOWN): State("failed")}),
    "an end that is being written": ([start(), end("done")], {(True, UNKNOWN): RUNS, (True, "RUNNING"): RUNS}),
    "stopped": ([start(), end("stopped")], {(False, UNKNOWN): State("stopped", "said")}),
    "stopped, as asked for": (
        [start(), row("cancel", 1), end("stopped")],
        {(False, UNKNOWN): State("cancelled", "said")},
    ),
    "preempted, and cancelled": ([start(), row("cancel", 1), AGAIN], {(False, "PENDING"): State("cancelled", "said")}),
    "failed, though asked to stop": (
        [start(), row("cancel", 1), end("failed")],
        {(False, UNKNOWN): State("failed", "said")},
    ),
    "done, though asked to stop": (
        [start(), row("cancel", 1), end("done")],
        {(False, UNKNOWN): State("done", "said")},
    ),
    "stopped, after an earlier start was cancelled": (
        [start(), row("cancel", 1), end("stopped"), start(2), end("stopped", 2)],
        {(False, UNKNOWN): State("stopped", "said")},
    ),
    "requeued": (
        [start(), AGAIN],
        {
            (False, UNKNOWN): State("preempted", "said", "7"),
            (False, "PENDING"): State("preempted", "said", "7", "Resources"),
            (False, "RUNNING"): State("running", "said", "7"),
            (False, ""): State("stopped", "said; job 7 is no longer in the queue"),
        },
    ),
    "between two starts of one job": (
        [start(), HERE],
        {
            (True, UNKNOWN): RUNS,
            (True, "RUNNING"): RUNS,
            (False, UNKNOWN): State("running", "said", "7"),
            (False, "RUNNING"): State("running", "said", "7"),
            (False, "PENDING"): State("preempted", "said", "7", "Resources"),
            (False, ""): State("stopped", "said; job 7 is no longer in the queue"),
        },
    ),
    "cancelled between two starts of one job": (
        [start(), row("cancel", 1, job="7"), HERE],
        {(True, "RUNNING"): RUNS, (False, ""): State("cancelled", "said")},
    ),
    "cancelled in the queue, submitted again and preempted": (
        [submitted(job="5"), row("cancel", 1, job="5"), submitted(), start(), AGAIN],
        {(False, "PENDING"): State("preempted", "said", "7", "Resources")},
    ),
    "requeued without a message": (
        [start(), row("end", 1, state="preempted", requeued=True)],
        {(False, UNKNOWN): State("preempted", "", "7")},
    ),
    "requeued in vain": (
        [start(), AGAIN, end("stopped", message="not requeued", requeued=False)],
        {(False, UNKNOWN): State("stopped", "not requeued")},
    ),
}
CASES = {
    f"{what}, {'held' if held else 'not held'}, {'queue unknown' if word is None else word or 'not in the queue'}": (
        events,
        held,
        word,
        wanted,
    )
    for table in (NEVER_STARTED, ON, OVER)
    for what, (events, outcomes) in table.items()
    for (held, word), wanted in outcomes.items()
}


@pytest.mark.parametrize("what", CASES)
def test_a_run_is(what):
    events, held, word, wanted = CASES[what]
    assert state.of(History(events), held=held, queue=None if word is None else queue(word)) == wanted


def test_in_an_empty_queue_no_job_is():
    assert state.of(History([submitted(), cancel()]), held=False, queue={}) == State("cancelled")
    assert state.of(History([submitted()]), held=False, queue={}).name == "failed"
    assert state.of(History([start()]), held=False, queue={}) == KILLED


def test_of_a_cluster_nothing_is_pending_that_no_job_has():
    made, asked, refused = (), row("intent", 1), row("withdrawn", 1, why="said")

    def stands(*events, held=False):
        return state.of(History(events), held=held, queue={}, slurm=True)

    assert stands(*made) == State("not submitted")
    assert stands(asked, refused) == State("not submitted", "said")
    assert stands(asked) == State("pending")  # somebody is at it, or there may be a job
    assert stands(asked, refused, asked) == State("pending")
    assert stands(asked, refused, held=True) == State("running")
    assert stands(start(), end("stopped"), row("intent", 2), row("withdrawn", 2)).name == "stopped"
