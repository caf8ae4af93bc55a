"""Runs that a stand-in for Slurm takes, up to the job's number, and the batch script of such a job."""

import dataclasses
import os
import re
import shlex
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import recorded

from launcher.compose.training import resolve
from launcher.plan import plan as planning
from launcher.plan.plan import Plan
from launcher.run import snapshot
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.run.snapshot import Snapshot
from launcher.spec.runspec import RunSpec, freeze
from launcher.spec.schema import ClusterConfig
from launcher.start import batch, requeue
from launcher.start import job as own
from launcher.start.executor import Executor


@pytest.fixture(scope="module")
def planned() -> tuple[RunSpec, Plan]:
    spec, recipe = resolve(["method=rotnet", "recipe=tiny", "cluster=generic"])
    return spec, planning.make(spec, recipe)


class Runs:
    """A folder of runs that were made and never submitted, all with the same code."""

    def __init__(self, folder: Path, planned: tuple[RunSpec, Plan]):
        self.folder, (self._spec, self.plan) = folder, planned
        code = folder / ".code" / "taken"
        code.mkdir(parents=True)
        self.code = self.other_code(code)

    def other_code(self, code: Path) -> Snapshot:
        code.mkdir(exist_ok=True)
        (code / "module.py").write_text(f"name = {code.name!r}\n")
        return Snapshot(code, snapshot.digest_of(code), "")

    def spec(
        self, seed: int = 0, nodes: int = 1, least: int | None = None, group: str | None = None, **cluster
    ) -> RunSpec:
        small = {"name": "test", "gpus_per_node": 0, "cpus_per_node": 1, "timeout_min": 5, **cluster}
        where = {"cluster": freeze(ClusterConfig(**small)), "runs": str(self.folder), "group": group}
        return dataclasses.replace(self._spec, seed=seed, nodes=nodes, least_nodes=least, tasks_per_node=1, **where)

    def told(self, run: RunDir, *names: str) -> list[dict]:
        """The events of its ledger with these names, by default those of submissions."""
        names = names or ("intent", "submitted", "withdrawn")
        return list(run.history().all(*names))

    def intend(self, run: RunDir, token: str, index: int | None = None) -> None:
        """Begin to submit it, and be killed."""
        pen = Ledger(run.path, run.generation() + 1, "submit")
        pen.write("intent", token=token, index=index, folder="/submission")

    def line(self, script: Path, option: str) -> str:
        """The value of an option in a batch script."""
        lines = script.read_text().splitlines()
        (found,) = [line for line in lines if line.startswith(f"#SBATCH --{option}=")]
        return shlex.split(found.partition("=")[2])[0]

    def make(self, seed: int = 0, **cluster) -> RunDir:
        spec = self.spec(seed, **cluster)
        run = RunDir(self.folder / spec.run_id)
        run.create(spec, self.plan, lambda: self.code)
        return run


@pytest.fixture
def runs(tmp_path, planned, slurm_said, monkeypatch) -> Runs:
    """The recorded cluster, with an empty queue, gives jobs the numbers 7, 8 and 9."""
    # submitit asks for srun before there is anything to submit, and this machine need not have it.
    monkeypatch.setattr(Executor, "affinity", classmethod(lambda cls: 2))
    slurm_said.cluster()
    slurm_said.says("squeue", "")
    slurm_said.says("sbatch --parsable", "7\n", "8\n", "9\n")
    return Runs(tmp_path / "runs", planned)


class Job:
    """Job 7, whose batch script this process is, as Slurm and srun have it."""

    def __init__(self, slurm_said: recorded.Replay, bin: Path):
        self.slurm, self._bin = slurm_said, bin
        self.is_now()
        self.srun("exit 1")
        for known in ("scontrol requeue", "scontrol update", "scancel", "squeue --steps"):
            slurm_said.says(known, "")

    def is_now(
        self,
        nodes: str = "n1",
        limit: str = "01:00:00",
        used: str = "00:00:10",
        preempted: str = "None",
        state: str = "RUNNING",
        restarts: int = 0,
    ) -> None:
        """What Slurm says of it, `said`: RUNNING_7 with these words."""
        words = {"NodeList": nodes, "TimeLimit": limit, "RunTime": used, "PreemptTime": preempted, "JobState": state}
        words["Restarts"] = str(restarts)
        said = recorded.RUNNING_7
        for key, value in words.items():
            said = re.sub(rf" {key}=\S+", f" {key}={value}", said)
        self.said = said
        self.slurm.says("scontrol show job", said)

    def began_on(self, nodes: str, first: str = "n1") -> None:
        """It was granted these; Slurm says so, too."""
        os.environ.update(SLURM_JOB_NODELIST=nodes, SLURMD_NODENAME=first)  # put back by monkeypatch
        self.is_now(nodes)

    def srun(self, script: str = "exit 1", *, look: str | None = None, gone: str | None = None) -> None:
        """What this does in the place of srun: for the ranks, where it looks at the nodes before, and where it looks
        for what is left of them on one (steps.py)."""
        looks, goes = look or script, gone or script
        self._bin.mkdir(exist_ok=True)
        cases = f'*"kill -0"*)\n{goes}\n;;\n*uname*)\n{looks}\n;;\n*=understudy*)\n;;\n*)\n{script}\n;;'
        (self._bin / "srun").write_text(f'#!/bin/sh\ncase "$*" in\n{cases}\nesac\n')
        (self._bin / "srun").chmod(0o700)


@pytest.fixture
def job(tmp_path, monkeypatch, slurm_said):
    """This process is in job 7, as the batch script of a run; what it changes of itself is put back afterwards."""
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, getattr(sys, stream))
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SLURMD_"))]:
        monkeypatch.delenv(name)
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1", "SLURMD_NODENAME": "n1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    # Slurm has ended this process by then.
    monkeypatch.setattr(own, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: None))
    monkeypatch.setattr(requeue, "PAUSES", (0.0, 0.0, 0.0))
    before = {number: signal.getsignal(number) for number in (signal.SIGCONT, signal.SIGTERM, signal.SIGUSR2)}
    yield Job(slurm_said, tmp_path / "bin")
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def ends_of(job):
    """`ends_of(run)`: (state, cause, what followed) of each start that the job makes of it."""

    def ends(run: RunDir) -> list[tuple[str, str, str]]:
        known = len(run.history().all("end"))
        with pytest.raises(SystemExit):
            batch.main(str(run.path))
        return [
            (end["state"], end["cause"], next((name for name in ("in_place", "requeued") if end[name]), ""))
            for end in run.history().all("end")[known:]
        ]

    return ends
