"""What a plan says of a range of nodes, and of spare ones. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from launcher.spec.runspec import RunSpec


@dataclass(frozen=True)
class OnNodes:
    """How a run lies on one of the counts that it takes, and what the whole of it would cost there: an entry of a
    plan's `layouts`, under the names and in the units of the plan."""

    nodes: int
    world_size: int
    per_gpu_batch: int
    accumulation: int
    batch_norm_ranks: int
    checkpoint_every: int
    memory_gb: float
    host_memory_gb: float
    hours: float
    gpu_hours: float
    waste: str | None


def of(plan: Any) -> OnNodes:
    """What a Plan for one count says."""
    return OnNodes(**{each.name: getattr(plan, each.name) for each in fields(OnNodes)})


def spare_gpu_hours(spec: RunSpec, hours: float) -> float:
    """GPU-hours for which the spare nodes are held and do nothing, where none is ever needed. hours: of the run."""
    cluster = spec.cluster
    return cluster.spare_nodes * spec.tasks_per_node * hours if cluster.gpus_per_node else 0.0


def why_spares(spec: RunSpec, nodes: int, hours: float) -> Mapping[str, str]:
    """The sentence on spares for `why`; none where there are none. nodes: the most that a start takes; hours: of the
    run on these."""
    cluster = spec.cluster
    if not cluster.spare_nodes:
        return {}
    total, idle = nodes + cluster.spare_nodes, spare_gpu_hours(spec, hours)
    cost = f"{idle:,.0f} GPU-hours held idle" if cluster.gpus_per_node else "held idle"
    said = (
        f"{cluster.spare_nodes} of {total} nodes: {cost}, {cluster.spare_nodes / total:.1%} of the bill and not in "
        "gpu_hours; a run that loses a node goes on at once instead of waiting in the queue"
    )
    if spec.least_nodes is not None:
        said += (
            f"; of fewer nodes a start takes as many as nodes={spec.asked_nodes} allows, and spares are what remains"
        )
    return {"spare_nodes": said}


def remarks(spec: RunSpec, layouts: Sequence[OnNodes]) -> list[str]:
    """What is to be said of a range before it runs. layouts: of every count that fits."""
    if spec.least_nodes is None:
        return []
    said, asked, cluster = [], f"nodes={spec.asked_nodes}", spec.cluster
    if len(layouts) == 1:
        nodes = layouts[0].nodes
        said.append(f"{asked}: only {nodes} can be laid out, so that the job waits for {nodes} as with nodes={nodes}")
    over = [each for each in layouts[1:] if cluster.gpus_per_node and each.memory_gb > cluster.gpu_mem_gb]
    if over and layouts[0].memory_gb <= cluster.gpu_mem_gb:  # else the plan says it of all
        most = f"{over[-1].memory_gb:.0f} GB a GPU do not fit its {cluster.gpu_mem_gb:.0f} GB"
        counts = " and ".join(str(each.nodes) for each in over)
        said.append(f"{asked}: {most} on {counts} nodes; leave these out of the range")
    return said


def why(spec: RunSpec, layouts: Sequence[OnNodes]) -> Mapping[str, str]:
    """Sentences for `why`: of a range, of spares, and what GPU-hours count."""
    largest, found, cluster = layouts[0], {}, spec.cluster
    if spec.least_nodes is not None:
        counts = " or ".join(str(each.nodes) for each in layouts)
        where = f"nodes={spec.asked_nodes} x {spec.tasks_per_node} tasks a node on cluster {cluster.name}"
        there = f"each start is on {counts} nodes, as many as there are"
        found["world_size"] = f"{where}: {there}; all numbers are for {largest.nodes}"
    if cluster.gpus_per_node:
        found["gpu_hours"] = f"{largest.world_size} GPUs that train, without queue, starts and spare nodes"
    return {**found, **why_spares(spec, largest.nodes, largest.hours)}
