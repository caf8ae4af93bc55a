"""The nodes of a job looked at: whether a start can be made on them, and what one that is over has left there."""

import contextlib
import math
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from launcher.errors import NodesRefused, NotStarted
from launcher.plan import steps
from launcher.run.folder import RunDir
from launcher.spec.runspec import RunSpec

PREFLIGHT_SECONDS = 120
SEEN_SECONDS = 60.0  # how long a node may take to see the run: it mounts the folder now, or the file server is away
ASKED_SECONDS = 30.0  # for a node that is lost: a task on one that refuses connections fails after 11 (measured)
TICK_SECONDS = 1.0
TOGETHER = 16  # nodes that are asked at the same time
STILL_HELD, SILENT = "does not let go of its ranks", "does not start a task"
READY = re.compile(r"(?P<node>\S+) is (?P<host>\S+)")
LISTS = ("SLURM_NODELIST", "SLURM_JOB_NODELIST")  # as the job began; it may have lost nodes since, or given some back


def environment() -> dict[str, str]:
    """Of every srun of the job."""
    return {name: value for name, value in os.environ.items() if name not in LISTS}


def look(run: RunDir, spec: RunSpec, nodes: Sequence[str], *, seconds: float, beside: bool) -> dict[str, str]:
    """{node: its host name}, once each of `nodes` sees the run, within `seconds`, and has the Python of a rank.

    beside: see steps.look. Raises NodesRefused where some lack it, or start nothing, and NotStarted where it cannot be
    said which.
    """
    command = steps.look(spec, run.path, nodes, seconds=int(seconds), beside=beside)
    answer = _answer(command, PREFLIGHT_SECONDS)
    if answer is None:
        _refuse_silent(nodes)
        raise NotStarted(f"a node of {','.join(nodes)} {SILENT}")
    said = answer.stdout.splitlines()
    hosts = {found["node"]: found["host"] for line in said if (found := READY.fullmatch(line))}
    if answer.returncode:
        print(answer.stderr, flush=True)
        lines = (line.partition(" ") for line in said)  # a site may have tasks say something of its own
        if refused := {node: why for node, _, why in lines if node in nodes and node not in hosts}:
            raise NodesRefused(refused)
        _refuse_silent(nodes)
        last = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
        raise NotStarted(f"starting a task on every node failed: {last}")
    return hosts


def _answer(command: Sequence[str], seconds: float) -> "subprocess.CompletedProcess[str] | None":
    """None where there is none after so many `seconds`, of which those in which the job is suspended are none."""
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment(), encoding="utf-8", errors="replace", **given) as srun:
        for _ in range(math.ceil(seconds / TICK_SECONDS)):
            with contextlib.suppress(subprocess.TimeoutExpired):
                out, err = srun.communicate(timeout=TICK_SECONDS)
                return subprocess.CompletedProcess(command, srun.returncode, out, err)
        srun.kill()
        srun.wait()
    return None


def _refuse_silent(nodes: Sequence[str]) -> None:
    """Raises NodesRefused where some of `nodes` start nothing, and others do."""
    silent = unusable({node: [] for node in nodes})
    if 0 < len(silent) < len(nodes):
        raise NodesRefused(silent)


def unusable(left: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """{node: why} of those on which one of these processes is left, or nothing can be started."""

    def why(node: str) -> str:
        answer = _answer(steps.gone(node, left[node]), ASKED_SECONDS)
        return {0: "", steps.LEFT: STILL_HELD}.get(answer.returncode if answer else None, SILENT)

    with ThreadPoolExecutor(TOGETHER) as pool:
        return {node: said for node, said in zip(left, pool.map(why, left), strict=True) if said}
