"""Whether a run that ended starts again by itself: by what ended it, how often that happened, and whether it got on.

Preemptions and time limits are free: they are how such clusters work. Other ends have a budget each, and ends in a row
that brought no checkpoint further stop the run whatever their budget: it would only burn GPUs. Pure; evidence comes in
as the run's ledger and the log of its job.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from launcher.errors import NoProgress
from launcher.start.ending import Outcome

FREE = ("preempted", "time_limit", "asked", "requeued")
BUDGETS = {"node_failure": 20, "stuck": 3, "crash": 3, "killed": 3}  # restarts in a run's life; other causes: none
NO_PROGRESS = 3  # ends in a row, none of them free, without a newer checkpoint

# What Slurm itself writes into the log of a job that it ends: "*** JOB 7 ON n1 CANCELLED AT ... DUE TO PREEMPTION ***"
EVIDENCE = {
    "preempted": re.compile(r"DUE TO PREEMPTION"),
    "time_limit": re.compile(r"DUE TO TIME LIMIT"),
    "node_failure": re.compile(r"DUE TO NODE FAILURE|Node failure on|NODE_FAIL"),
    "requeued": re.compile(r"DUE TO JOB REQUEUE"),
    "cancelled": re.compile(r"\*\*\* JOB \S+ ON \S+ CANCELLED AT \S+ \*\*\*"),
}

Event = Mapping[str, Any]


def ended_by_slurm(log: str) -> str:
    """Why Slurm ended a job, from the job's part of its log; empty where it did not."""
    return next((cause for cause, pattern in EVIDENCE.items() if pattern.search(log)), "")


def died_of(log: str, *, node_down: bool) -> str:
    """The cause of an end that the run could not write down itself, from its part of the job's log."""
    return ended_by_slurm(log) or ("node_failure" if node_down else "killed")


def decide(events: Sequence[Event], outcome: Outcome) -> tuple[Outcome, bool]:
    """(the outcome, perhaps a harder one; whether the run starts again). `events`: the ledger without this end."""
    cause = outcome.cause
    if cause in FREE:
        return outcome, True
    if cause not in BUDGETS:
        return outcome, False
    idle = _ends_without_progress(events) + 1
    if idle >= NO_PROGRESS and not _progressed(events, _generation(events)):
        message = f"{outcome.message} ({idle} starts in a row ended without a newer checkpoint)"
        return Outcome("failed", NoProgress.cause, message, NoProgress.exit_code), False
    spent = sum(e["event"] == "end" and e["cause"] == cause for e in events)
    if spent >= BUDGETS[cause]:
        message = f"{outcome.message} (the {spent + 1}th end of this kind: {cause}; {BUDGETS[cause]} are forgiven)"
        return Outcome("failed", cause, message, outcome.exit_code), False
    return Outcome("preempted", cause, outcome.message, 0), True


def _generation(events: Sequence[Event]) -> int:
    return max((e["generation"] for e in events if e["event"] == "start"), default=0)


def _progressed(events: Sequence[Event], generation: int) -> bool:
    """Did this generation commit a checkpoint beyond those of the earlier ones?"""
    saved = [(e["generation"], e["step"]) for e in events if e["event"] == "checkpoint"]
    before = max((step for g, step in saved if g < generation), default=0)
    return any(g == generation and step > before for g, step in saved)


def _ends_without_progress(events: Sequence[Event]) -> int:
    """Ends just before the latest generation's, in a row, that were not free and brought nothing."""
    ends = {e["generation"]: e["cause"] for e in events if e["event"] == "end"}
    count = 0
    for generation in range(_generation(events) - 1, 0, -1):
        if ends.get(generation, "killed") in FREE or _progressed(events, generation):
            break
        count += 1
    return count
