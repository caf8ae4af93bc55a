"""A run that should start again does so although the controller, or the lock of its last start, is away for a while."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from launcher.rundir import read_json

pytestmark = [pytest.mark.fault, pytest.mark.slow]

RUN = ("method=rotnet", "recipe=tiny", "method.epochs=10")
SHAPE = ("cluster=fake", "tasks_per_node=1", "cluster.cpus_per_task=1")
HELD_SECONDS = 25  # longer than a job that is started again waits in the queue


@pytest.fixture
def trains(cluster, slurm_sslrun, config_dir, watched, until):
    """The command line, where a job trains."""
    sslrun = slurm_sslrun(cluster)
    sslrun(*RUN, *SHAPE, "--config-dir", config_dir(cluster), f"runs={watched.runs}")
    until(lambda: watched.events("checkpoint"), seconds=240)
    return sslrun


def settled(sslrun, run: Path, until) -> dict:
    until(lambda: sslrun.show(run)["state"] in ("done", "failed", "stopped"), seconds=300)
    return sslrun.show(run)


def test_the_controller(cluster, trains, watched, until):
    rank = read_json(watched.path / "heartbeats" / "rank0.json")["pid"]
    cluster.stop_controller()
    os.kill(rank, signal.SIGKILL)
    (end,) = until(lambda: watched.events("end"), seconds=120)
    assert (end["cause"], end["requeued"]) == ("killed", True)
    cluster.start_controller()
    shown = settled(trains, watched.path, until)
    assert (shown["state"], shown["restarts"]) == ("done", {"killed": 1}), shown


def test_the_lock_of_a_client_that_the_file_server_has_not_yet_forgotten(cluster, trains, watched, until):
    (start,) = watched.events("start")
    holder = subprocess.Popen(["flock", watched.path / "lock", "sleep", str(HELD_SECONDS)])  # gets it when the job ends
    try:
        cluster.run("scancel", "--signal=USR2", start["job"])
        holder.wait(timeout=240)
        assert len(watched.events("start")) == 1
        shown = settled(trains, watched.path, until)
        assert (shown["state"], shown["restarts"]) == ("done", {"asked": 1}), shown
    finally:
        holder.kill()
