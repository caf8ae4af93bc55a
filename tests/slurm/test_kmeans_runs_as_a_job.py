"""`sslrun kmeans` on two nodes: queued, preempted, requeued by itself, with the centroids of one left in peace."""

import json
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.fault, pytest.mark.slow]


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    for number, rows in enumerate((20_000, 14_000, 6_000)):
        part = np.random.default_rng(number).standard_normal((rows, 32)).astype(np.float32)
        np.save(folder / f"{number}.npy", part)
    return folder


def test_preempted_it_goes_on_by_itself_and_ends_with_the_same_centroids(
    cluster, slurm_sslrun, config_dir, features, watched, standing, settled, until
):
    sslrun = slurm_sslrun(cluster)
    typed = ("kmeans", f"features={features}", "k=200", "iterations=100", "keep_work_s=0")
    shape = (
        "nodes=2",
        "tasks_per_node=1",
        "cluster=fake",
        "cluster.cpus_per_task=1",
        "cluster.partition=low",
    )
    there = ("--config-dir", config_dir(cluster), *shape, f"runs={watched.runs}", "--json")
    answer = sslrun(*typed, *there).json
    assert (answer["state"], answer["joined"]) == ("pending", False)
    run = Path(answer["path"])
    until(lambda: watched.step() >= 2)
    with standing(run):
        cluster.run("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=true")
        until(lambda: watched.events("end"))
    shown = settled(sslrun, run)
    assert (shown["state"], shown["restarts"]) == ("done", {"preempted": 1}), shown
    assert {start["job"] for start in watched.events("start")} == {answer["job"]}
    summary = json.loads((run / "clusters" / "summary.json").read_text())
    assert (summary["ranks"], summary["n"]) == (2, 40_000)

    assert answer["id"] in sslrun("status", f"runs={watched.runs}").out

    here = ("cluster=local", "tasks_per_node=2", f"runs={watched.runs.parent / 'undisturbed'}", "--json")
    assert sslrun.show(sslrun(*typed, *here).json["path"])["state_digest"] == shown["state_digest"]
    again = sslrun(*typed, *there).json
    assert again == {**answer, "state": "done", "job": None, "joined": True}
