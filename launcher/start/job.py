"""This process's own job, as Slurm's commands know it, and how it goes back into the queue."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Collection

from launcher.errors import ClusterError
from launcher.slurm import commands
from launcher.slurm.commands import SlurmJob

CONTROLLER_SECONDS = 600.0  # how long a requeue waits for a controller that is being restarted
POLL_SECONDS = 2.0
SENT_SECONDS = 3.0  # of the five for which Slurm keeps what it cannot do yet
UNHEARD = re.compile("does not answer|no answer|Unable to contact")


def own_id() -> str:
    """This job's own id. SLURM_JOB_ID of one task of an array is the array's: who requeues that requeues every task."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


def restarts() -> int:
    """How often Slurm had started it before."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))


def standing(patience: float = 0.0) -> SlurmJob | None:
    """What Slurm says of it now: its nodes, what is left of its time, whether others want its nodes. None where nobody
    answers within `patience` seconds, which is no reason to end without a word."""
    end = time.monotonic() + patience
    while True:
        with contextlib.suppress(ClusterError):
            return commands.ended(own_id())
        if time.monotonic() > end:
            return None
        time.sleep(POLL_SECONDS)


def back_into_the_queue(without: Collection[str] = ()) -> None:
    """Under the same job id, to be started on other nodes than `without`; Slurm ends this script for it. Raises
    ClusterError."""
    # Only a job that waits can be told which nodes it is not to get, and Slurm's TERM comes with the requeue.
    signal.signal(signal.SIGTERM, signal.SIG_IGN if without else signal.SIG_DFL)
    if not _put_back(own_id(), commands.requeue):
        return
    if without:
        commands.leave_out(own_id(), sorted(without), seconds=SENT_SECONDS)
        return
    time.sleep(120)


def back_and_held() -> None:
    """Into the queue under the same job id, where nothing but a release starts it. Of that this process hears nothing
    before Slurm kills it, KillWait later. Raises ClusterError."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _put_back(own_id(), commands.requeue_held)


def _put_back(job: str, requeue: Callable[[str], None]) -> bool:
    """Requeue `job`; False where Slurm has done so already, and so has ended this script as far as it knows.

    Waits for a controller that is being restarted. Raises ClusterError where the cluster does not requeue.
    """
    end = time.monotonic() + CONTROLLER_SECONDS
    while True:
        try:
            requeue(job)
            return True
        except ClusterError as error:
            if "pending execution" in str(error):
                return False
            with contextlib.suppress(ClusterError):
                found = commands.ended(job)
                if found and (found.restarts or 0) > restarts():
                    return False
            if not UNHEARD.search(str(error)) or time.monotonic() > end:
                raise
        time.sleep(POLL_SECONDS)
