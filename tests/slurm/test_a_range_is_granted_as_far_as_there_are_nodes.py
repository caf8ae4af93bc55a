"""What a range of nodes asks of Slurm, and what that gives: as many as there are, with one task a node or several.

The batch script is the plan's, up to what it runs.
"""

from pathlib import Path

import pytest

RUN = ("method=rotnet", "recipe=tiny", "cluster=fake", "method.global_batch=64")
SAID = 'echo "granted $SLURM_JOB_NUM_NODES nodes, $SLURM_JOB_CPUS_PER_NODE CPUs, no-kill ${SLURM_NO_KILL-unset}"\n'
# What workers of a rank are counted by, which the job itself is not told of a range.
RANKS = "srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=2 --gpus-per-node=0 env\n"


@pytest.fixture
def granted(big_cluster, slurm_sslrun, config_dir, tmp_path):
    """`granted("nodes=4-8", free=6)`: what a job says that was given nodes where so many are free."""

    def submit(*words, free, runs=""):
        there = ("--config-dir", config_dir(big_cluster))
        planned = slurm_sslrun(big_cluster)("plan", *RUN, *words, *there, "--json").json["sbatch"]
        (tmp_path / "script.sh").write_text(planned.partition("# setup")[0] + SAID + runs)
        log = tmp_path / f"{free}.log"
        options = ("--wait", f"--output={log}", *([f"--exclude=n[{free + 1}-64]"] if free < 64 else []))
        big_cluster.run("sbatch", *options, tmp_path / "script.sh")
        return log.read_text()

    return submit


@pytest.mark.parametrize(("least", "tasks", "cpus"), [(4, 1, 2), (4, 2, 4), (1, 2, 4), (4, 8, 16)])
def test_all_of_it_on_an_idle_cluster_and_else_what_is_free(granted, least, tasks, cpus):
    words = (f"nodes={least}-8", f"tasks_per_node={tasks}")
    assert granted(*words, free=64) == f"granted 8 nodes, {cpus}(x8) CPUs, no-kill unset\n"
    assert granted(*words, free=6) == f"granted 6 nodes, {cpus}(x6) CPUs, no-kill unset\n"


def test_a_spare_is_one_node_more_and_ranks_know_how_many_they_are_on_a_node(granted):
    said = granted("nodes=2-4", "tasks_per_node=1", "cluster.spare_nodes=1", free=64, runs=RANKS).splitlines()
    assert said[0] == "granted 5 nodes, 2(x5) CPUs, no-kill unset"
    assert said.count("SLURM_NTASKS_PER_NODE=1") == 2


def test_a_queued_range_is_joined_and_moved(big_cluster, slurm_sslrun, config_dir, tmp_path):
    sslrun = slurm_sslrun(big_cluster)
    there = ("--config-dir", config_dir(big_cluster), f"runs={tmp_path / 'runs'}")
    waits = "cluster.additional_parameters={begin: now+1hour}"
    asked = (*RUN, "tasks_per_node=2", waits, *there)
    launched = sslrun(*asked, "nodes=2-4", "cluster.spare_nodes=1", "--json")
    assert "2-4 x 2 ranks, and 1 spare node on fake" in launched.err
    run = launched.json["path"]
    assert "#SBATCH --nodes=3-5\n" in Path(run, "submit", "script.sh").read_text()
    assert "kept as first submitted: nodes: 2-4 -> 4" in sslrun(*asked, "nodes=4", "cluster.spare_nodes=1").err
    shown = sslrun.show(run)["where"]
    assert shown == {"cluster": "fake", "nodes": 4, "least_nodes": 2, "spare_nodes": 1, "tasks_per_node": 2}
    sslrun("cancel", run, "--yes")
    moved = sslrun("resume", run, "nodes=1-2", "cluster.spare_nodes=0", "--json", *there[:2])
    assert "nodes: 2-4 -> 1-2" in moved.err and "cluster.spare_nodes: 1 -> 0" in moved.err
    assert "#SBATCH --nodes=1-2\n" in Path(run, "submit", "script.sh").read_text()
