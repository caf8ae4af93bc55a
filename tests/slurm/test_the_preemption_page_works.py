"""docs/preemption.md: its first commands run as printed, on a run that a job of a higher partition has interrupted."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = re.search(r"^```sh preemption\n(.*?)^```", (ROOT / "docs/preemption.md").read_text(), flags=re.M | re.S)[1]
RUN = ("method=rotnet", "recipe=tiny", "method.epochs=2000", "nodes=1", "tasks_per_node=1", "cluster=fake")


@pytest.fixture
def interrupted(cluster, slurm_sslrun, config_dir, watched, until):
    """A run on the partition `low` that was preempted once and trains again."""
    sslrun = slurm_sslrun(cluster)
    config = config_dir(cluster, partition="low", cpus_per_task=1)
    sslrun("--config-dir", config, *RUN, f"runs={watched.runs}")
    until(lambda: watched.step() >= 5)
    cluster.run("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=true")
    until(lambda: watched.events("restored"))
    return sslrun


def test_every_command_works_as_printed(interrupted, watched, until):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euxc", COMMANDS],
        cwd=watched.runs.parent,
        env={**interrupted.environment, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "preempted 1" in done.stdout
    assert "rank0: " in done.stdout
    last = interrupted.show(watched.path)
    assert last["restarts"]["preempted"] == 1 and last["lost_steps"] == 0, last
    until(lambda: watched.events("start")[-1]["cause"] == "cancelled")
    interrupted("cancel", watched.path, "--yes")
