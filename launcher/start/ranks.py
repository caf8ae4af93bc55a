"""The ranks of one start on the nodes of a job: the nodes looked at, the ranks started with srun and seen to their end.

Once one has failed the others have seconds to say what they met, and are killed. srun waits for ever for a node that is
lost, until Slurm knows of it, or whose ranks cannot be killed: such a node is of no more use to the job.
"""

import contextlib
import os
import random
import re
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import ClusterError, NodesRefused, NotStarted
from launcher.plan import script, steps
from launcher.run import heartbeats
from launcher.run.folder import RunDir
from launcher.slurm import commands, notation
from launcher.spec.runspec import RunSpec
from launcher.start import handover, job
from launcher.start.handover import Start
from launcher.start.told import Told

PREFLIGHT_SECONDS = 120
SEEN_SECONDS = 60.0  # how long a node may take to see the run: it mounts the folder now, or the file server is away
END_SECONDS, GONE_SECONDS = 5.0, 15.0  # from the first death to the kill of the others; from there until they are gone
HELD = "does not let go of its ranks"
POLL_SECONDS = 0.1
TOGETHER = 16  # nodes that are asked at the same time
# srun: error: n2: task 3: Killed        srun: error: n2: tasks 2-3: Exited with exit code 4
BLAME = re.compile(r"error: (?P<node>\S+): tasks? (?P<rank>\d+)\S*: (?P<how>.+)")
GONE = re.compile(r"Node failure on (?P<nodes>\S+)")
READY = re.compile(r"(?P<node>\S+) is (?P<host>\S+)")
# Of the list once nodes were given back, or lost; of the last one srun reads what would keep a step without its node.
NOT_FOR_SRUN = ("SLURM_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NO_KILL")
FIRST_PORT = 10_000  # services of a node have theirs below
EPHEMERAL = "/proc/sys/net/ipv4/ip_local_port_range"


@dataclass
class Ended:
    """How the ranks of a start ended. `rank`: the first that failed, where srun named one; `how`: in half a sentence.
    `lost`: {node: why} of those that are of no more use; `over`: whether the step has ended for Slurm, too."""

    exit_code: int
    rank: int | None
    how: str
    lost: dict[str, str]
    over: bool


def look(run: RunDir, spec: RunSpec, nodes: Sequence[str], *, seconds: float) -> dict[str, str]:
    """{node: its host name}, once each of `nodes` sees the run, within `seconds`, and has the Python of a rank.

    Raises NodesRefused where some lack it, or start nothing, and NotStarted where it cannot be said which.
    """
    command = steps.look(spec, run.path, nodes, seconds=int(seconds))
    try:
        answer = subprocess.run(
            command, env=_environment(), capture_output=True, encoding="utf-8", errors="replace",
            timeout=PREFLIGHT_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        _refuse_silent(nodes)
        raise NotStarted(f"a node of {','.join(nodes)} does not start a task") from None
    said = [line for line in answer.stdout.splitlines() if line.strip()]
    hosts = {found["node"]: found["host"] for line in said if (found := READY.fullmatch(line))}
    if refused := {node: why for node, _, why in (line.partition(" ") for line in said) if node not in hosts}:
        raise NodesRefused(refused)
    if answer.returncode:
        print(answer.stderr, flush=True)
        _refuse_silent(nodes)
        last = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
        raise NotStarted(f"starting a task on every node failed: {last}")
    return hosts


def _refuse_silent(nodes: Sequence[str]) -> None:
    """Raises NodesRefused where some of `nodes` start nothing, and others do."""
    silent = _unusable({node: [] for node in nodes})
    if 0 < len(silent) < len(nodes):
        raise NodesRefused(silent)


def _unusable(left: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """{node: why} of those on which one of these processes is left, or nothing can be started."""

    def why(node: str) -> str:
        try:
            command = steps.gone(node, left[node])
            ended = subprocess.run(command, env=_environment(), capture_output=True, timeout=GONE_SECONDS).returncode
        except subprocess.TimeoutExpired:
            ended = 1
        return {0: "", steps.HELD: HELD}.get(ended, "does not start a task")

    with ThreadPoolExecutor(TOGETHER) as pool:
        return {node: said for node, said in zip(left, pool.map(why, left), strict=True) if said}


def start(
    run: RunDir,
    spec: RunSpec,
    code: Path,
    nodes: Sequence[str],
    address: str,
    generation: int,
    told: Told,
    *,
    beside: bool,
) -> Ended:
    """Start the ranks from `code` on `nodes`, and see them to their end. `address`: of the first node, for the others;
    beside: see steps.ranks."""
    world, name = len(nodes) * spec.tasks_per_node, f"start{generation}"
    with handover.secret(run.path, generation, ranks=world):
        told.ranks_begun = True
        step = subprocess.Popen(
            steps.ranks(spec, run.path, nodes, name, beside=beside),
            env=_of_ranks(spec, code, nodes, address, generation),
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        threading.Thread(target=told.pass_on, args=(step, run, generation, world), daemon=True).start()
        heard = _Heard(step)
        over = _over(step, heard, name)
        failed, lost = heard.failed, dict.fromkeys(heard.lost, "is lost")
        if not over:  # a node died of which Slurm does not know yet, or its ranks cannot be killed
            known = heartbeats.processes(run, generation).values()
            lost = _unusable({node: [pid for host, pid in known if host == node] for node in nodes}) | lost
    return Ended(
        exit_code=step.returncode,
        rank=int(failed["rank"]) if failed else None,
        how=f"rank {failed['rank']} on {failed['node']}: {failed['how']}" if failed else heard.last,
        lost={node: why for node, why in lost.items() if node in nodes},
        over=over,
    )


def _over(step: subprocess.Popen, heard: "_Heard", name: str) -> bool:
    """Wait for the ranks; when one has failed, the others follow within END_SECONDS. False where srun goes on waiting
    for some: then it is ended, too."""
    died = killed = 0.0
    while step.poll() is None:
        time.sleep(POLL_SECONDS)
        now = time.monotonic()
        died = died or (now if heard.failed or heard.lost else 0.0)
        if died and not killed and now - died > END_SECONDS:
            killed = now
            threading.Thread(target=_kill, args=[name], daemon=True).start()  # takes its time where a node is lost
        if killed and now - killed > GONE_SECONDS:
            step.kill()
            step.wait()
            return False
    heard.listening.join(GONE_SECONDS)
    return True


def _kill(name: str) -> None:
    """What is left of the step."""
    with contextlib.suppress(ClusterError):  # then KillWait ends it
        commands.cancel(commands.steps(job.own_id(), name), signal="KILL")


class _Heard:
    """What srun says, passed on to the job's log. `failed`: the line about the first rank that did; `lost`: nodes of
    which Slurm knows that they are gone."""

    def __init__(self, step: subprocess.Popen):
        self.failed: re.Match | None = None
        self.lost: set[str] = set()
        self.last = ""
        self._step = step
        self.listening = threading.Thread(target=self._listen, daemon=True)
        self.listening.start()

    def _listen(self) -> None:
        for line in self._step.stderr:
            print(line, end="", flush=True)
            self.last = line.strip() or self.last
            self.failed = self.failed or BLAME.search(line)
            if gone := GONE.search(line):
                self.lost |= {*notation.expand(gone["nodes"])}


def _environment() -> dict[str, str]:
    """Of srun: without the list of the nodes that the job began with, which its tasks would be told."""
    return {name: value for name, value in os.environ.items() if name not in NOT_FOR_SRUN}


def _of_ranks(spec: RunSpec, code: Path, nodes: Sequence[str], address: str, generation: int) -> dict[str, str]:
    """The environment that the ranks find beside the job's."""
    told = Start(
        rank=None,
        local_rank=None,
        world_size=len(nodes) * spec.tasks_per_node,
        generation=generation,
        stopped_code=0,  # one that saved has not failed: others may still be committing
        threads=script.cpus_per_task(spec),
    )
    # Ranks of one node meet where no other node can come.
    alone = {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    return {
        **(alone if len(nodes) == 1 else {"MASTER_ADDR": address}),
        **_environment(),
        "MASTER_PORT": str(free_port()),
        # The first entry is the batch script's: RUN/submit/code, a link. The ranks get the folder that was looked at.
        "PYTHONPATH": os.pathsep.join([str(code), *os.environ.get("PYTHONPATH", "").split(os.pathsep)[1:]]),
        **told.environment(),
        **spec.cluster.environment,
    }


def free_port() -> int:
    """On this node, where rank 0 listens on it once it has loaded its libraries. No connection may be given it before
    that, so it lies below the ports that Linux gives to connections."""
    try:
        end = int(Path(EPHEMERAL).read_text().split()[0])
    except (OSError, ValueError):
        end = 32768
    below = range(FIRST_PORT, end)
    for port in random.sample(below, min(len(below), 100)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
