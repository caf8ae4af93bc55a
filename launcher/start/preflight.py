"""The nodes of a job looked at: whether a start can be made on them, and what one that is over has left there."""

import math
import os
import re
import subprocess
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from launcher import durations
from launcher.errors import NodesRefused, NotStarted
from launcher.plan import containers, script, steps
from launcher.run import waiting
from launcher.run.folder import RunDir
from launcher.slurm import srun
from launcher.spec.runspec import RunSpec

PREFLIGHT_SECONDS = 120.0  # for a node's answer, from the first word of the last one on
SEEN_SECONDS = 60.0  # how long a node may take to see the run: it mounts the folder now, or the file server is away
HERE_SECONDS = 10.0  # the same of this node, for what a run reads
INSIDE_SECONDS = 2.0  # the same of a container, into which nothing is mounted later
ASKED_SECONDS = 30.0  # for a node that is lost: a task on one that refuses connections fails after 11 (measured)
TICK_SECONDS = 1.0
HEED_SECONDS = 5.0
TOGETHER = 16  # nodes that are asked at the same time
STILL_HELD, SILENT = "does not let go of its ranks", "does not start a task"
STUCK = "is stuck where it looks for the run"  # a file system that does not answer
READY = re.compile(r"(?P<node>\S+) is (?P<host>\S+)")
BEGINS = "begins"
# Of a plugin, such as the one that fetches images: srun ends with 0 where that is why there are no tasks (22.05).
FAILED = re.compile(r"spank: required plugin .* failed|task \d+ launch failed")
LISTS = ("SLURM_NODELIST", "SLURM_JOB_NODELIST")  # as the job began; it may have lost nodes since, or given some back


def environment() -> dict[str, str]:
    """Of every srun of the job."""
    return {name: value for name, value in os.environ.items() if name not in LISTS}


def look(
    run: RunDir,
    spec: RunSpec,
    nodes: Sequence[str],
    code: Path,
    *,
    seconds: float,
    beside: bool,
    unwanted: Callable[[], bool],
    show: Callable[[str], None],
) -> dict[str, str]:
    """{node: its host name}, once each of `nodes` sees the run, its `code` and what it reads, within `seconds`, and has
    the Python of a rank.

    beside: see steps.look. unwanted: asked now and then whether the start is to end, which is nobody's fault; then {}.
    show: gets a stage for `sslrun status` where that takes its time. Raises NodesRefused where some lack it, or start
    nothing, and NotStarted where it cannot be said which.
    """
    seconds = min(seconds, INSIDE_SECONDS) if containers.contained(spec.cluster) else seconds
    command = steps.look(spec, run.path, nodes, _paths(spec, code), seconds=int(seconds), beside=beside)
    step = _Look(spec, nodes, Srun(command, spec.cluster.environment))  # which may say what a container shows
    try:
        over = step.see_through(unwanted, show)
    finally:
        step.srun.close()
    said = step.said()
    hosts = {node: found["host"] for node in said if (found := READY.fullmatch(f"{node} {said[node]}"))}
    if over and not step.srun.process.returncode and len(hosts) == len(nodes):
        return hosts
    print(*step.srun.errors, sep="", flush=True)
    if unwanted():
        return {}
    if refused := {node: why for node, why in said.items() if node not in hosts and why != BEGINS}:
        raise NodesRefused(refused, remedy(run, spec, "; ".join(refused.values())))
    _refuse_silent(spec, nodes)
    silent = {node: SILENT for node in nodes if node not in said}
    reason = srun.reason(step.srun.errors) or f"exit code {step.srun.process.returncode}"
    if over:
        if silent and not _are_most(silent, nodes) and FAILED.search("".join(step.srun.errors)):
            raise NodesRefused({node: f"{SILENT}: {reason}" for node in silent})
        raise NotStarted(f"starting a task on every node failed: {reason}{_other_options(run, spec, reason)}")
    left = silent | {node: STUCK for node in said if node not in hosts}
    if left and not _are_most(left, nodes):
        raise NodesRefused(left)
    raise NotStarted(f"a node of {','.join(nodes)} {SILENT if silent else STUCK}")


def _are_most(left: Collection[str], nodes: Collection[str]) -> bool:
    """Then it is what they share, a file server or a registry, and may be over at the next start."""
    return 2 * len(left) > len(nodes)


def remedy(run: RunDir, spec: RunSpec, said: str) -> str:
    """What to type where all nodes lack what is `said`; empty where that is not known."""
    if steps.INSIDE not in said:
        return ""
    from launcher.compose import mounts  # with Hydra, which takes longer than all else here

    line = mounts.line(spec)
    return f"`sslrun resume {run.typed} {line}` shows all" if line[1:].startswith("cluster.") else ""


def _other_options(run: RunDir, spec: RunSpec, reason: str) -> str:
    """The same for what srun said where it started nothing, and was given options: those that it names, else all."""
    given = {key: str(value) for key, value in spec.cluster.srun.items() if value not in (None, False)}
    named = [key for key, value in given.items() if key.replace("_", "-") in reason or value in reason] or [*given]
    line = " ".join(f"cluster.srun.{key}=VALUE" for key in named)
    return f"; `sslrun resume {run.typed} {line}` starts it otherwise" if named else ""


def _paths(spec: RunSpec, code: Path) -> list[str]:
    """What this node has, and all must have. Of what is gone everywhere the ranks say more; a folder of the node's own
    may be made by them, though not into a container."""
    own = containers.of_the_node(spec) if containers.contained(spec.cluster) else []
    paths = [*containers.opened(spec), *own]
    there: list[str] = []  # as far as the file systems answer
    looking = threading.Thread(target=lambda: there.extend(filter(os.path.exists, paths)), daemon=True)
    looking.start()
    looking.join(HERE_SECONDS)
    return [str(code), *there]


def patience(spec: RunSpec) -> float:
    """Seconds for the first word of a step's tasks."""
    return containers.patience(spec.cluster, PREFLIGHT_SECONDS)


class _Look:
    """Of nodes, while it goes on. Seconds are those in which this process runs: of a suspended job none pass."""

    def __init__(self, spec: RunSpec, nodes: Sequence[str], srun: "Srun"):
        self.srun, self._spec, self._nodes = srun, spec, nodes
        self._patience = patience(spec)

    def said(self) -> dict[str, str]:
        """{node: its latest words}. A site may have tasks say something of its own."""
        words = (line.rstrip("\n").partition(" ") for line in self.srun.lines)
        return {node: why for node, _, why in words if node in self._nodes}

    def see_through(self, unwanted: Callable[[], bool], show: Callable[[str], None]) -> bool:
        """Whether it came to its end by itself, and not because it took too long or is `unwanted`."""
        passed = begun = heeded = asked = 0.0
        shown = ""
        while not self.srun.ended(TICK_SECONDS):
            passed += TICK_SECONDS
            said = self.said()
            silent = [node for node in self._nodes if node not in said]
            begun = passed if silent else begun
            if passed >= self._patience if silent else passed - begun >= PREFLIGHT_SECONDS:
                return False
            if passed - heeded >= HEED_SECONDS:
                heeded = passed
                if unwanted():
                    return False
                if silent or shown:
                    shown = self._waits(silent, passed)
                    show(shown)
            # One that fetches an image starts a task without one at once; one that is lost does not.
            if silent and passed - asked >= PREFLIGHT_SECONDS:
                asked = passed
                if unusable(self._spec, {node: [] for node in silent}):
                    return False
        if shown:
            show("starting")
        return True

    def _waits(self, silent: Sequence[str], passed: float) -> str:
        if not silent:
            return "starting"
        who = ", ".join(silent) if len(silent) < 3 else f"{len(silent)} of {len(self._nodes)} nodes"
        image = script.image(self._spec.cluster)
        fetched = f"; {image} may be fetched" if image else ""
        return f"{waiting.WAITS}{who} to begin, {durations.short(passed)}{fetched}"


class Srun:
    """An srun of the job, and what its tasks say, as they say it."""

    def __init__(self, command: Sequence[str], more: Mapping[str, str] | None = None):
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        text = {"encoding": "utf-8", "errors": "replace"}
        self.process = subprocess.Popen(command, env={**environment(), **(more or {})}, **streams, **text)
        self.lines: list[str] = []
        self.errors: list[str] = []
        heard = ((self.process.stdout, self.lines), (self.process.stderr, self.errors))
        self._threads = [threading.Thread(target=_listen, args=each, daemon=True) for each in heard]
        for thread in self._threads:
            thread.start()

    def ended(self, seconds: float) -> bool:
        """Whether it has, within so many seconds."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        for thread in self._threads:
            thread.join(HEED_SECONDS)
        return True

    def close(self, seconds: float = 0.0) -> None:
        """seconds: to end its tasks in, which outlive one that is killed at once."""
        if seconds:
            self.process.terminate()
            self.ended(seconds)
        self.process.kill()
        self.process.wait()


def _listen(stream: IO[str], lines: list[str]) -> None:
    lines.extend(stream)


def _refuse_silent(spec: RunSpec, nodes: Sequence[str]) -> None:
    """Raises NodesRefused where some of `nodes` start nothing, and others do."""
    silent = unusable(spec, {node: [] for node in nodes})
    if 0 < len(silent) < len(nodes):
        raise NodesRefused(silent)


def unusable(spec: RunSpec, left: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """{node: why} of those on which one of these processes is left, or nothing can be started."""

    def why(node: str) -> str:
        srun = Srun(steps.gone(spec, node, left[node]))
        ticks = range(math.ceil(ASKED_SECONDS / TICK_SECONDS))  # of a job that is suspended none pass
        code = srun.process.returncode if any(srun.ended(TICK_SECONDS) for _ in ticks) else None
        srun.close()
        return {0: "", steps.LEFT: STILL_HELD}.get(code, SILENT)

    with ThreadPoolExecutor(TOGETHER) as pool:
        return {node: said for node, said in zip(left, pool.map(why, left), strict=True) if said}
