"""What a running job asks of Slurm, and for: what is left of its time, its steps, and fewer or other nodes."""

import math
import time
from pathlib import Path

import pytest
import recorded
from recorded import Refused

from launcher.errors import ClusterError
from launcher.slurm import client, commands, notation


def test_its_nodes_its_time_and_that_nobody_wants_it(slurm_said):
    slurm_said.says("scontrol show job -o 7", recorded.RUNNING_7)
    job = commands.ended("7")
    assert (job.state, job.nodes, job.left, job.seconds_left) == ("RUNNING", "n[1-2]", "9:55", 595)
    assert (job.preempted, job.restarts) == (False, 0)
    slurm_said.says("scontrol show job -o 7", recorded.RUNNING_7.replace("PreemptTime=None", "PreemptTime=2026-11-30"))
    assert commands.ended("7").preempted


@pytest.mark.parametrize(
    ("limit", "used", "left", "seconds"),
    [
        ("1-00:00:00", "00:00:01", "1439:59", 86399),
        ("00:10:00", "00:10:30", "0:00", 0),  # until OverTimeLimit is over, too
        ("02:00:00", "01:59:55", "0:05", 5),
        ("UNLIMITED", "9-00:00:00", "", math.inf),
        ("Partition_Limit", "00:00:00", "", math.inf),
        ("", "", "", math.inf),
    ],
)
def test_what_is_left_of_a_limit(slurm_said, limit, used, left, seconds):
    assert notation.left(limit, used) == left
    said = recorded.RUNNING_7.replace("=00:10:00 ", f"={limit} ").replace("=00:00:05 ", f"={used} ")
    slurm_said.says("scontrol show job", said)
    assert commands.ended("7").seconds_left == seconds


def test_its_steps_by_their_names(slurm_said):
    slurm_said.says("squeue --steps", recorded.STEPS_7.replace("|", commands.FIELD))
    assert commands.steps("7", "start1") == ["7.0"]
    assert commands.steps("7", "start") == []
    slurm_said.says("squeue --steps", "")
    assert commands.steps("7", "start1") == []
    assert slurm_said.commands("squeue")[0][:4] == ["squeue", "--steps", "--noheader", "--jobs=7"]


def test_nodes_are_given_back_and_the_scripts_that_scontrol_writes_are_left_nowhere(slurm_said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said, folders = slurm_said.run, []

    def run(command, **options):
        if command[:2] == ("scontrol", "update"):
            folders.append(Path(options["cwd"]))
            (folders[0] / "slurm_job_7_resize.sh").touch()
        return said(command, **options)

    slurm_said.says("scontrol update", "")
    monkeypatch.setattr(client.subprocess, "run", run)
    commands.keep("7_3", ["n1", "n3"])
    assert slurm_said.commands("scontrol update") == [["scontrol", "update", "JobId=7_3", "NodeList=n1,n3"]]
    assert len(folders) == 1 and not folders[0].exists() and not any(tmp_path.iterdir())


def test_a_refusal_is_one_line(slurm_said):
    refused = "Job update not available right now, the DB index is being set, try again in a bit for job 7"
    slurm_said.says("scontrol update", Refused(f"{refused}\n"))
    with pytest.raises(ClusterError, match=f"^scontrol: {refused}$"):
        commands.keep("7", ["n1"])


def test_nodes_to_be_left_out_are_told_and_a_refusal_is_none_of_the_jobs_business(slurm_said):
    slurm_said.says("scontrol update", Refused("Job is no longer pending execution for job 7\n"))
    commands.leave_out("7", ["n2", "n3"], seconds=1.0)
    assert slurm_said.commands("scontrol update") == [["scontrol", "update", "JobId=7", "ExcNodeList=n2,n3"]]


def test_an_answer_is_waited_for_some_seconds_and_what_has_not_come_by_then_is_tried_on(tmp_path):
    client.send("sh", "-c", f"touch {tmp_path}/answered", seconds=60.0)
    assert (tmp_path / "answered").exists()
    late = f"until [ -e {tmp_path}/go ] || [ $((n += 1)) -gt 6000 ]; do sleep 0.01; done; touch {tmp_path}/late"
    client.send("sh", "-c", late, seconds=0.1)
    assert not (tmp_path / "late").exists()
    (tmp_path / "go").touch()
    end = time.monotonic() + 60
    while not (tmp_path / "late").exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert (tmp_path / "late").exists()


def test_a_program_that_is_not_there_says_nothing():
    client.send("/nowhere/scontrol", "update", seconds=60.0)
