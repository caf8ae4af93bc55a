"""`sslrun cancel` on a real Slurm: the job goes, and no other job does; what waits for the run stays."""

import json
import os
import shutil
import signal
import sys

RUN = ("method=rotnet", "recipe=tiny", "cluster=fake", "tasks_per_node=1", "--json")


def states(cluster):
    """{job: its state in the queue}"""
    rows = cluster.run("squeue", "--noheader", "--format=%i %T").stdout.split()
    return dict(zip(rows[::2], rows[1::2], strict=True))


def test_a_job_that_sets_up_is_no_run_that_could_save(cluster, slurm_sslrun, config_dir, tmp_path, until):
    sslrun = slurm_sslrun(cluster)
    folder = config_dir(cluster, setup=["sleep infinity"])
    run = sslrun(*RUN, "--config-dir", folder, f"runs={tmp_path / 'runs'}").json
    until(lambda: states(cluster).get(run["job"]) == "RUNNING")
    sslrun("cancel", run["path"])
    assert sslrun.show(run["path"])["state"] == "cancelled"
    until(lambda: run["job"] not in states(cluster))  # although it will never have set up
    assert sslrun.show(run["path"])["state"] == "cancelled"


# Starts a rank once the file is there, and hears no SIGTERM until Python does: as if Slurm had no step to signal yet.
LATE = """sh -c 'trap "" TERM; touch {here}; until [ -e {go} ]; do sleep 0.1; done; exec {python} "$@"' sh"""


def test_ranks_that_come_to_life_after_they_were_told_save_and_stop(
    cluster, slurm_sslrun, config_dir, watched, tmp_path, until
):
    sslrun = slurm_sslrun(cluster)
    late = LATE.format(here=tmp_path / "here", go=tmp_path / "go", python=sys.executable)
    folder = config_dir(cluster, python=late, cpus_per_task=1)
    run = sslrun(*RUN, "method.epochs=1000", "--config-dir", folder, f"runs={watched.runs}").json["path"]
    until((tmp_path / "here").exists)
    cancel = sslrun.start("cancel", run, "--yes")
    assert any("told to save and stop" in line for line in cancel.stderr)
    (tmp_path / "go").touch()
    assert sslrun.finish(cancel).code == 0
    (end,) = watched.events("end")
    assert (end["state"], end["message"]) == ("cancelled", "cancelled, state saved"), end
    assert "CANCELLED" not in "".join(log.read_text() for log in (watched.path / "submit").glob("*.log"))


def test_evaluations_wait_for_the_job_that_resumes_the_run(cluster, slurm_sslrun, config_dir, tmp_path):
    sslrun = slurm_sslrun(cluster)
    folder = config_dir(cluster, additional_parameters={"begin": "now+1hour"})
    run = sslrun(*RUN, "eval_after=knn", "--config-dir", folder, f"runs={tmp_path / 'runs'}").json
    assert len(states(cluster)) == 2
    sslrun("cancel", run["path"])
    assert [state for state in states(cluster).values() if state != "COMPLETING"] == ["PENDING"]
    job = sslrun("resume", run["path"], "--json").json["job"]
    queued = cluster.run("squeue", "--noheader", "--format=%i %E").stdout
    assert len(states(cluster)) == 2 and queued.count(f"afterok:{job}(") == 1


def test_a_job_that_has_the_number_and_is_another_is_left_alone(cluster, slurm_sslrun, config_dir, tmp_path):
    sslrun = slurm_sslrun(cluster)
    folder = config_dir(cluster, additional_parameters={"begin": "now+1hour"})
    run = sslrun(*RUN, "--config-dir", folder, f"runs={tmp_path / 'runs'}").json
    other = cluster.run("sbatch", "--parsable", "--begin=now+1hour", "--job-name=thesis", "--wrap=true").stdout.strip()
    # What a second cluster with the same folder of runs would show: the number is somebody else's.
    for file in (tmp_path / "runs" / run["id"] / "events").iterdir():
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        rows = [{**row, "job": other} if row["event"] == "submitted" else row for row in rows]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = sslrun("cancel", run["path"], code=3).err
    assert other in said and "thesis" in said and "scancel" in said
    assert other in states(cluster)


# scontrol, which waits once a start has ended that another one follows in the same job.
FROZEN = """#!/bin/sh
if [ "$1" != ping ] && grep -qs '"in_place": true' {runs}/*/events/*-batch.jsonl; then
    touch {here}
    until [ -e {go} ]; do sleep 0.1; done
fi
exec {scontrol} "$@"
"""


def test_a_run_that_goes_from_one_start_to_the_next_is_running_and_can_be_stopped(
    cluster, slurm_sslrun, config_dir, watched, tmp_path, until
):
    sslrun = slurm_sslrun(cluster)
    here, go, programs = tmp_path / "here", tmp_path / "go", tmp_path / "bin"
    programs.mkdir()
    waits = FROZEN.format(runs=watched.runs, here=here, go=go, scontrol=shutil.which("scontrol"))
    (programs / "scontrol").write_text(waits)
    (programs / "scontrol").chmod(0o700)
    folder = config_dir(cluster, setup=[f"export PATH={programs}:$PATH"], cpus_per_task=1)
    run = sslrun(*RUN, "method.epochs=1000", "--config-dir", folder, f"runs={watched.runs}").json
    beat = watched.path / "heartbeats" / "rank0.json"
    until(beat.exists)
    os.kill(json.loads(beat.read_text())["pid"], signal.SIGKILL)
    until(lambda: here.exists() and not watched.processes())
    (row,) = sslrun("status", f"runs={watched.runs}", "--json").json
    assert (row["state"], row["stage"], row["job"]) == ("running", "starting", run["job"])
    follow = sslrun.start("logs", run["path"], "--all", "-f")
    cancel = sslrun.start("cancel", run["path"], "--yes")
    assert any("told to save and stop" in line for line in cancel.stderr)
    assert follow.poll() is None
    go.touch()
    assert sslrun.finish(cancel).code == sslrun.finish(follow).code == 0
    last = watched.events("end")[-1]
    assert (last["generation"], last["state"], last["message"]) == (2, "cancelled", "cancelled; no rank had begun")
    assert sslrun.show(run["path"])["state"] == "cancelled"
    until(lambda: run["job"] not in states(cluster))
