"""`sslrun kmeans` on two nodes: queued, preempted, requeued by itself, with the centroids of one left in peace."""

import json
from pathlib import Path

import numpy as np
import pytest

SHAPE = ("nodes=2", "tasks_per_node=1", "cluster=fake", "cluster.cpus_per_task=1")


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    for number, rows in enumerate((20_000, 14_000, 6_000)):
        part = np.random.default_rng(number).standard_normal((rows, 32)).astype(np.float32)
        np.save(folder / f"{number}.npy", part)
    return folder


def test_preempted_it_goes_on_by_itself_and_ends_with_the_same_centroids(
    cluster, slurm_sslrun, config_dir, features, watched, until
):
    sslrun = slurm_sslrun(cluster)
    typed = ("kmeans", f"features={features}", "k=200", "iterations=60", "keep_work_s=0")
    config = ("--config-dir", config_dir(cluster), *SHAPE, "cluster.partition=low")
    answer = sslrun(*typed, *config, f"runs={watched.runs}", "--json").json
    assert (answer["state"], answer["joined"]) == ("pending", False)
    run = Path(answer["path"])
    until(lambda: watched.step() >= 2)
    cluster.run("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    shown = until(lambda: (s := sslrun.show(run))["state"] not in ("pending", "running", "preempted") and s)
    assert (shown["state"], shown["restarts"]) == ("done", {"preempted": 1}), shown
    assert {start["job"] for start in watched.events("start")} == {answer["job"]}
    summary = json.loads((run / "clusters" / "summary.json").read_text())
    assert (summary["ranks"], summary["n"]) == (2, 40_000)

    assert answer["id"] in sslrun("status", f"runs={watched.runs}").out

    other = sslrun(*typed, *config, f"runs={watched.runs.parent / 'undisturbed'}", "--json").json["path"]
    until(lambda: sslrun.show(other)["state"] == "done")
    assert sslrun.show(other)["state_digest"] == shown["state_digest"]
    again = sslrun(*typed, *config, f"runs={watched.runs}", "--json").json
    assert again == {**answer, "state": "done", "job": None, "joined": True}
