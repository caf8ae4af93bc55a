"""That a job is to end, as its first process hears of it: by a signal, or because it asks. Slurm signals the steps of a
job and not its batch script; where there is no step, it tells nobody."""

import math
import signal
import subprocess
import threading
import time

from launcher.run import heartbeats
from launcher.run.folder import RunDir
from launcher.slurm.commands import SlurmJob
from launcher.start import job

PASS_ON_SECONDS = 1.0
ASK_SECONDS = 5.0
EARLY_SECONDS = 60.0  # at most, that Slurm tells of the time limit before it is to


class Told:
    """`signal`: the name of the first that came; this process lives on and sees the ranks through. `warning_s`: so long
    before the time limit the ranks are told."""

    def __init__(self) -> None:
        self.signal: str | None = None
        self.ranks_begun = False
        self.warning_s = 0.0
        self.began = time.monotonic()
        self._limit = math.inf  # by this process's watch, as of the latest answer
        self._event = threading.Event()
        signal.signal(signal.SIGCONT, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, lambda number, _: self._hear(signal.Signals(number).name))

    def _hear(self, name: str) -> None:
        self.signal = self.signal or name
        self._event.set()

    def ask(self, found: SlurmJob | None) -> None:
        """`found`: what Slurm says of the job. What it has told, or would have told the steps that there are not."""
        self._limit = time.monotonic() + found.seconds_left if found else self._limit
        if found and found.preempted:
            self._hear(signal.SIGTERM.name)
        elif found and found.seconds_left < self.warning_s:
            self._hear(signal.SIGUSR2.name)

    def rest(self, seconds: float) -> None:
        """Wait, unless the job is to end meanwhile."""
        end = time.monotonic() + seconds
        while not self.signal and (left := end - time.monotonic()) > 0:
            self._event.wait(min(left, ASK_SECONDS))
            self.ask(job.standing())

    def pass_on(self, step: subprocess.Popen, run: RunDir, generation: int, ranks: int) -> None:
        """In a thread: Slurm tells the steps that it knows of; ranks that begin to live after that are told here."""

        def missing() -> int:
            return ranks - heartbeats.alive(run, generation)

        begun = False
        while not self._event.wait(ASK_SECONDS):
            if step.poll() is not None:
                return
            # Once more after they have begun, and near the limit: they may have been told before.
            if not begun or time.monotonic() > self._limit - self.warning_s - EARLY_SECONDS:
                begun = begun or not missing()
                self.ask(job.standing())
        begun = False
        while not begun and step.poll() is None:  # once more when all have begun: Slurm may have told nobody
            begun = not missing()
            time.sleep(PASS_ON_SECONDS)
            step.send_signal(signal.SIGUSR2)  # srun passes it on to the ranks that it has started
