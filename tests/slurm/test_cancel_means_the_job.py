"""`sslrun cancel` on a real Slurm: the job goes, what waits for the run goes with it, and no other job does."""

import json
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
    assert [state for state in states(cluster).values() if state != "COMPLETING"] == []
    job = sslrun("resume", run["path"], "--json").json["job"]
    queued = cluster.run("squeue", "--noheader", "--format=%i %E").stdout
    assert len(states(cluster)) == 2 and f"afterok:{job}" in queued


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
