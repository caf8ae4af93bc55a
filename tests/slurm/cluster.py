"""A real Slurm cluster on this machine: slurmctld and one slurmd a node, in one temporary folder, on free ports.

    python tests/slurm/cluster.py --nodes 64 --gpus 8 -- sinfo       # runs the command against such a cluster
    python tests/slurm/cluster.py --nodes 2                          # a shell; its end stops the cluster

Needs Linux and Debian's slurm-wlm (or Slurm's own packages); no root, munge, systemd, database or cgroups. All nodes
are this machine, whatever number of CPUs, GPUs and bytes they claim to have; the GPUs are empty files. Several clusters
can run at once, also beside a real one. keeper.py holds the daemons and kills them, and every job with them, as soon as
the process that started the cluster is gone.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

SEARCHED = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"  # daemons are rarely on a user's path
KEEPER = Path(__file__).with_name("keeper.py")
# By PriorityTier: jobs of `high` take the nodes of `low`, whose jobs are told, get GraceTime seconds and are requeued.
PARTITIONS = {
    "main": "Default=YES MaxTime=2-0 DefaultTime=1:00:00 PriorityTier=1 PreemptMode=OFF",
    "low": "MaxTime=2-0 DefaultTime=1:00:00 PriorityTier=1 PreemptMode=REQUEUE",
    "high": "MaxTime=2-0 DefaultTime=1:00:00 PriorityTier=100 PreemptMode=OFF",
    "short": "MaxTime=10 DefaultTime=5 PriorityTier=1 PreemptMode=OFF",
}
BLOCKS = range(10_000, 32_000, 600)  # ports of one cluster; below those that Linux gives to outgoing connections
MEMORY_MB = 4096  # a CPU


class ClusterFailed(RuntimeError):
    """The cluster did not come up; the message ends with the last lines of its logs."""


def missing() -> str | None:
    """The first program of Slurm that is not on this machine, or None."""
    return next((p for p in ("slurmctld", "slurmd", "srun", "sbatch") if not shutil.which(p, path=SEARCHED)), None)


class Cluster:
    """Nodes n1 to nN; a context manager.

    `folder` is where the cluster's own folder is made (the system's for temporary files by default), `cpus` and `gpus`
    are those of a node, `grace_s` is how long (s) a preempted job of `low` may go on (one that ends before does not
    wait, and no machine is too slow to save in that time), `user_signal` whether it is told by the signal that it asked
    for (`--signal`), `config` holds further lines of slurm.conf or other values of those here (`{"MaxArraySize": 11}`),
    `partitions` replaces PARTITIONS, `plugins` is a plugstack.conf, `hide={"n2": "/data"}` lets node n2 see an empty
    folder there (root only).
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        nodes: int = 2,
        gpus: int = 0,
        cpus: int = 4,
        grace_s: int = 600,
        user_signal: bool = False,
        partitions: Mapping[str, str] | None = None,
        config: Mapping[str, object] | None = None,
        hide: Mapping[str, str | Path] | None = None,
        plugins: str = "",
    ):
        self.nodes = [f"n{i + 1}" for i in range(nodes)]
        self.controller_address = self.node_addresses = "127.0.0.1"
        self.gpus, self.cpus, self.grace_s = gpus, cpus, grace_s
        graceful = {**PARTITIONS, "low": f"{PARTITIONS['low']} GraceTime={grace_s}"}
        self.partitions = dict(graceful if partitions is None else partitions)
        self.folder: Path | None = None
        self._parent, self._hide, self._plugins = folder, dict(hide or {}), plugins
        self._config = {**(dict([_user_signal()]) if user_signal else {}), **(config or {})}
        self._keeper: subprocess.Popen | None = None
        self._claim: socket.socket | None = None  # keeps the block of ports ours

    def __enter__(self) -> "Cluster":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def environment(self) -> dict[str, str]:
        """What to add to os.environ so that Slurm's commands talk to this cluster."""
        return {"SLURM_CONF": f"{self.folder}/slurm.conf"}

    def environ(self, base: Mapping[str, str] = os.environ) -> dict[str, str]:
        """`base` for a user of this cluster: what a job or a profile says of another one is left out."""
        foreign = re.compile("SLURM|SBATCH|SRUN|SALLOC|SQUEUE|SINFO|SCANCEL|SCONTROL|SACCT")
        kept = {key: value for key, value in base.items() if not foreign.match(key)}
        return {**kept, **self.environment}

    def start(self, timeout: float = 600) -> "Cluster":
        """Return once every node is idle. Raises ClusterFailed with the logs when that takes over `timeout` seconds."""
        if self._keeper:
            return self
        for attempt in range(4):
            try:
                return self._start(timeout)
            except BaseException as error:
                self.stop()
                # Somebody else took a port between the look and the daemon's start.
                if attempt == 3 or not isinstance(error, ClusterFailed) or "already in use" not in str(error):
                    raise
        raise AssertionError

    def stop(self) -> None:
        """Kill daemons and jobs, and remove the folder; returns when they are gone. Harmless when there is nothing."""
        if self._keeper:
            self._keeper.stdin.close()  # tells it to end
            self._keeper.wait()
            self._keeper.stdout.close()
            self._keeper = None
        if self._claim:
            self._claim.close()
            self._claim = None
        if self.folder:  # where the keeper did not even start
            shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *command: object, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run one of Slurm's commands, or any other, as a user of this cluster. With `check` it must end with 0."""
        done = subprocess.run(
            [shutil.which(str(command[0]), path=SEARCHED) or command[0], *map(str, command[1:])],
            env=self.environ(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr}")
        return done

    def kill_node(self, node: str, *, noticed: bool = False) -> None:
        """Like a power failure: SIGKILL to the node's slurmd, to its steps and to all that they started.

        Slurm finds out by itself after SlurmdTimeout (300 s unless `config` says otherwise), or at once with `noticed`.
        """
        self._ask({"do": "kill", "name": node})
        if noticed:
            self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=lost")

    def start_node(self, node: str) -> None:
        """Start a node's daemon again; `wait_idle` waits until Slurm uses it."""
        command = [shutil.which("slurmd", path=SEARCHED), "-D", "-f", f"{self.folder}/slurm.conf", "-N", node]
        self._daemon(node, [*self.machine(node), *command])

    def machine(self, node: str) -> list[str]:
        """Words before the command of a node's daemon, which make it and its steps see another machine than this."""
        if node not in self._hide:
            return []
        # In a mount namespace of its own, which its steps inherit.
        hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$1" && shift && exec "$@"', "sh"]
        return [*hidden, str(self._hide[node])]

    def stop_controller(self) -> None:
        """End slurmctld as an administrator would: its state is saved, jobs go on, commands get no answer."""
        self._ask({"do": "end", "name": "slurmctld"})

    def start_controller(self) -> None:
        """Start slurmctld, from the state that it saved."""
        self._daemon("slurmctld", [shutil.which("slurmctld", path=SEARCHED), "-D", "-f", f"{self.folder}/slurm.conf"])

    def wait_idle(self, timeout: float = 600) -> None:
        """Wait until every node is idle. Raises ClusterFailed with the logs after `timeout` seconds."""

        def idle() -> bool:
            if not self._up():  # sinfo alone would wait for nine seconds
                return False
            answer = self.run("sinfo", "--noheader", "--Node", "--format=%N %T", check=False)
            states = set(answer.stdout.split("\n")[:-1])
            return answer.returncode == 0 and states == {f"{node} idle" for node in self.nodes}

        self._until(idle, timeout, "not every node is idle")

    def clear(self, timeout: float = 600) -> None:
        """Cancel every job, start again what is down, and wait until all nodes are idle."""
        running = self._ask({"do": "running"})
        if "slurmctld" not in running:
            self.start_controller()
            self._until(self._up, timeout, "slurmctld does not answer")
        for node in self.nodes:
            if node not in running:
                self.start_node(node)
        mine = ("scancel", "--quiet", f"--user={os.getuid()}")
        self.run(*mine, "--full", "--signal=KILL", check=False)  # at once; what ignores SIGTERM would live for KillWait
        self.run(*mine)
        self._until(lambda: not self.run("squeue", "--noheader").stdout, timeout, "jobs are left in the queue")
        stuck = self.run("sinfo", "--noheader", "--Node", "--states=drain,down,fail", "--format=%N").stdout.split()
        for node in dict.fromkeys(stuck):
            self.run("scontrol", "update", f"nodename={node}", "state=resume", check=False)
        self.wait_idle(timeout)

    def logs(self, lines: int = 15) -> str:
        """The last lines of what every daemon that said something unusual wrote."""
        text = []
        for file in sorted(
            (self.folder / "log").iterdir(), key=lambda file: (not file.name.startswith("slurmctld"), file)
        ):
            said = file.read_text(errors="replace").splitlines()
            if said and (file.name == "slurmctld.log" or any("error" in line or "fatal" in line for line in said)):
                text += [f"--- {file.name}", *said[-lines:]]
        return "\n".join(text[:200])

    def _start(self, timeout: float) -> "Cluster":
        # A new folder each time: nothing that an earlier cluster left behind can matter.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir=self._parent)).resolve()
        for name in ("log", "state", "dev", *(f"spool/{node}" for node in self.nodes)):
            (self.folder / name).mkdir(parents=True)
        self._write_config(self._claim_ports())
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", KEEPER, self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is for the one who holds the cluster
        )
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        self.wait_idle(timeout)
        return self

    def _claim_ports(self) -> int:
        """The first of 1 + nodes free ports; one more, before it, is held so that no other cluster takes the block."""
        for base in random.sample(BLOCKS, len(BLOCKS)):
            claim = socket.socket()
            try:
                claim.bind(("127.0.0.1", base))
                claim.listen()
                for port in range(base + 1, base + 2 + len(self.nodes)):
                    with socket.socket() as free:
                        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        free.bind(("", port))
            except OSError:
                claim.close()
                continue
            self._claim = claim
            return base + 1
        raise ClusterFailed("no block of free ports is left on this machine")

    def _write_config(self, port: int) -> None:
        host = socket.gethostname().split(".")[0]
        user = os.getuid()
        gres = f" Gres=gpu:{self.gpus}" if self.gpus else ""
        settings = {
            "ClusterName": "test",
            "SlurmctldHost": f"{host}({self.controller_address})",
            "SlurmctldPort": port,
            "SlurmUser": user,
            "SlurmdUser": user,
            "AuthType": "auth/none",
            "CredType": "cred/none",
            "AuthInfo": "cred_expire=5",  # seconds before a requeued job starts again; 120 without it
            "StateSaveLocation": f"{self.folder}/state",
            "SlurmdSpoolDir": f"{self.folder}/spool/%n",
            "SlurmctldPidFile": f"{self.folder}/slurmctld.pid",
            "SlurmdPidFile": f"{self.folder}/spool/%n/slurmd.pid",
            "SlurmctldLogFile": f"{self.folder}/log/slurmctld.log",
            "SlurmdLogFile": f"{self.folder}/log/%n.log",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "MpiDefault": "none",
            "SwitchType": "switch/none",
            "MailProg": "/bin/true",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_CPU_Memory",
            "DefMemPerCPU": MEMORY_MB // 2,
            "SchedulerType": "sched/backfill",
            # Looked at every second, so that no test waits for the scheduler.
            "SchedulerParameters": "sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0",
            "PreemptType": "preempt/partition_prio",
            "PreemptMode": "REQUEUE",
            "KillWait": 5,
            # Seconds that a message, a connection and the start of a batch script may take: no machine is that slow.
            "MessageTimeout": 60,
            "TCPTimeout": 30,
            "BatchStartTimeout": 600,
            "ReturnToService": 2,  # a node that answers again is used again
            "SlurmdParameters": "config_overrides",  # nodes may claim more CPUs than this machine has
            "PlugStackConfig": f"{self.folder}/plugstack.conf",
            **({"GresTypes": "gpu"} if self.gpus else {}),
            **self._config,
        }
        node = (
            f"NodeName=n[1-{len(self.nodes)}] NodeHostname={host} NodeAddr={self.node_addresses} "
            f"Port=[{port + 1}-{port + len(self.nodes)}] CPUs={self.cpus} RealMemory={self.cpus * MEMORY_MB}{gres}"
        )
        lines = [f"{key}={value}" for key, value in settings.items()]
        lines += [node, *(f"PartitionName={name} Nodes=ALL State=UP {rest}" for name, rest in self.partitions.items())]
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "cgroup.conf").write_text(
            f"CgroupPlugin={'cgroup/v1' if _version() < (23, 2) else 'disabled'}\n"
        )
        (self.folder / "plugstack.conf").write_text(self._plugins)
        if self.gpus:
            for gpu in range(self.gpus):
                (self.folder / "dev" / f"nvidia{gpu}").touch()
            files = f"{self.folder}/dev/nvidia[0-{self.gpus - 1}]"
            (self.folder / "gres.conf").write_text(f"NodeName=n[1-{len(self.nodes)}] Name=gpu File={files}\n")

    def _daemon(self, name: str, argv: Sequence[str]) -> None:
        # What a step's environment says of its node is how the keeper finds the processes of a node.
        environment = {**self.environ(), **({"SLURMD_NODENAME": name} if name in self.nodes else {})}
        self._ask({"do": "start", "name": name, "argv": list(argv), "environment": environment})

    def _ask(self, request: dict) -> list[str]:
        """The daemons that are running, once the request has been carried out."""
        try:
            self._keeper.stdin.write(json.dumps(request) + "\n")
            self._keeper.stdin.flush()
            return json.loads(self._keeper.stdout.readline())["running"]
        except (AttributeError, OSError, ValueError) as error:
            raise ClusterFailed("the cluster is not running") from error

    def _up(self) -> bool:
        return "is UP" in self.run("scontrol", "ping", check=False).stdout

    def _until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while True:
            if dead := {"slurmctld", *self.nodes}.difference(self._ask({"do": "running"})):
                raise ClusterFailed(f"the test cluster: {', '.join(sorted(dead))} ended\n{self.logs()}")
            if condition():
                return
            if time.monotonic() > end:
                raise ClusterFailed(f"the test cluster: {what} after {seconds} s\n{self.logs()}")
            time.sleep(0.1)


def _version() -> tuple[int, ...]:
    said = subprocess.run([shutil.which("slurmd", path=SEARCHED), "-V"], capture_output=True, text=True).stdout
    return tuple(map(int, re.findall(r"\d+", said)[:2]))


def _user_signal() -> tuple[str, str]:
    """The line of slurm.conf that has `--signal` sent at preemption; it moved."""
    if _version() < (23, 2):
        return "SlurmctldParameters", "preempt_send_user_signal"
    return "PreemptParameters", "send_user_signal"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of the command that was run against a cluster of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--gpus", type=int, default=0, help="a node, fake")
    parser.add_argument("--cpus", type=int, help="a node; 16 with GPUs and 4 without by default")
    parser.add_argument("--config", action="append", default=[], metavar="KEY=VALUE", help="a line of slurm.conf")
    parser.add_argument("command", nargs="*", help="your shell by default")
    options = parser.parse_args(arguments)
    if program := missing():
        parser.error(f"{program} is not on this machine; Debian and Ubuntu: apt-get install slurm-wlm munge")
    config = dict(line.split("=", 1) for line in options.config)
    cpus = options.cpus or (16 if options.gpus else 4)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with (
        contextlib.suppress(KeyboardInterrupt),
        Cluster(nodes=options.nodes, gpus=options.gpus, cpus=cpus, config=config) as cluster,
    ):
        return subprocess.call(options.command or [os.environ.get("SHELL", "sh")], env=cluster.environ())
    return 130


if __name__ == "__main__":
    sys.exit(main())
