"""The ranks of the next start of a job, begun while those of this one work: they have imported what they need and wait,
so that a start in place lies behind its imports.

They are a step of their own, by the same srun line as the ranks of any start but for `--overlap`: what Slurm binds,
signals and counts, and who is whose child, is as without it. Nothing is forked, and no GPU is touched before the start
is theirs. What is known only then, where the ranks meet, comes as a line on their stdin, which srun passes on; its end
is theirs, too, so that they outlive neither the job's first process nor its srun. start/ahead.py is the other side.
"""

import contextlib
import json
import subprocess
import threading
from collections.abc import Mapping, Sequence

from launcher.errors import SslrunError
from launcher.plan import containers, script, steps
from launcher.run import heartbeats
from launcher.run.folder import RunDir
from launcher.spec import registry
from launcher.spec.runspec import RunSpec
from launcher.start.handover import STANDBY
from launcher.start.heard import Heard

POLL_SECONDS = 1.0
END_SECONDS = 10.0  # that an srun has whose tasks have heard that they are not needed
TAKES_GB, SHARE = 0.5, 0.1  # of host memory for each (measured); of the job's memory on a node for all, at most
# What the ranks may learn as late as that: nothing reads it while it is imported.
LATE = {"MASTER_ADDR", "MASTER_PORT", "SSLRUN_INTERFACES", "GLOO_SOCKET_IFNAME"}


class Standby:
    """Those of one job, at most one step of them at a time."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._step: subprocess.Popen | None = None
        self._heard: Heard | None = None
        self._words: list[str] = []
        self._environment: dict[str, str] = {}

    def begin_behind(self, run: RunDir, spec: RunSpec, nodes: Sequence[str], told: Mapping[str, str]) -> None:
        """Begin those of the next start, once the ranks of this one, which have begun, have done a step of the
        training: before, a start may end for reasons that the next one has, too, and the CPUs are theirs. Returns at
        once. told: the environment of the next ones, as far as it is known.

        Does nothing where `cluster.standby` says so, where the job's memory is scarce, with containers, of which a node
        would hold two, and for what is no training, and would be looked at for a first step as long as it takes.
        """
        wanted = spec.cluster.standby and _has_room(spec) and not containers.contained(spec.cluster)
        if wanted and _trains(run, spec):
            self._over = threading.Event()
            self._thread = threading.Thread(target=self._begin, args=(run, spec, nodes, told, self._over), daemon=True)
            self._thread.start()

    def _begin(
        self, run: RunDir, spec: RunSpec, nodes: Sequence[str], told: Mapping[str, str], over: threading.Event
    ) -> None:
        generation = int(told["SSLRUN_GENERATION"])
        while not _has_begun(run, generation - 1):
            if over.wait(POLL_SECONDS):
                return
        if over.is_set():
            return
        self._words = steps.ranks(spec, run.path, nodes, standby_name(generation), waits=True)
        self._environment = dict(told)
        pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
        try:
            self._step = subprocess.Popen(self._words, env={**told, STANDBY: "1"}, **pipes)
        except OSError as error:  # no memory, say: the next start is as any other
            print(f"sslrun: ranks of the next start cannot wait for it: {error.strerror}", flush=True)
            return
        self._heard = Heard(self._step)

    def take(
        self, run: RunDir, spec: RunSpec, nodes: Sequence[str], told: Mapping[str, str]
    ) -> tuple[subprocess.Popen, Heard] | None:
        """The ranks of the start that begins now, where all of them are ready and are those that would be started:
        their srun, and what it says. told: their environment. None where they are not; then they have been sent away.
        """
        step, heard, self._step = self._step, self._heard, None
        if step is None:
            return None
        generation = int(told["SSLRUN_GENERATION"])
        late = {key for key in {*told, *self._environment} if told.get(key) != self._environment.get(key)}
        same = self._words == steps.ranks(spec, run.path, nodes, standby_name(generation), waits=True) and late <= LATE
        sound = step.poll() is None and not heard.failed and not heard.lost
        if same and sound and heartbeats.ready(run, generation) == len(nodes) * spec.tasks_per_node:
            with contextlib.suppress(OSError):  # it has ended a moment ago
                step.stdin.write(json.dumps({key: told.get(key) for key in sorted(late)}) + "\n")
                step.stdin.close()
                return step, heard
        _send_away(step)
        return None

    def begin_none(self) -> None:
        """The ranks that work have ended: those who wait go on waiting, and nobody else begins to."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(END_SECONDS)  # it may look for the run where the file system is away

    def end(self) -> None:
        """Nobody is needed any more."""
        self.begin_none()
        if self._step is not None:
            _send_away(self._step)
        self._step = None


def standby_name(generation: int) -> str:
    """Of the step, which is not that of an ordinary start: who kills one must not kill the other."""
    return f"standby{generation}"


def _has_room(spec: RunSpec) -> bool:
    asked = script.asked_memory_gb(spec)
    return asked is None or TAKES_GB * spec.tasks_per_node <= SHARE * asked


def _trains(run: RunDir, spec: RunSpec) -> bool:
    with contextlib.suppress(SslrunError):  # whoever cannot load it says so
        return not run.owner and registry.method(spec.method.name).trains
    return False


def _has_begun(run: RunDir, generation: int) -> bool:
    with contextlib.suppress(OSError, SslrunError):  # it is looked at again
        return bool(run.history().of(generation).first("first_step"))
    return False


def _send_away(step: subprocess.Popen) -> None:
    """Without waiting: of a node that is lost srun does not come back."""
    with contextlib.suppress(OSError):
        step.stdin.close()
    threading.Thread(target=_bury, args=(step,), daemon=True).start()


def _bury(step: subprocess.Popen) -> None:
    try:
        step.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        step.kill()
        step.wait()
