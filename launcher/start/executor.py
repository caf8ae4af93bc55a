"""submitit's Slurm executor, with three differences that make a submission safe.

- The pickles lie in the folder before sbatch is called, and the batch script picks its own: a submitter that is killed
  right after sbatch leaves a job that works.
- What belongs to one submission only (the token, excluded nodes, dependencies) goes to sbatch on the command line, so
  that the script is the plan's to the letter.
- sbatch holds the submitter's lock while it lives: whoever comes next waits until it is known whether there is a job.
"""

import pkgutil
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from submitit.core.utils import DelayedSubmission
from submitit.slurm.slurm import SlurmExecutor, SlurmJob

from launcher.slurm import client, commands


class Named:
    """A function of the code that the job finds on its path: pickled as its name."""

    def __init__(self, name: str):
        self._name = name

    def __call__(self, *given: Any) -> Any:
        return pkgutil.resolve_name(self._name)(*given)

    def __reduce__(self) -> tuple:
        return pkgutil.resolve_name, (self._name,)


class Executor(SlurmExecutor):
    """`submit(function, path)` and `map_array(function, paths)` as submitit has them; raises ClusterError.

    The methods with an underscore are submitit's own steps of a submission, which it has no public way to replace;
    tests/launcher/start/test_submit.py goes through each.
    """

    def __init__(self, folder: Path, parameters: Mapping[str, Any], *, options: Sequence[str], lock: int, python: str):
        super().__init__(folder, max_num_timeout=0, python=shlex.quote(python))
        self.parameters = dict(parameters)
        self._options, self._lock = list(options), lock

    def _internal_process_submissions(self, delayed_submissions: list[DelayedSubmission]) -> list[SlurmJob]:
        for index, delayed in enumerate(delayed_submissions):
            delayed.set_timeout(self.parameters["time"], self.max_num_timeout)
            delayed.dump(self.folder / f"{index}.pkl")
        count = len(delayed_submissions)
        if count == 1:
            return [self._submit_command(self._submitit_command_str)]
        self.parameters["map_count"] = count
        first = self._submit_command(self._submitit_command_str)
        return [SlurmJob(self.folder, f"{first.job_id}_{index}", [0]) for index in range(count)]

    def _submit_command(self, command: str) -> SlurmJob:
        script = self.folder / "script.sh"
        script.write_text(self._make_submission_file_text(command, ""))
        job = commands.submit(script, self._options, environment=client.environment(), pass_fds=[self._lock])
        return SlurmJob(self.folder, job, [0])
