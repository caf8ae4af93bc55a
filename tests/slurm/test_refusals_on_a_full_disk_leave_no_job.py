"""A disk that fills up while a run is submitted: one line, no job that nobody wrote down, and the next try works."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

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
    line = (*RUN, "--config-dir", config_dir(cluster), LATER, f"runs={folder}")
    for files in (0, 2, 20):
        room(files)
        refused(sslrun(*line, code=None), folder)
        assert "no runs" in sslrun("status", f"runs={folder}").out
    room(None)
    assert [sslrun(*line, "--json").json["job"]] == cluster.run("squeue", "-ho%i").stdout.split()


def test_while_the_job_is_made(cluster, slurm_sslrun, config_dir, disk, refused):
    folder, room = disk
    sslrun = slurm_sslrun(cluster)
    line = (*RUN, "--config-dir", config_dir(cluster), LATER, f"runs={folder}")
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
    folder, _ = disk
    sslrun = slurm_sslrun(cluster)
    line = (*RUN, "--config-dir", config_dir(cluster), LATER, f"runs={folder}")
    made = sslrun(*line, "--json").json
    spec = Path(made["path"]) / "spec.json"
    good = spec.read_text()
    spec.write_text("{")  # so that its start fails at once, and the next one has a ledger of its own
    cluster.run("scontrol", "update", f"JobId={made['job']}", "StartTime=now")
    until(lambda: not cluster.run("squeue", "--noheader").stdout)
    spec.write_text(good)
    assert sslrun.show(made["path"])["state"] == "failed"
    with contextlib.suppress(OSError), (folder / "others").open("wb", buffering=0) as others:
        while others.write(bytes(512)):  # files can be made, and hold nothing
            pass
    refused(sslrun("resume", made["path"], code=None), folder)
    (folder / "others").unlink()
    sslrun("resume", made["path"])
    assert len(cluster.run("squeue", "-ho%i").stdout.split()) == 1
