"""What state a run is in: from its ledger, its lock and, where Slurm holds it, the queue. Pure.

pending     never started, or waiting for a start that was asked for
running     at work
preempted   stopped or killed, and Slurm will start it again by itself
stopped     saved at a safe point; `sslrun resume` goes on
cancelled   stopped because somebody asked for it
failed      ended by an error, or killed
done        trained to the end
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Event = Mapping[str, Any]
ACTIVE = ("pending", "running", "preempted")


class Job(Protocol):
    """What the queue says of a job (slurm/commands.py)."""

    state: str  # in Slurm's words
    reason: str  # why it waits


Queue = Mapping[str, Job]  # by the job's id


@dataclass(frozen=True)
class State:
    """`job`: Slurm's id of the job that holds the run now, None once it has none. `message`: why, where known."""

    name: str
    message: str = ""
    job: str | None = None
    why_pending: str = ""


def of(events: Sequence[Event], *, held: bool, queue: Queue | None = None) -> State:
    """The state of a run with this ledger. `held`: some process has its lock; `queue`: the user's jobs in Slurm's
    queue, None where nobody could or needed to ask: then the ledger's word stands.
    """
    starts = [e for e in events if e["event"] == "start"]
    generation = starts[-1]["generation"] if starts else 0
    asked = _waiting(events, generation)
    if asked:
        return _waiting_state(events, asked, generation, queue)
    if not starts:
        return State("running" if held else "pending")
    latest = [e for e in events if e["generation"] == generation]
    job = starts[-1].get("job")
    end = next((e for e in reversed(latest) if e["event"] == "end"), None)
    if end is None or held:
        return _unended(job, held, queue)
    cancelled = any(e["event"] == "cancel" for e in latest)
    if end.get("requeued") and not cancelled:
        return _requeued(end, job, queue)
    name = "cancelled" if cancelled and end["state"] in ("stopped", "preempted") else end["state"]
    return State(name, end.get("message", ""))


def job_of(events: Sequence[Event]) -> str | None:
    """The Slurm job that a run was last given to; None where it never was, or has since been started without one."""
    given = [e for e in events if e["event"] in ("start", "submitted")]
    return given[-1].get("job") if given else None


def open_intent(events: Sequence[Event]) -> Event | None:
    """An intent whose submission nobody wrote down: its submitter was killed in between, or is at it right now."""
    intents = [e for e in events if e["event"] in ("intent", "submitted", "withdrawn", "start")]
    return intents[-1] if intents and intents[-1]["event"] == "intent" else None


def _waiting(events: Sequence[Event], generation: int) -> Event | None:
    """The submission of a generation that has not started."""
    given = [e for e in events if e["event"] == "submitted" and e["generation"] > generation]
    return given[-1] if given else None


def _waiting_state(events: Sequence[Event], asked: Event, generation: int, queue: Queue | None) -> State:
    job = asked["job"]
    gone = not queue or job not in queue  # a job that is still there is the truth, whatever was asked for
    cancels = [e for e in events if e["event"] == "cancel" and e["generation"] > generation]
    if gone and any(e["time"] >= asked["time"] for e in cancels):
        return State("cancelled")
    if queue is None:
        return State("pending", job=job)
    if job in queue:
        pending = queue[job].state == "PENDING"
        return State("pending" if pending else "running", job=job, why_pending=queue[job].reason if pending else "")
    return State("failed", f"job {job} ended before the run began")


def _unended(job: str | None, held: bool, queue: Queue | None) -> State:
    if held or (job and queue is None):
        return State("running", job=job)
    if job and job in queue:
        if queue[job].state == "PENDING":
            return State("preempted", "killed before it could say why", job, queue[job].reason)
        return State("running", job=job)
    return State("failed", f"killed: job {job} is gone and left no word" if job else "")


def _requeued(end: Event, job: str | None, queue: Queue | None) -> State:
    message = end.get("message", "")
    if queue is None:
        return State("preempted", message, job)
    if job in queue:
        pending = queue[job].state == "PENDING"
        return State("preempted" if pending else "running", message, job, queue[job].reason if pending else "")
    return State("stopped", f"{message}; job {job} is no longer in the queue")
