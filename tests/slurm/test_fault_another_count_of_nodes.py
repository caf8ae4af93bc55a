"""`nodes=2-4`: preempted, the run comes back on as many nodes as there are, twice, and is the same run: from the same
state on, a step has the loss that it has on the other count. To the end, in float64: tests/methods/test_contract.py."""

import shutil
from pathlib import Path

import pytest
from watched import Watched

pytestmark = [pytest.mark.fault, pytest.mark.slow]

RUN = ("method=rotnet", "recipe=tiny", "method.epochs=16", "method.log_every=1")
SHAPE = ("nodes=2-4", "tasks_per_node=1", "cluster=fake", "cluster.cpus_per_task=1")
ROUNDING = 1e-5  # of a loss whose sums other ranks add up in another order


@pytest.fixture
def preempted(watched, standing, until):
    """`preempted(cluster, nodes, command)`: the run saves and goes, because of a job that runs the command on these
    nodes -> its id."""

    def preempt(cluster, nodes, command):
        start = watched.events("start")[-1]
        watched.ranks(start["generation"], size=start["world_size"])
        options = ("--partition=high", f"--nodelist={nodes}", "--exclusive", "--output=/dev/null", "--parsable")
        with standing(watched.path):
            job = cluster.run("sbatch", *options, f"--wrap={command}").stdout.strip()
            until(lambda: len(watched.events("end")) == start["generation"])
        return job

    return preempt


def losses(run: Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in Watched(run.parent).rows() if "loss" in row}


def test_preempted_twice_it_is_the_same_run(
    start_cluster, slurm_sslrun, config_dir, watched, preempted, settled, undisturbed, until, tmp_path
):
    with start_cluster(nodes=4, cpus=2) as own:
        there, config = slurm_sslrun(own), config_dir(own, partition="low")
        there(*RUN, *SHAPE, "--config-dir", config, f"runs={watched.runs}")
        until(lambda: watched.events("start"))
        others = preempted(own, "n[3-4]", "sleep infinity")
        until(lambda: len(watched.events("start")) == 2)
        own.run("scancel", others)
        preempted(own, "n[1-2]", "true")
        stayed = shutil.copytree(watched.runs, tmp_path / "stayed", symlinks=True) / watched.path.name
        shown = settled(there, watched.path)
        there("resume", stayed, "cluster=local", "nodes=1", "tasks_per_node=2")  # its job is over now
    assert (shown["state"], shown["restarts"], shown["lost_steps"]) == ("done", {"preempted": 2}, 0), shown
    assert [start["world_size"] for start in watched.events("start")] == [4, 2, 4]

    found, on_four, on_two = losses(watched.path), losses(undisturbed(4, RUN)), losses(stayed)
    assert sorted(found) == sorted(on_four)
    first, second = (event["step"] for event in watched.events("restored"))
    assert all(found[step] == on_four[step] for step in range(1, first + 1))
    assert found[first + 1] == pytest.approx(on_four[first + 1], rel=ROUNDING)
    assert all(found[step] == on_two[step] for step in range(1, second + 1))
    assert found[second + 1] == pytest.approx(on_two[second + 1], rel=ROUNDING)
