"""On a cluster an evaluation is a job: on the partition asked for, queued behind its run, its number in the run."""

import json
from pathlib import Path

import pytest

SHAPE = ("nodes=2", "tasks_per_node=1", "cluster=fake", "cluster.cpus_per_task=1")


@pytest.fixture(scope="module")
def here(cluster, slurm_sslrun, config_dir):
    """(the command line, its overrides) on the shared cluster."""
    return slurm_sslrun(cluster), ("--config-dir", config_dir(cluster), *SHAPE)


@pytest.fixture(scope="module")
def trained(here, tmp_path_factory, until):
    """A run that was trained on the cluster."""
    sslrun, shape = here
    answer = sslrun("method=rotnet", "recipe=tiny", *shape, f"runs={tmp_path_factory.mktemp('runs')}", "--json").json
    done(sslrun, Path(answer["path"]), until)
    return Path(answer["path"])


def done(sslrun, path, until):
    """`show` of a run or an evaluation, once it is done; fails when it ends otherwise."""
    shown = until(lambda: (s := sslrun.show(path))["state"] not in ("pending", "running", "preempted") and s)
    assert shown["state"] == "done", shown
    return shown


def started(path) -> list[dict]:
    lines = [line for file in sorted((path / "events").iterdir()) for line in file.read_text().splitlines()]
    return [event for event in map(json.loads, lines) if event["event"] == "start"]


def test_launched_together_the_evaluation_waits_for_the_run(cluster, here, journey, watched, until):
    sslrun, shape = here
    answer = sslrun(*journey, *shape, "eval_after=knn", f"runs={watched.runs}", "--json")
    run, job = watched.path, answer.json["job"]
    queued = {row["JobId"]: row for row in _jobs(cluster)}
    follower = next(id for id in queued if id != job)
    assert queued[follower]["Dependency"].startswith(f"afterok:{job}")
    assert queued[follower]["JobName"] == f"{run.name}-evals-knn-1"
    assert f"job {follower}, after job {job}" in answer.err
    again = sslrun(*journey, *shape, "eval_after=knn", f"runs={watched.runs}")  # joined: nothing is queued twice
    assert "after job" not in again.err
    assert len(_jobs(cluster)) == 2

    shown = done(sslrun, run, until)
    evaluated = done(sslrun, run / "evals" / "knn-1", until)
    (begin,) = started(run / "evals" / "knn-1")
    assert (begin["job"], begin["world_size"]) == (follower, 1)
    (event,) = [e for e in watched.events("eval") if e.get("by") == "evals/knn-1"]
    assert (event["protocol"], event["step"], event["digest"]) == ("knn", shown["step"], shown["state_digest"])
    assert event["scores"] == evaluated["evals"]["knn"] == sslrun.show(run)["evals"]["knn"]


def test_asked_for_later_it_is_a_job_on_the_partition_asked_for(cluster, here, trained, until):
    sslrun, run = here[0], trained
    assert "cluster.partition=nope" in sslrun("eval", run, "protocol=knn", "cluster.partition=nope", code=2).complaint
    assert not (run / "evals").exists()

    wanted = ("eval", run, "protocol=knn", "cluster.partition=low", "cluster.timeout_min=5")
    answer = sslrun(*wanted, "--json").json
    assert (answer["state"], answer["joined"]) == ("pending", False)
    (job,) = [row for row in _jobs(cluster) if row["JobId"] == answer["job"]]
    assert job["Partition"] == "low"
    evaluated = done(sslrun, answer["path"], until)
    assert evaluated["evals"]["knn"] == sslrun.show(run)["evals"]["knn"]
    again = sslrun(*wanted, "--json").json
    assert again == {**answer, "state": "done", "job": None, "joined": True}
    assert sslrun.show(run)["evaluations"] == {"knn-1": "done"}


def test_an_evaluation_that_was_preempted_is_started_again(cluster, here, trained, until):
    sslrun, run = here[0], trained
    large = ("eval_data=photos", "eval_data.images=4000", "nodes=2")
    answer = sslrun("eval", run, "protocol=knn", *large, "cluster.partition=low", "--json").json
    folder = Path(answer["path"])
    until(lambda: (folder / "progress.json").exists())
    cluster.run("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    shown = done(sslrun, folder, until)
    first, second = started(folder)
    assert first["job"] == second["job"] == answer["job"]
    assert shown["restarts"] == {"preempted": 1}
    assert sslrun.show(run)["evals"]["knn:photos"] == shown["evals"]["knn"]


def _jobs(cluster) -> list[dict[str, str]]:
    """What the controller says of every job that it has not forgotten and that has not ended."""
    said = cluster.run("scontrol", "show", "job", "-o").stdout.splitlines()
    rows = [dict(pair.partition("=")[::2] for pair in line.split()) for line in said if line.startswith("JobId=")]
    return [row for row in rows if row["JobState"] in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING")]
