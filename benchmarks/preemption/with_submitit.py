"""python with_submitit.py OPTIONS        the plain job, submitted with submitit as its documentation shows.

OPTIONS: JSON of plain.Options. `checkpoint` is called when the job is told by USR2, and saves once more.
"""

import json
import sys
from pathlib import Path

import submitit
from plain import Options, Training


class Job:
    """What submitit pickles, calls, and asks for a checkpoint."""

    def __init__(self, options: Options):
        self.options = options
        self.training = None

    def __call__(self) -> None:
        self.training = Training(self.options)
        self.training.run()

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        if self.training is not None:
            self.training.save()
        return submitit.helpers.DelayedSubmission(Job(self.options))


if __name__ == "__main__":
    given = Options(**json.loads(sys.argv[1]))
    executor = submitit.SlurmExecutor(folder=Path(given.folder, "submitit"))
    executor.update_parameters(
        partition="low", time=120, nodes=1, ntasks_per_node=1, cpus_per_task=1, signal_delay_s=60
    )
    print(executor.submit(Job(given)).job_id)
