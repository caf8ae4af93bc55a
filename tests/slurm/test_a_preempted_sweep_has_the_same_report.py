"""A paper's table as one array on a real Slurm: preempted twice in its middle, it ends with the numbers of its twin."""

from contextlib import ExitStack
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TABLE = """
paper: Nobody (1999)
table: Table 1
claim: A higher rate is better.
numbers: top-1 (%)
method: rotnet
axis: learning rate
sets: method.lr={value}
fixed: [method.epochs=30]
scales:
  paper: {metric: knn.trained, gpu_hours: 8}
  demo: {metric: knn.trained, minutes: 2}
  tiny: {metric: knn.trained, minutes: 1}
points:
  - {value: 0.01, paper: 50.0}
  - {value: 0.05, paper: 52.5}
  - {value: not to be had, sets: method=nobodys, needs: nobodys}
"""
THERE = ("cluster=fake", "tasks_per_node=1")
HERE = ("cluster=local", "tasks_per_node=1")


@pytest.fixture
def swept(cluster, slurm_sslrun, config_dir):
    """`swept(verb_and_flags, runs)`: about the table, on the partition whose jobs are preempted where it is THERE."""
    sslrun = slurm_sslrun(cluster)
    config = config_dir(cluster, partition="low", cpus_per_task=1)
    (config / "sweeps" / "nobody").mkdir(parents=True)
    (config / "sweeps" / "nobody" / "rates.yaml").write_text(TABLE)

    def run(*words: str, runs: Path):
        return sslrun(*words, "sweep=nobody/rates", "recipe=tiny", f"runs={runs}", "--config-dir", config, "--json")

    return run


def test_two_preemptions_change_no_number(cluster, swept, tmp_path, ledger, standing, until):
    undisturbed = swept("--multirun", *HERE, runs=tmp_path / "undisturbed")
    assert [run["state"] for run in undisturbed.json["runs"]] == ["done", "done"]
    assert "not to be had: not here yet: it needs nobodys" in undisturbed.err

    answer = swept("--multirun", *THERE, runs=tmp_path / "runs").json
    runs = [Path(run["path"]) for run in answer["runs"]]
    assert len({run["job"].partition("_")[0] for run in answer["runs"]}) == 1  # one array
    for start in (1, 2):
        until(lambda start=start: all(start in {e["generation"] for e in ledger(r, "checkpoint")} for r in runs))
        with ExitStack() as still:
            for run in runs:
                still.enter_context(standing(run))
            cluster.run("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=true")
            until(lambda start=start: all(len(ledger(run, "end")) == start for run in runs))
    until(lambda: all(len(ledger(run, "end")) == 3 for run in runs))

    assert [[e["cause"] for e in ledger(run, "end")] for run in runs] == [["preempted", "preempted", "done"]] * 2

    told, twin = (swept("report", runs=tmp_path / folder).json for folder in ("runs", "undisturbed"))
    assert [run["restarts"] for point in told["points"] for run in point["runs"]] == [2, 2, 0]
    kept = ("value", "paper", "mean", "std", "difference", "state", "lacks")
    assert [{k: p[k] for k in kept} for p in told["points"]] == [{k: p[k] for k in kept} for p in twin["points"]]
    assert (told["spearman"], told["verdict"]) == (twin["spearman"], twin["verdict"])
    assert [point["state"] for point in told["points"]] == ["done", "done", "not here yet"]
    # The same line again has nothing to do.
    assert "nothing is missing" in swept("--multirun", *THERE, runs=tmp_path / "runs").err
