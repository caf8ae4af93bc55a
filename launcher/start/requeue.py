"""Whether a run that ended starts again by itself: by what ended it, how often that happened, and whether it got on.

run/causes.py says how often each cause is forgiven, and after which ends in a row that brought nothing the run stops
all the same: it would only burn GPUs. Pure; evidence comes in as the run's ledger and the log of its job.
"""

import re
from dataclasses import replace

from launcher.errors import NoProgress
from launcher.run import causes
from launcher.run.ledger import History
from launcher.start.ending import Outcome

PAUSES = 10.0, 30.0, 60.0
START_SECONDS = 60.0  # where no start of the run has told yet
NO_PROGRESS = 3  # such ends in a row, without a newer checkpoint or more work that is kept

# What Slurm itself writes into the log of a job that it ends: "*** JOB 7 ON n1 CANCELLED AT ... DUE TO PREEMPTION ***"
EVIDENCE = {
    "preempted": re.compile(r"DUE TO PREEMPTION"),
    "time_limit": re.compile(r"DUE TO TIME LIMIT"),
    "node_failure": re.compile(r"DUE TO NODE FAILURE|Node failure on|NODE_FAIL"),
    "requeued": re.compile(r"DUE TO JOB REQUEUE"),
    "cancelled": re.compile(r"\*\*\* JOB \S+ ON \S+ CANCELLED AT \S+ \*\*\*"),
}


def ended_by_slurm(log: str) -> str:
    """Why Slurm ended a job, from the job's part of its log; empty where it did not."""
    return next((cause for cause, pattern in EVIDENCE.items() if pattern.search(log)), "")


def died_of(log: str, *, node_down: bool) -> str:
    """The cause of an end that the run could not write down itself, from its part of the job's log."""
    return ended_by_slurm(log) or ("node_failure" if node_down else "killed")


def decide(history: History, outcome: Outcome) -> tuple[Outcome, bool]:
    """(the outcome, perhaps a harder one; whether the run starts again). `history`: without this end."""
    cause, known = outcome.cause, causes.of(outcome.cause)
    most = known.forgiven
    if most == 0 or not known.must_progress:
        return outcome, most is None
    idle = _ends_without_progress(history) + 1
    if idle >= NO_PROGRESS and not _progressed(history, history.generation):
        message = f"{outcome.message} ({idle} starts in a row ended without a newer checkpoint)"
        return replace(
            outcome, state="failed", cause=NoProgress.cause, message=message, exit_code=NoProgress.exit_code
        ), False
    if most is None:
        return outcome, True
    spent = list(_causes(history).values()).count(cause)
    if spent >= most:
        message = f"{outcome.message} (end {spent + 1} of this kind: {cause}; {most} are forgiven)"
        return replace(outcome, state="failed", message=message), False
    return replace(outcome, state="preempted", exit_code=0), True


def recurs(history: History, outcome: Outcome) -> bool:
    """Is this the second end in a row on the same node, and brought this start nothing? `history`: without this end."""
    generation = history.generation
    before = history.of(generation - 1).last("end")
    twice = outcome.node and before.get("node") == outcome.node and causes.of(before["cause"]).must_progress
    return bool(twice) and not _progressed(history, generation)


def start_seconds(history: History) -> float:
    """What a start takes, from its first event until it goes on from a checkpoint: as long as the latest that did."""
    for start in reversed(history.all("start")):
        said = history.of(start["generation"])
        # The first of all goes on from nothing; it knows its libraries and its node soon before it trains.
        if begun := said.first("restored") or said.first("environment"):
            return max(0.0, begun["time"] - start["time"])
    return START_SECONDS


def pause(history: History) -> float:
    """Seconds before the next start in the same job: none where the latest brought something, and the more of them did
    not, the longer; what was wrong may be over then. `history`: without this end."""
    if _progressed(history, history.generation):
        return 0.0
    return PAUSES[min(_ends_without_progress(history), len(PAUSES) - 1)]


def _causes(history: History) -> dict[int, str]:
    """{generation: the cause of its end}. One whose requeue was refused has two ends, and ended once."""
    return {end["generation"]: end["cause"] for end in history.all("end")}


def _progressed(history: History, generation: int) -> bool:
    """Did this generation commit a checkpoint, or keep work between two steps, beyond what the earlier ones did?"""
    before, mine = history.before(generation), history.of(generation)
    saved = max((e["step"] for e in before.all("checkpoint")), default=0)
    kept = max((e["work"] for e in before.all("kept")), default=[])
    return any(e["step"] > saved for e in mine.all("checkpoint")) or any(e["work"] > kept for e in mine.all("kept"))


def _ends_without_progress(history: History) -> int:
    """Ends just before the latest generation's, in a row, that brought nothing though they should have."""
    ends, count = _causes(history), 0
    for generation in range(history.generation - 1, 0, -1):
        if not causes.of(ends.get(generation, "killed")).must_progress or _progressed(history, generation):
            break
        count += 1
    return count
