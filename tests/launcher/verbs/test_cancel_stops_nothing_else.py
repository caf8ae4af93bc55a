"""`cancel` stops the run, and neither a process nor a job that a ledger merely names."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from argparse import Namespace

import pytest
import recorded

from launcher.errors import ClusterError, InputError
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.sweep import record
from launcher.verbs import cancel

# Holds the lock of the run until it is told to stop.
HOLDER = """
import fcntl, signal, sys
lock = open(sys.argv[1])
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
signal.sigwait([signal.SIGTERM])
"""


@pytest.fixture
def run(fresh):
    (fresh.path / "lock").touch()
    return fresh


@pytest.fixture
def killed(monkeypatch):
    """[(pid, signal)] of what would have been."""
    seen = []
    monkeypatch.setattr(os, "kill", lambda *told: seen.append(told))
    return seen


@pytest.fixture
def bystander():
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


def stop(run):
    return cancel.run(Namespace(run=str(run), overrides=[], yes=True, json=False))


def held(run):
    lock = (run.path / "lock").open()
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


@pytest.mark.parametrize("pid", [-1, 0, True, 1.5, "7", None, [1], 2**70, 1, "a process of the user's"], ids=str)
def test_no_process_that_does_not_hold_the_lock(run, pid, bystander, killed):
    Ledger(run.path, 1, "launcher").write("start", cause="submitted", pid=bystander if isinstance(pid, str) else pid)
    with held(run), pytest.raises(InputError, match=r"RUN=\S+: process \S+, which its ledger names, does not run it"):
        stop(run.path)
    assert not killed and not run.history().all("cancel")


def test_nor_any_while_nothing_is_written_down_of_a_start(run, killed):
    with held(run), pytest.raises(InputError, match="which its ledger names, does not run it; try again"):
        stop(run.path)
    assert not killed


def test_the_process_that_holds_it(run):
    command = [sys.executable, "-c", HOLDER, run.path / "lock"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        Ledger(run.path, 1, "launcher").write("start", cause="submitted", pid=holder.pid)
        assert stop(run.path) == 0
    assert holder.returncode in (0, -signal.SIGTERM) and run.history().all("cancel")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_no_process_for_a_ledger_of_somebody_else(run, killed):
    Ledger(run.path, 1, "launcher").write("start", cause="submitted", pid=os.getpid())
    os.chown(run.path, 65534, 65534)
    with held(run), pytest.raises(InputError, match="belongs to user 65534, not to you; only they can cancel it"):
        stop(run.path)
    assert not killed and not run.history().all("cancel")


@pytest.mark.parametrize("comment", ["", "sslrun:another", "thesis"])
def test_no_job_that_does_not_say_that_it_is_the_runs(run, ledgers, slurm_said, comment):
    ledgers.submit(run, "7")
    slurm_said.says("squeue", recorded.table(f"7|7|RUNNING|None|N/A|n1|1:00:00|main|other|{comment}\n"))
    with pytest.raises(ClusterError, match=f"job 7 in this queue \\(other\\) does not say that it is {run.id}'s"):
        stop(run.path)
    assert not slurm_said.commands("scancel")


def test_no_job_without_a_token(run, slurm_said):
    Ledger(run.path, 1, "submit").write("submitted", job="7", folder="/nowhere")
    slurm_said.says("squeue", recorded.table("7|7|PENDING|None|N/A||1:00:00|main|other|\n"))
    with pytest.raises(ClusterError, match="does not say"):
        stop(run.path)
    assert not slurm_said.commands("scancel")


@pytest.mark.parametrize("place", ["../elsewhere", "/elsewhere", "..", "", "a/evals/knn-1"])
def test_no_run_of_another_folder_for_a_record_that_names_it(ledgers, run, place):
    (ledgers.folder / record.FOLDER).mkdir()
    text = json.dumps({"points": [{"run": place, "sweep": "s", "scale": "tiny"}]})
    (ledgers.folder / record.FOLDER / "my-sweep-1.json").write_text(text)
    with pytest.raises(InputError, match="which is no run of this folder"):
        record.members("my-sweep-1", ledgers.folder)
    assert record.recorded(ledgers.folder) == []


@pytest.fixture
def sweep(run, ledgers):
    """Two runs: `first`, as given, and `other`."""
    other = RunDir(shutil.copytree(run.path, ledgers.folder / "other", symlinks=True))
    (ledgers.folder / record.FOLDER).mkdir()
    points = {"points": [{"run": run.path.name}, {"run": other.path.name}]}
    (ledgers.folder / record.FOLDER / "my-sweep-1.json").write_text(json.dumps(points))
    return run, other


def stop_sweep(ledgers):
    return cancel.run(Namespace(run="my-sweep-1", overrides=[f"runs={ledgers.folder}"], yes=True, json=False))


def wait_in_queue(run, ledgers, slurm_said):
    ledgers.submit(run, "8")
    slurm_said.says("squeue", recorded.table("8|8|PENDING|None|N/A||1:00:00|main|name|sslrun:token\n"))
    slurm_said.says("scancel", "")


def test_a_job_that_the_queue_did_not_know_yet_keeps_no_other_of_its_sweep(sweep, ledgers, slurm_said):
    begun, waiting = sweep
    wait_in_queue(waiting, ledgers, slurm_said)
    Ledger(begun.path, 1, "batch").write("start", cause="submitted", job="7")
    with held(begun), pytest.raises(ClusterError, match=r"^cancelled 1 of 2 runs: job 7 of \S+ is not in your queue"):
        stop_sweep(ledgers)
    assert slurm_said.commands("scancel") == [["scancel", "8"]] and waiting.history().all("cancel")
    assert not begun.history().all("cancel")


def test_nor_does_a_run_that_another_machine_has(sweep, ledgers, slurm_said):
    elsewhere, waiting = sweep
    wait_in_queue(waiting, ledgers, slurm_said)
    Ledger(elsewhere.path, 1, "launcher").write("start", cause="submitted", pid=1)
    file = next((elsewhere.path / "events").glob("*launcher*"))
    file.write_text(file.read_text().replace(os.uname().nodename, "elsewhere"))
    with held(elsewhere), pytest.raises(ClusterError, match=r"^cancelled 1 of 2 runs: .*it runs on elsewhere"):
        stop_sweep(ledgers)
    assert slurm_said.commands("scancel") == [["scancel", "8"]]


def test_nor_does_a_ledger_that_cannot_be_read(sweep, ledgers, slurm_said):
    damaged, waiting = sweep
    wait_in_queue(waiting, ledgers, slurm_said)
    (damaged.path / "events" / "0001-batch.jsonl").mkdir(parents=True)
    with pytest.raises(ClusterError, match=r"^cancelled 1 of 2 runs: "):
        stop_sweep(ledgers)
    assert slurm_said.commands("scancel") == [["scancel", "8"]]


def test_what_cannot_be_cancelled_of_a_sweep_is_said_where_nothing_can(sweep, ledgers, slurm_said):
    slurm_said.says("squeue", recorded.table(""))
    for run, job in zip(sweep, "78", strict=True):
        Ledger(run.path, 1, "batch").write("start", cause="submitted", job=job)
    with held(sweep[0]), held(sweep[1]), pytest.raises(ClusterError, match=r"^nothing was cancelled: job 7 .*; job 8 "):
        stop_sweep(ledgers)
    assert not slurm_said.commands("scancel")


def test_whether_all_ranks_live_is_asked_of_the_world_of_the_latest_start(run, ledgers):
    """Of a range of nodes a start may have fewer ranks than the spec's largest."""
    spec = run.spec()
    assert spec.world_size == 1
    Ledger(run.path, 1, "batch").write("start", cause="submitted", pid=1, world_size=2)
    (run.path / "heartbeats").mkdir(exist_ok=True)
    about = {
        "host": "n1", "generation": 1, "stage": "training", "step": 1, "points": 1, "marks": 1, "still_s": 0.0,
        "stalled": False, "every_s": 1.0, "joined": True, "alive_s": 1.0,
    }  # fmt: skip
    for rank, lives in ((0, False), (1, True)):
        (run.path / "heartbeats" / f"rank{rank}.json").write_text(json.dumps({"rank": rank, **about}))
        assert bool(cancel._living(run)) == lives
