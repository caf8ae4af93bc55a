"""Something small on a second node of a job that outlives its nodes: it puts the job back into the queue when the first
one, where the batch script is, dies."""

import subprocess

from launcher.plan import steps
from launcher.run.folder import RunDir
from launcher.spec.runspec import RunSpec
from launcher.start import job, preflight
from launcher.start.allocation import Allocation


class Understudy:
    """Ends with its job."""

    def __init__(self) -> None:
        self._node = ""
        self._step: subprocess.Popen | None = None

    def stand_by(self, run: RunDir, spec: RunSpec, nodes: Allocation) -> None:
        """Be on another node than the first, one of the ranks' where they have others: whether it lives is looked at
        before each start, and when such a node dies there is one."""
        if self._step and self._step.poll() is None and self._node in nodes.usable:
            return
        if self._step and self._step.poll() is None:
            self._step.kill()
        others = [node for node in (*nodes.taken, *nodes.usable) if node != nodes.first]
        if others:
            self._node = others[0]
            quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            words = steps.understudy(spec, run.path, job.own_id(), nodes.first, job.restarts(), self._node)
            self._step = subprocess.Popen(words, env=preflight.environment(), **quiet)
