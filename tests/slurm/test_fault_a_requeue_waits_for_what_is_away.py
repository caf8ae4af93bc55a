"""A run that should start again does so although the controller, or the lock of its last start, is away for a while."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from launcher.run.files import read_json

pytestmark = [pytest.mark.fault, pytest.mark.slow]

RUN = ("method=rotnet", "recipe=tiny", "method.epochs=40", "method.checkpoint_every=300")
SHAPE = ("cluster=fake", "tasks_per_node=1", "cluster.cpus_per_task=1")


@pytest.fixture
def asked(tmp_path) -> Path:
    """What a `scontrol` in the folder `bin` beside it writes into, whenever it is called."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path / "asked"}\nexec {shutil.which("scontrol")} "$@"\n')
    program.chmod(0o755)
    return tmp_path / "asked"


@pytest.fixture
def trains(cluster, slurm_sslrun, config_dir, watched, asked, until):
    """The command line, where a job trains."""
    sslrun = slurm_sslrun(cluster)
    sslrun.environment["PATH"] = f"{asked.with_name('bin')}:{sslrun.environment['PATH']}"
    sslrun(*RUN, *SHAPE, "--config-dir", config_dir(cluster), f"runs={watched.runs}")
    until((watched.path / "checkpoints" / "step_00000300").exists)
    return sslrun


def opened_by(file: Path, *, but: int) -> set[int]:
    """Processes that have it open, except for those of one group."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == str(file) and os.getpgid(int(link.parts[2])) != but:
                found.add(int(link.parts[2]))
        except OSError:
            continue
    return found


def test_the_controller(cluster, trains, watched, standing, settled, asked, until):
    rank = read_json(watched.path / "heartbeats" / "rank0.json")["pid"]
    with standing(watched.path):
        cluster.stop_controller()
        os.kill(rank, signal.SIGKILL)
    (end,) = until(lambda: watched.events("end"))
    assert (end["cause"], end["requeued"]) == ("killed", True)
    assert [event["step"] for event in watched.events("checkpoint")] == [300]  # which the rank had not said yet
    before = len(asked.read_text())
    until(lambda: len(asked.read_text()) > before)  # in vain
    cluster.start_controller()
    shown = settled(trains, watched.path)
    assert (shown["state"], shown["restarts"]) == ("done", {"killed": 1}), shown


def test_the_lock_of_a_client_that_the_file_server_has_not_yet_forgotten(
    cluster, trains, watched, standing, settled, until
):
    (start,) = watched.events("start")
    lock = watched.path / "lock"
    holder = subprocess.Popen(["flock", lock, "sleep", "infinity"], start_new_session=True)  # has it when the job ends
    try:
        with standing(watched.path):
            cluster.run("scancel", "--signal=USR2", start["job"])
        until(lambda: watched.events("end"))

        def mine() -> set[int]:
            return opened_by(lock, but=holder.pid)

        until(lambda: not mine())
        for _ in range(2):  # it asks for the lock, and once more
            until(mine)
            until(lambda: not mine())
        assert len(watched.events("start")) == 1
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()
    shown = settled(trains, watched.path)
    assert (shown["state"], shown["restarts"]) == ("done", {"asked": 1}), shown
