"""Runs that a stand-in for Slurm takes, up to the job's number."""

import dataclasses
import shlex
from pathlib import Path

import pytest

from launcher.compose.training import resolve
from launcher.plan import plan as planning
from launcher.plan.plan import Plan
from launcher.run import snapshot
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.run.snapshot import Snapshot
from launcher.spec.runspec import RunSpec, freeze
from launcher.spec.schema import ClusterConfig
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
