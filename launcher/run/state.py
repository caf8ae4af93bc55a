"""What state a run is in: from its ledger, its lock and, where Slurm holds it, the queue. Pure.

pending     never started, or waiting for a start that was asked for
not submitted   of a cluster, never started, and no job has it: Slurm would not take it, or nobody got so far as to ask
running     at work
preempted   ended, by whatever, and Slurm will start it again by itself
stopped     saved at a safe point; `sslrun resume` goes on
cancelled   stopped because somebody asked for it
failed      ended by an error, or killed
done        trained to the end
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from launcher.run.ledger import Event, History, goes_on

ACTIVE = ("pending", "running", "preempted")


class QueuedJob(Protocol):
    """What the queue says of a job (slurm/commands.py)."""

    state: str  # in Slurm's words
    reason: str  # why it waits
    suspended: str | None  # since when, where it is


Queue = Mapping[str, QueuedJob]  # by the job's id


@dataclass(frozen=True)
class State:
    """`job`: Slurm's id of the job that holds the run now, None once it has none. `message`: why, where known.
    `suspended`: since when Slurm keeps that job from running, None where it does not."""

    name: str
    message: str = ""
    job: str | None = None
    why_pending: str = ""
    suspended: str | None = None


def of(history: History, *, held: bool, queue: Queue | None = None, slurm: bool = False) -> State:
    """The state of a run with this ledger. `held`: some process has its lock; `queue`: the user's jobs in Slurm's
    queue, None where nobody could or needed to ask: then the ledger's word stands. `slurm`: only a job could start it.
    """
    start = history.last("start")
    asked = history.after(history.generation).last("submitted")
    if asked:
        return _waiting(history, asked, queue)
    if not start:
        if slurm and not held and not history.open_intent:
            return State("not submitted", history.last("withdrawn").get("why", ""))
        return State("running" if held else "pending")
    latest = history.of(history.generation)
    end = latest.last("end")
    # One of a job that had not begun, before the run was submitted again, is about that job.
    cancelled = any(e.get("job") in (None, start.get("job")) for e in latest.all("cancel"))
    if not end or held:
        return _unended(start.get("job"), held, queue, cancelled=cancelled)
    if goes_on(end) and not cancelled:
        return _requeued(end, start.get("job"), queue)
    name = "cancelled" if cancelled and end["state"] in ("stopped", "preempted") else end["state"]
    return State(name, end.get("message", ""))


def _waiting(history: History, asked: Event, queue: Queue | None) -> State:
    """Of a run that was submitted and has not started since."""
    job = asked["job"]
    gone = not queue or job not in queue  # a job that is still there is the truth, whatever was asked for
    cancels = history.after(history.generation).all("cancel")
    if gone and any(e.get("job") == job for e in cancels):
        return State("cancelled")
    if queue is None:
        return State("pending", job=job)
    if job in queue:
        if queue[job].state == "PENDING":
            return State("pending", job=job, why_pending=queue[job].reason)
        return _at_work(job, queue)
    return State("failed", f"job {job} ended before the run began")


def _unended(job: str | None, held: bool, queue: Queue | None, *, cancelled: bool) -> State:
    if cancelled and not held and queue is not None and job not in queue:
        return State("cancelled", "killed where it stood")
    if held or (job and queue is None):
        return _at_work(job, queue)
    if job and job in queue:
        if queue[job].state == "PENDING":
            return State("preempted", "killed before it could say why", job, queue[job].reason)
        return _at_work(job, queue)
    return State("failed", f"killed: job {job} is gone and left no word" if job else "")


def _at_work(job: str | None, queue: Queue | None) -> State:
    return State("running", job=job, suspended=queue[job].suspended if queue and job in queue else None)


def _requeued(end: Event, job: str | None, queue: Queue | None) -> State:
    message = end.get("message", "")
    if queue is None:
        return State("running" if end.get("in_place") else "preempted", message, job)
    if job in queue:
        pending = queue[job].state == "PENDING"
        return State("preempted" if pending else "running", message, job, queue[job].reason if pending else "")
    return State("stopped", f"{message}; job {job} is no longer in the queue")
