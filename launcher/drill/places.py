"""Where a drilled run runs: on this machine, as a process that is started again by the drill, or in Slurm's queue."""

import contextlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from launcher.errors import ClusterError
from launcher.plan import steps
from launcher.run.folder import RunDir
from launcher.run.state import ACTIVE
from launcher.slurm import commands
from launcher.slurm.client import ask

LOCAL, SLURM = "local", "slurm"
COMMAND_SECONDS = 600.0
QUEUE_SECONDS = 1.0


class Place:
    """One run's place. `log`: where `sslrun` says what it has to say."""

    name: str
    restarts: bool  # whether a run is started again without anybody asking

    def __init__(self, log: Path, environment: Mapping[str, str]):
        self._log, self._environment = log, environment

    def start(self, *words: str) -> None:
        """`sslrun *words`, which starts the run. Raises RuntimeError with what it said where it refuses."""

    def over(self, run: RunDir, generation: int) -> bool:
        """Has this start of the run ended, or a later one begun?"""
        return self.at_rest(run) or run.generation() > generation

    def at_rest(self, run: RunDir) -> bool:
        """Will nothing more happen unless somebody asks for it?"""

    def on(self, run: RunDir, host: str, *command: str) -> str:
        """Run a command where the rank on `host` runs and return what it said."""

    def clean(self, run: RunDir | None) -> None:
        """End whatever is left of the run."""


class Here(Place):
    """This machine."""

    name, restarts = LOCAL, False
    launcher: subprocess.Popen | None = None

    def start(self, *words: str) -> None:
        if self.launcher is not None:
            self.launcher.wait()
        with self._log.open("ab") as log:
            self.launcher = subprocess.Popen(
                sslrun(*words),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is the drill's business
            )

    def at_rest(self, run: RunDir) -> bool:
        return self.launcher is None or self.launcher.poll() is not None

    def on(self, run: RunDir, host: str, *command: str) -> str:
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=COMMAND_SECONDS
        ).stdout

    def clean(self, run: RunDir | None) -> None:
        if self.launcher is not None:
            self.launcher.kill()  # nothing where it has ended
            self.launcher.wait()
        for pid in processes(run) if run else ():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, 9)


class OnSlurm(Place):
    """The queue of the cluster at hand."""

    name, restarts = SLURM, True

    _asked = -math.inf

    def start(self, *words: str) -> None:
        self._asked = -math.inf
        said = command(*words, environment=self._environment)
        with self._log.open("a") as log:
            log.write(said.stdout + said.stderr)
        if said.returncode:
            raise RuntimeError(f"`sslrun {' '.join(words)}` refused: {said.stderr.strip().splitlines()[-1:]}")

    def over(self, run: RunDir, generation: int) -> bool:
        return bool(run.history().of(generation).all("end")) or super().over(run, generation)

    def at_rest(self, run: RunDir) -> bool:
        with contextlib.suppress(ClusterError):  # a controller that is busy for a moment
            return run.state(self._queue()).name not in ACTIVE and run.history().job not in self._queue()
        return False

    def on(self, run: RunDir, host: str, *command: str) -> str:
        return ask(*steps.on_node(run.spec(), run.history().job or "", host, command), seconds=COMMAND_SECONDS)

    def clean(self, run: RunDir | None) -> None:
        job = run.history().job if run else None
        if job:
            with contextlib.suppress(ClusterError):
                commands.cancel([job])

    def _queue(self) -> Mapping[str, commands.SlurmJob]:
        """The user's jobs, as of a second ago at most: whoever waits looks often."""
        if time.monotonic() - self._asked > QUEUE_SECONDS:
            self._jobs, self._asked = commands.jobs(), time.monotonic()
        return self._jobs


def sslrun(*words: str) -> list[str]:
    """The command line of this very program."""
    return [sys.executable, "-P", "-m", "launcher.cli", *words]


def command(*words: str, environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """`sslrun *words`, waited for."""
    return subprocess.run(
        sslrun(*words),
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=COMMAND_SECONDS,
    )


def processes(run: RunDir) -> list[int]:
    """Processes of this machine that work for the run: ranks, their data-loader workers, the job's first process."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            _, *words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if any(word.startswith(str(run.path)) for word in words) and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found
