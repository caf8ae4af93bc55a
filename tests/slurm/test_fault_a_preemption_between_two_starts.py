"""Slurm tells the steps of a job that it is to end, and nobody where there is none: what comes between two starts of a
job is heard of all the same, and the job goes back into the queue."""

import math
import os
import shutil
import signal
from pathlib import Path

import pytest

from launcher import durations

pytestmark = [pytest.mark.fault, pytest.mark.slow]

RUN = ("method=rotnet", "recipe=tiny", "method.epochs=24")
SHAPE = ("nodes=2", "tasks_per_node=1", "cluster=fake", "cluster.cpus_per_task=1", "cluster.signal_delay_s=20")
# A look at the nodes stands still for as long as there is a file; what comes after it is the ranks.
SRUN = """#!/bin/sh
case "$*" in *"does not see"*) while [ -e {hold} ]; do touch {held}; sleep 0.1; done;; esac
exec {real} "$@"
"""


@pytest.fixture
def hold(tmp_path) -> Path:
    """While it is there, no start of the run gets beyond the look at its nodes; one that is there makes `held`."""
    (tmp_path / "bin").mkdir()
    program, hold = tmp_path / "bin" / "srun", tmp_path / "hold"
    program.write_text(SRUN.format(hold=hold, held=tmp_path / "held", real=shutil.which("srun")))
    program.chmod(0o755)
    return hold


@pytest.fixture
def preempt(cluster, watched, until):
    """A job of `high` takes the run's nodes for a moment, and has had the run's job told to go."""

    def take() -> None:
        cluster.run("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=true")
        until(lambda: said(cluster, watched, "PreemptTime") not in ("", "None"))

    return take


def said(cluster, watched, key) -> str:
    """What Slurm says of the run's job."""
    words = cluster.run("scontrol", "show", "job", watched.events("start")[-1]["job"]).stdout.split()
    return next((word.partition("=")[2] for word in words if word.startswith(f"{key}=")), "")


def alive(process) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_nothing_is_lost(cluster, slurm_sslrun, config_dir, watched, hold, preempt, settled, undisturbed, until):
    sslrun, config = slurm_sslrun(cluster), config_dir(cluster, standby=True, partition="low")
    sslrun.environment["PATH"] = f"{hold.parent / 'bin'}:{sslrun.environment['PATH']}"
    sslrun(*RUN, *SHAPE, "--config-dir", config, f"runs={watched.runs}")

    def killed(generation) -> int:
        """The job's first process, which stands still, and has no rank any more."""
        ranks = watched.ranks(generation)
        first = watched.events("start")[-1]["pid"]
        os.kill(first, signal.SIGSTOP)
        for _, process in ranks.values():
            os.kill(process, signal.SIGKILL)
        until(lambda: not any(alive(process) for _, process in ranks.values()))
        return first

    # The ranks are dead, and the first process does not know of that yet.
    first = killed(1)
    preempt()
    os.kill(first, signal.SIGCONT)
    # The next start has begun, and has no rank yet.
    ranks = watched.ranks(2)
    hold.touch()
    os.kill(ranks[0][1], signal.SIGKILL)
    until(hold.with_name("held").exists)
    preempt()
    hold.unlink()
    # Too little is left of the job.
    first = killed(4)
    minutes = math.ceil((durations.seconds(said(cluster, watched, "RunTime")) + 20) / 60)
    job = watched.events("start")[-1]["job"]
    cluster.run("scontrol", "update", f"jobid={job}", f"timelimit={minutes}")
    os.kill(first, signal.SIGCONT)
    until(lambda: said(cluster, watched, "Restarts") == "3")
    cluster.run("scontrol", "update", f"jobid={job}", "timelimit=60")

    shown = settled(sslrun, watched.path)
    assert shown["state"] == "done", shown
    ends = [(end["cause"], end["in_place"], end["requeued"]) for end in watched.events("end")]
    queued = ("preempted", False, True)
    assert ends == [queued, ("killed", True, False), queued, ("killed", False, True), ("done", False, False)]
    assert "s are left of the job" in watched.events("end")[3]["why"]
    assert [start["restart_count"] for start in watched.events("start")] == [0, 1, 1, 2, 3]
    assert shown["restarts"] == {"preempted": 2, "killed": 2}
    assert not [event for event in watched.events("restored") if event["generation"] == 4 and event["lost_steps"]]
    assert shown["state_digest"] == sslrun.show(undisturbed(2, RUN))["state_digest"]
