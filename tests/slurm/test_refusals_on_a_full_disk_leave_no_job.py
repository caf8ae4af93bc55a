"""A disk that fills up while a run is submitted: one line, no job that nobody wrote down, and the next try works."""

import os
import shutil
import subprocess

import pytest

RUN = ("method=rotnet", "recipe=tiny", "cluster=fake", "tasks_per_node=1", "cluster.cpus_per_task=1")
LATER = "cluster.additional_parameters.begin=now+1hour"


@pytest.fixture
def disk(tmp_path):
    """`disk.room(files)`: a file system on which so many more files can be made; None: any number."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options: str) -> str:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(["size=30m", *options]), "tmpfs", folder]
        return subprocess.run(command, capture_output=True, text=True).stderr

    if not shutil.which("mount") or (failed := mount("nr_inodes=10000")):
        pytest.skip(f"mounting a small file system is not permitted here: {failed}")

    def room(files: int | None) -> None:
        usage = os.statvfs(folder)
        mount("remount", f"nr_inodes={10000 if files is None else usage.f_files - usage.f_ffree + files}")

    yield folder, room
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def refused(cluster):
    """`refused(answer, folder)`: with one line, and no job."""

    def check(answer, folder) -> None:
        assert answer.code == 2, answer
        assert answer.err.splitlines() == [answer.complaint]
        assert f"runs={folder}" in answer.complaint and "No space left on device" in answer.complaint
        assert cluster.run("squeue", "--noheader").stdout == ""

    return check


def test_while_the_run_is_made(cluster, slurm_sslrun, config_dir, disk, refused):
    folder, room = disk
    sslrun = slurm_sslrun(cluster)
    line = (*RUN, "--config-dir", config_dir(cluster, timeout_min=5), LATER, f"runs={folder}")
    for files in (0, 2, 20):
        room(files)
        refused(sslrun(*line, code=None), folder)
        assert "no runs" in sslrun("status", f"runs={folder}").out
    room(None)
    assert [sslrun(*line, "--json").json["job"]] == cluster.run("squeue", "-ho%i").stdout.split()


def test_while_the_job_is_made(cluster, slurm_sslrun, config_dir, disk, refused):
    folder, room = disk
    sslrun = slurm_sslrun(cluster)
    line = (*RUN, "--config-dir", config_dir(cluster, timeout_min=5), LATER, f"runs={folder}")
    made = sslrun(*line, "--json").json
    cluster.run("scancel", made["job"])
    files = 0
    while True:
        shutil.rmtree(f"{made['path']}/submit", ignore_errors=True)
        (folder / ".submit.lock").unlink(missing_ok=True)
        room(files)
        answer = sslrun("resume", made["path"], code=None)
        room(None)
        if answer.code == 0:
            break
        refused(answer, folder)
        files += 1
    assert files >= 4  # the lock, a folder, a link, the pickle, the script
    assert len(cluster.run("squeue", "-ho%i").stdout.split()) == 1


def test_a_ledger_that_takes_no_line_takes_no_job(cluster, slurm_sslrun, config_dir, disk, refused, until):
    folder, room = disk
    sslrun = slurm_sslrun(cluster)
    long = "method.epochs=1000"
    line = (*RUN, long, "--config-dir", config_dir(cluster, timeout_min=5), f"runs={folder}")
    run = sslrun(*line, "--json").json["path"]
    until(lambda: sslrun.show(run)["state"] == "running")
    sslrun("cancel", run, "--yes")
    assert until(lambda: (s := sslrun.show(run))["state"] != "running" and s)["state"] == "cancelled"
    room(0)
    refused(sslrun("resume", run, code=None), folder)
    room(None)
    sslrun("resume", run)
    assert len(cluster.run("squeue", "-ho%i").stdout.split()) == 1
