"""Every cause for which a start of a run ends, as the ledger calls it, and what follows from it.

The `end` event of a start holds its cause, and the `start` event after it holds the same one: why that start began.
To add a cause: a line here, what notices it (an error with this `cause` in launcher/errors.py, or evidence in start/),
and a row in docs/preemption.md.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Cause:
    """forgiven: how often, over all its starts, a run starts again by itself after it; None: every time.
    resumable: a person can go on from it at once, with `sslrun resume`, and nothing else need be mended first.
    must_progress: several such ends in a row that brought nothing stop the run, however often each is forgiven.
    may_be_slurms: what it looks like to the ranks when Slurm ends their job; Slurm's own word for the end is better.
    in_place: what the job's own nodes can mend: it starts again at once, in the same job, where these are enough.
    """

    forgiven: int | None = 0
    resumable: bool = False
    must_progress: bool = True
    may_be_slurms: bool = False
    in_place: bool = False


FREE = Cause(None, resumable=True, must_progress=False)
MENDED = Cause(3, resumable=True, may_be_slurms=True, in_place=True)

CAUSES = {
    # How such clusters work, and no fault of the run.
    "preempted": FREE,
    "asked": FREE,  # a signal told it to stop
    "requeued": FREE,  # scontrol requeue
    "suspended": replace(FREE, in_place=True),  # for longer than a library waits, which then ended the ranks
    "time_limit": Cause(None, resumable=True),  # one that is shorter than what comes before the first save recurs
    # What the next start may not meet again.
    "node_failure": Cause(20, resumable=True, in_place=True),
    "setup": Cause(20, resumable=True, may_be_slurms=True),  # an item of cluster.setup failed that had not before
    "unreadable": replace(MENDED, forgiven=20),  # a file that had been waited for: run/waiting.py
    "stuck": replace(MENDED, may_be_slurms=False),
    "not_started": MENDED,  # srun could start nothing on the job's nodes
    "crash": MENDED,
    "killed": MENDED,
    "unfinished": MENDED,  # exit code 0, and no word that the work is done
    # What somebody wanted.
    "done": Cause(),
    "stopped": Cause(resumable=True),
    "cancelled": Cause(resumable=True),
    # What the next start would meet again.
    "input": Cause(),
    "cluster": Cause(may_be_slurms=True),
    "diverged": Cause(),
    "damaged": Cause(),
    "no_progress": Cause(),
    "superseded": Cause(),
}


def of(name: str) -> Cause:
    """What is known of it. One that nobody has listed is never forgiven."""
    return CAUSES.get(name, Cause())
