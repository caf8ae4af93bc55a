"""A plan of `nodes=4-8` keeps its keys for the largest count and lists all; one with spares says what they cost."""

import json

import pytest

from launcher.compose.training import resolve
from launcher.plan import plan as planning
from launcher.run.shapes import PLAN


def plan_of(*words, method="swav", cluster="generic"):
    return planning.make(*resolve([f"method={method}", f"cluster={cluster}", *words], planning=True))


def test_its_layouts_are_the_plans_for_each_count_and_its_keys_the_largests():
    plan, each = plan_of("nodes=3-8"), {nodes: plan_of(f"nodes={nodes}") for nodes in (8, 4)}
    said = json.loads(json.dumps(plan.to_json()))
    assert [layout["nodes"] for layout in said["layouts"]] == [8, 4] and said["nodes"] == 8
    for layout in said["layouts"]:
        alone = each[layout["nodes"]].to_json()
        assert layout == {key: alone[key] for key in layout}
        assert {"world_size", "per_gpu_batch", "accumulation", "hours", "gpu_hours", "memory_gb"} <= layout.keys()
    others = ("sbatch", "layouts", "why")
    alone = {key: value for key, value in each[8].to_json().items() if key not in others}
    assert {key: said[key] for key in alone} == json.loads(json.dumps(alone))
    assert PLAN(said) and len(each[8].layouts) == 1


def test_a_job_asks_from_the_least_count_that_fits():
    assert "#SBATCH --nodes=4-8\n" in plan_of("nodes=3-8").sbatch
    assert "#SBATCH --nodes=5-9\n" in plan_of("nodes=3-8", "cluster.spare_nodes=1").sbatch
    assert "#SBATCH --nodes=9\n" in plan_of("nodes=5-8", "cluster.spare_nodes=1").sbatch


@pytest.mark.parametrize(("words", "lines"), [((), 0), (("cluster.spare_nodes=1",), 1)])
def test_the_job_outlives_its_nodes_where_it_has_spares_alone(words, lines):
    script = plan_of("nodes=8", *words).sbatch
    assert script.count("#SBATCH --no-kill\n") == script.count("--no-kill") == lines


def test_one_task_a_node_is_not_said_of_a_range():
    """Slurm 22.05 would grant the lower end (tests/slurm/test_a_range_is_granted_to_its_upper_end.py)."""
    said = {nodes: plan_of(f"nodes={nodes}", "tasks_per_node=1").sbatch for nodes in ("8-16", "8")}
    assert "--ntasks-per-node" not in said["8-16"] and "#SBATCH --cpus-per-task=8\n" in said["8-16"]
    assert "#SBATCH --ntasks-per-node=1\n" in said["8"]
    assert "#SBATCH --ntasks-per-node=2\n" in plan_of("nodes=4-8", "tasks_per_node=2").sbatch


def test_what_a_spare_costs_is_said_and_counted_apart():
    plan, without = plan_of("nodes=8", "cluster.spare_nodes=2"), plan_of("nodes=8")
    assert (plan.gpu_hours, plan.hours) == (without.gpu_hours, without.hours)
    assert plan.spare_gpu_hours == pytest.approx(plan.gpu_hours * 2 / 8, rel=1e-3)
    assert "2 of 10 nodes" in plan.why["spare_nodes"] and "20.0% of the bill" in plan.why["spare_nodes"]
    assert "spare_nodes" not in without.why and without.spare_gpu_hours == 0
    assert "what remains" not in plan.why["spare_nodes"]
    ranged = plan_of("nodes=4-8", "cluster.spare_nodes=2").why["spare_nodes"]
    assert ranged.endswith("of fewer nodes a start takes as many as nodes=4-8 allows, and spares are what remains")
    assert "64 GPUs that train" in plan.why["gpu_hours"]


def test_a_range_of_which_one_count_fits_is_told_so():
    (said,) = plan_of("nodes=5-15").warnings
    assert said.startswith("nodes=5-15: only 8 can be laid out") and "nodes=8" in said
    assert plan_of("nodes=4-8").warnings == ()


def test_counts_on_which_a_gpu_has_too_little_memory_are_named():
    (said,) = plan_of("nodes=2-8", "cluster.gpu_mem_gb=32").warnings
    assert "52 GB a GPU do not fit its 32 GB on 2 nodes" in said


def test_the_table_has_a_row_a_count(sslrun):
    shown = sslrun("plan", "method=swav", "cluster=generic", "nodes=4-8").out
    table = shown.partition("As many nodes as there are")[2].partition("batch script")[0]
    rows = [line.split() for line in table.splitlines()]
    assert [row[:3] for row in rows if row[:1] in (["8"], ["4"])] == [["8", "64", "64"], ["4", "32", "128"]]
