"""This process's own job, as Slurm's commands know it, and how it goes back into the queue."""

import contextlib
import os
import re
import signal
import time

from launcher.errors import ClusterError
from launcher.slurm import commands

CONTROLLER_SECONDS = 600.0  # how long a requeue waits for a controller that is being restarted
POLL_SECONDS = 2.0
UNHEARD = re.compile("does not answer|no answer|Unable to contact")


def own_id() -> str:
    """This job's own id. SLURM_JOB_ID of one task of an array is the array's: who requeues that requeues every task."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


def back_into_the_queue() -> None:
    """Under the same job id; Slurm ends this script for it. Raises ClusterError."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if _put_back(own_id()):
        time.sleep(120)


def _put_back(job: str) -> bool:
    """Requeue `job`; False where Slurm has done so already, and so has ended this script as far as it knows.

    Waits for a controller that is being restarted. Raises ClusterError where the cluster does not requeue.
    """
    end = time.monotonic() + CONTROLLER_SECONDS
    while True:
        try:
            commands.requeue(job)
            return True
        except ClusterError as error:
            if "pending execution" in str(error):
                return False
            with contextlib.suppress(ClusterError):
                found = commands.ended(job)
                if found and (found.restarts or 0) > int(os.environ.get("SLURM_RESTART_COUNT", 0)):
                    return False
            if not UNHEARD.search(str(error)) or time.monotonic() > end:
                raise
        time.sleep(POLL_SECONDS)
