"""Runs behind one another: what waits for a run that ends otherwise stays in the queue, says so, and follows that run
to its next job; one point of a sweep as well as a run by itself."""

from pathlib import Path

import pytest

SHAPE = ("recipe=tiny", "nodes=1", "tasks_per_node=1", "cluster=fake", "cluster.cpus_per_task=1")
LATER = "+cluster.additional_parameters.begin=now+1hour"
HELD, NEVER = "job requeued in held state", "DependencyNeverSatisfied"


@pytest.fixture
def here(cluster, slurm_sslrun, config_dir, tmp_path):
    """(the command line, the folder of the runs, what is typed of each run)."""
    runs = f"runs={tmp_path / 'runs'}"
    return slurm_sslrun(cluster), runs, (*SHAPE, "--config-dir", config_dir(cluster), runs, "--json")


@pytest.fixture
def queue(cluster):
    """`queue()`: {job: (its state, why it waits, for which jobs)}, of tasks of arrays one by one."""

    def ask() -> dict[str, tuple[str, ...]]:
        rows = cluster.run("squeue", "--noheader", "--array", "--format=%i|%T|%r|%E").stdout.splitlines()
        return {job: tuple(rest) for job, *rest in (row.split("|") for row in rows)}

    return ask


def test_what_waits_for_a_run_follows_it_to_its_next_job(here, queue, ledger, until):
    """Of a task of an array that was cancelled before it began Slurm knows nothing: what waits for it is started."""
    sslrun, runs, shape = here
    _, source = sslrun("--multirun", "method=rotnet", "seed=0,1", LATER, *shape).json["runs"]
    behind = ("--multirun", "method=deepercluster", f"init_from={source['id']}", "seed=0,1", *shape)
    planned = sslrun("plan", "method=deepercluster", f"init_from={source['id']}", *shape).json["dependency"]
    assert planned == [f"--dependency=afterok:{source['job']}", "--kill-on-invalid-dep=no"]
    answer = sslrun(*behind)
    points = answer.json["runs"]
    assert f"behind {source['id']} (pending at step 0)" in answer.err
    jobs = [point["job"] for point in points]
    judged = sslrun("eval", points[1]["id"], "protocol=knn", runs, "--json").json["job"]
    last = queue()
    assert {last[job][2] for job in jobs} == {f"afterok:{source['job']}(unfulfilled)"}
    assert last[judged][2] == f"afterok:{jobs[1]}(unfulfilled)"
    assert [event["path"] for event in ledger(source["path"], "awaited")] == [point["path"] for point in points]

    said = sslrun("cancel", source["path"], "--yes").err
    assert points[0]["id"] in said and f"`sslrun resume {source['id']} {runs}` starts these, too" in said
    until(lambda: {queue()[job][:2] for job in jobs} == {("PENDING", HELD)})
    assert not any(ledger(point["path"], "start") for point in points)
    rows = {row["id"]: row for row in sslrun("status", runs, "--json").json}
    waits = [{"run": source["id"], "path": source["path"], "state": "cancelled", "step": 0}]
    for point in points:
        assert (rows[point["id"]]["state"], rows[point["id"]]["behind"]) == ("pending", waits)
        assert sslrun.show(point["path"])["behind"] == waits
    sslrun.environment["COLUMNS"] = "80"
    lines = sslrun("status", runs).out.splitlines()
    assert max(map(len, lines[: len(rows) + 1])) <= 80
    (line,) = [line for line in lines if line.startswith(f"{points[0]['id']}  ")]
    assert f"{source['id']} (cancelled)" in line
    (line,) = [line for line in lines if f"`sslrun resume {source['id']}" in line]
    assert " and 1 more wait for " in line
    follow = sslrun.start("logs", points[0]["path"], "-f")
    assert any(f"it waits for {source['id']} (cancelled at step 0): `sslrun resume" in line for line in follow.stderr)
    follow.kill()
    follow.wait()
    refused = sslrun("method=deepercluster", f"init_from={source['id']}", "seed=7", *shape, code=2).complaint
    assert f"`sslrun resume {source['path']}`" in refused

    sslrun("cancel", points[1]["path"], "--yes")
    assert jobs[1] not in queue() and sslrun.show(points[1]["path"])["state"] == "cancelled"
    resumed = sslrun("resume", source["path"], "--json").json["job"]
    assert queue()[jobs[0]][2] == f"afterok:{resumed}(unfulfilled)"
    until(lambda: queue()[jobs[0]][1] == "Dependency")  # no longer held
    again = sslrun("resume", points[1]["path"], "--json").json["job"]
    assert queue()[again][2] == f"afterok:{resumed}(unfulfilled)"
    assert queue()[judged][2] == f"afterok:{again}(unfulfilled)"


def test_what_waits_for_a_run_that_is_stopped_is_not_even_started(here, queue, ledger, until):
    sslrun, _, shape = here
    source = sslrun("method=rotnet", "method.epochs=1000", *shape).json
    behind = sslrun("method=deepercluster", f"init_from={source['id']}", *shape).json
    until((Path(source["path"]) / "progress.json").exists)
    sslrun("cancel", source["path"], "--yes")
    until(lambda: queue()[behind["job"]][1] == NEVER)
    (end,) = ledger(source["path"], "end")
    assert end["state"] == "cancelled" and not ledger(behind["path"], "waits")
