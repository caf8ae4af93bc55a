"""On a cluster an evaluation is a job: on the partition asked for, queued behind its run, its number in the run."""

from pathlib import Path

import pytest

COLUMNS = """
paper: Nobody (1999)
table: Table 2
claim: None.
numbers: top-1 (%) and mAP (%)
method: rotnet
axis: nothing
scales:
  paper: {gpu_hours: 8}
  demo: {minutes: 2}
  tiny: {minutes: 1}
columns:
  own:
    paper: [linear.top1]
    demo: [logistic.top1]
    tiny: [logistic.top1, logistic.iterations=3]
  objects:
    paper: [svm.map, eval_data=voc, eval_data.path=/data/VOCdevkit]
    demo: [svm.map, eval_data=made/objects]
    tiny: [svm.map, svm.folds=2, "svm.costs=[1]", eval_data=made/objects, eval_data.images=76]
points:
  - {value: all}
"""
SHAPE = ("nodes=1", "tasks_per_node=1", "cluster=fake", "cluster.cpus_per_task=1")


@pytest.fixture(scope="module")
def here(cluster, slurm_sslrun, config_dir):
    """(the command line, its overrides) on the shared cluster."""
    return slurm_sslrun(cluster), ("--config-dir", config_dir(cluster), *SHAPE)


@pytest.fixture(scope="module")
def together(cluster, here, tmp_path_factory, settled):
    """(the run, what was said when it was launched with an evaluation, what the queue held then), once both ended."""
    sslrun, shape = here
    words = ("method=rotnet", "recipe=tiny", *shape, "eval_after=knn", f"runs={tmp_path_factory.mktemp('runs')}")
    others = cluster.run("sbatch", "--parsable", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep inf")
    answer = sslrun(*words, "--json")
    queued = _jobs(cluster)
    again = sslrun(*words)
    assert "after job" not in again.err and len(_jobs(cluster)) == len(queued)  # joined: nothing is queued twice
    cluster.run("scancel", others.stdout.strip())
    run = Path(answer.json["path"])
    settled(sslrun, run)
    settled(sslrun, run / "evals" / "knn-1")
    return run, answer, {row["JobId"]: row for row in queued if row["JobId"] != others.stdout.strip()}


def test_launched_together_the_evaluation_waits_for_the_run(here, together, ledger):
    sslrun, _ = here
    run, answer, queued = together
    (follower,) = queued.keys() - {answer.json["job"]}
    assert queued[follower]["Dependency"].startswith(f"afterok:{answer.json['job']}")
    assert queued[follower]["JobName"] == f"{run.name}-evals-knn-1"
    assert f"job {follower}, after job {answer.json['job']}" in answer.err

    shown, evaluated = sslrun.show(run), sslrun.show(run / "evals" / "knn-1")
    assert (shown["state"], evaluated["state"]) == ("done", "done"), (shown, evaluated)
    (begin,) = ledger(run / "evals" / "knn-1", "start")
    assert (begin["job"], begin["world_size"]) == (follower, 1)
    (event,) = [e for e in ledger(run, "eval") if e.get("by") == "evals/knn-1"]
    assert (event["protocol"], event["step"], event["digest"]) == ("knn", shown["step"], shown["state_digest"])
    assert event["scores"] == evaluated["evals"]["knn"] == shown["evals"]["knn"]


@pytest.mark.slow
def test_the_columns_of_a_table_are_jobs_behind_their_run(cluster, slurm_sslrun, config_dir, tmp_path, ledger, settled):
    sslrun, config, runs = slurm_sslrun(cluster), config_dir(cluster), tmp_path / "runs"
    (config / "sweeps" / "nobody").mkdir(parents=True)
    (config / "sweeps" / "nobody" / "columns.yaml").write_text(COLUMNS)
    words = ("sweep=nobody/columns", "recipe=tiny", f"runs={runs}", "--config-dir", config)
    (found,) = sslrun("--multirun", *words, *SHAPE, "--json").json["runs"]
    run = Path(found["path"])
    settled(sslrun, run)
    for name in ("logistic-1", "svm-1"):
        settled(sslrun, run / "evals" / name)
        (begin,) = ledger(run / "evals" / name, "start")
        assert begin["job"] != found["job"]
    points = sslrun("report", *words, "--json").json["points"]
    shown = sslrun.show(run)["evals"]
    scores = shown["logistic(iterations=3)"]["top1"], shown["svm(costs=[1.0],folds=2):made/objects(images=76)"]["map"]
    assert [point["mean"] for point in points] == [*scores]


@pytest.mark.fault
@pytest.mark.slow
def test_asked_for_later_it_is_a_job_on_the_partition_asked_for_and_starts_again_where_it_is_preempted(
    cluster, here, together, ledger, standing, settled, until
):
    sslrun, (run, *_) = here[0], together
    before = sorted((run / "evals").iterdir())
    assert "cluster.partition=nope" in sslrun("eval", run, "protocol=knn", "cluster.partition=nope", code=2).complaint
    assert sorted((run / "evals").iterdir()) == before

    data = ("eval_data=photos", "eval_data.images=4000")
    wanted = ("eval", run, "protocol=knn", *data, "nodes=2", "cluster.partition=low", "cluster.timeout_min=60")
    answer = sslrun(*wanted, "--json").json
    assert (answer["state"], answer["joined"]) == ("pending", False)
    (job,) = [row for row in _jobs(cluster) if row["JobId"] == answer["job"]]
    assert (job["Partition"], job["TimeLimit"]) == ("low", "01:00:00")
    folder = Path(answer["path"])
    until((folder / "progress.json").exists)
    with standing(folder):
        cluster.run("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=true")
        until(lambda: ledger(folder, "end"))
    shown = settled(sslrun, folder)
    assert (shown["state"], shown["restarts"]) == ("done", {"preempted": 1}), shown
    first, second = ledger(folder, "start")
    assert first["job"] == second["job"] == answer["job"]
    assert sslrun.show(run)["evals"]["knn:photos(images=4000)"] == shown["evals"]["knn"]
    again = sslrun(*wanted, "--json").json
    assert again == {**answer, "state": "done", "job": None, "joined": True}
    assert sslrun.show(run)["evaluations"] == {"knn-1": "done", folder.name: "done"}


def _jobs(cluster) -> list[dict[str, str]]:
    """What the controller says of every job that it has not forgotten and that has not ended."""
    said = cluster.run("scontrol", "show", "job", "-o").stdout.splitlines()
    rows = [dict(pair.partition("=")[::2] for pair in line.split()) for line in said if line.startswith("JobId=")]
    return [row for row in rows if row["JobState"] in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING")]
