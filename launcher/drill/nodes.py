"""Faults: a node is lost, and a run goes on with another number of nodes."""

import contextlib
from typing import Any

from launcher.drill.catalog import ANY, INTERVAL, fault
from launcher.drill.subject import DrilledRun
from launcher.errors import ClusterError, InputError
from launcher.slurm import commands, notation

# Whoever else has a job on a node that goes down loses it, too.
EXCLUSIVE = ("cluster.additional_parameters.exclusive=true",)
SPARE = (*EXCLUSIVE, "cluster.spare_nodes=1")


@fault(4, "node-down", slurm=["node_failure"], lost=INTERVAL, alone=True, overrides=EXCLUSIVE, needs=("admin", "spare"))
def node_down(run: DrilledRun) -> None:
    """An administrator marks the run's last node as down: it goes on elsewhere, under the same job id"""
    start, after = _lose_last_node(run)
    count = (start["restart_count"], after["restart_count"])
    run.check(count[1] == count[0] + 1, f"restart counts before and after: {count}")


@fault(
    4, "node-down-with-a-spare", slurm=["node_failure"], lost=INTERVAL, in_place=True, alone=True, overrides=SPARE,
    needs=("admin", "spare"),
)  # fmt: skip
def node_down_with_a_spare(run: DrilledRun) -> None:
    """An administrator marks the run's last node as down, and the job has one in reserve: it goes on in place"""
    start, after = _lose_last_node(run)
    kept = set(notation.expand(start["nodes"])[:-1])
    run.check(kept < set(notation.expand(after["nodes"])), f"it went from {start['nodes']} to {after['nodes']}")


def _lose_last_node(run: DrilledRun) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first events of the start that had the node, and of the one after it."""
    start = run.events("start")[-1]
    node = notation.expand(start["nodes"])[-1]
    run.hit()
    commands.set_node(node, "down", "drill")
    try:
        run.ended()
        run.back()
    finally:
        with contextlib.suppress(ClusterError):  # it may be back by itself
            commands.set_node(node, "resume")
    after = run.events("start")[-1]
    run.check(after["job"] == start["job"], f"it goes on as job {after['job']}, not {start['job']}")
    return start, after


@fault(18, "impossible-layout", local=["stopped"], lost=ANY, by_hand="refused, nothing changed")
def impossible_layout(run: DrilledRun) -> None:
    """Resumed on a number of ranks that the method cannot be laid out on: refused in one line, nothing has changed"""
    run.stop()
    before = (run.run.generation(), run.saved(), (run.run.path / "spec.json").read_bytes())
    ranks = run.run.spec().method.global_batch + 1
    answer = run.sslrun("resume", run.run.id, f"tasks_per_node={ranks}")
    said = [line for line in answer.stderr.splitlines() if line.startswith("sslrun: ")]
    run.check(answer.returncode == InputError.exit_code and len(said) == 1, f"it said: {answer.stderr.strip()}")
    after = (run.run.generation(), run.saved(), (run.run.path / "spec.json").read_bytes())
    run.check(after == before, "it changed the run all the same")
    run.resume()
