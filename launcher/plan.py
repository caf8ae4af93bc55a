"""(spec, recipe) -> Plan: how the run lies on the cluster, what it takes, and why. Pure: computes, touches nothing."""

import dataclasses
import shlex
from dataclasses import dataclass
from typing import Any

from launcher import cost, registry
from launcher.spec import ClusterConfig, Recipe, RunSpec


@dataclass(frozen=True)
class Groups:
    """Communication groups: how many, and ranks in each."""

    count: int
    size: int


@dataclass(frozen=True)
class Plan:
    """The JSON of `sslrun plan`. GB are 1e9 bytes; hours are wall-clock without waiting in the queue."""

    method: str
    recipe: str
    run: str
    cluster: str
    nodes: int
    gpus_per_node: int
    world_size: int
    per_gpu_batch: int
    accumulation: int
    global_batch: int
    lr: float
    groups: Groups
    groups_per_rank: int
    batch_norm_ranks: int
    steps: int
    checkpoint_every: int
    memory_gb: float
    disk_gb: float
    hours: float
    gpu_hours: float
    sbatch: str | None
    waste: str | None
    variant: tuple[str, ...]
    why: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def make(spec: RunSpec, recipe: Recipe) -> Plan:
    """Size the job. The number of images is the data's where its config tells, the recipe's own otherwise.

    Raises InputError when the method cannot be laid out on this world, naming the sizes that work.
    """
    method, cluster, world = registry.method(spec.method.name), spec.cluster, spec.world_size
    layout = method.layout(spec.method, world)
    sizes = method.sizes(spec.method, world)
    known = getattr(spec.data, "images", None)
    count = known or recipe.images
    given = {name for name, value in vars(recipe.method).items() if _changed(value, getattr(spec.method, name))}
    as_published = not given and spec.data.name == recipe.data.name
    batch = spec.method.global_batch
    steps = count // batch * spec.method.epochs
    memory = cost.memory(sizes, layout, spec.method.precision)
    shared_gb, sharded_gb = cost.checkpoint_gb(sizes)
    step = cost.step_seconds(sizes, batch // world, cluster, spec.method.precision)
    reduce = cost.all_reduce_seconds(sizes, world, cluster)
    seconds = max(step, reduce)
    save = (shared_gb + sharded_gb) / cluster.disk_gb_s
    # Saves take 1 % of the time or come every half hour, whichever is sooner, but never within 10 steps.
    every = spec.method.checkpoint_every or max(10, int(min(100 * save, 1800) / max(seconds, 1e-9)))
    waste = layout.waste
    if cluster.gpus_per_node and memory.total > cluster.gpu_mem_gb:
        short = f"{memory.total:.0f} GB a GPU do not fit its {cluster.gpu_mem_gb:.0f} GB; use more ranks"
        waste = f"{waste}; {short}" if waste else short
    hours = (steps * seconds + steps / every * save) / 3600
    per_gpu = "a GPU" if cluster.gpus_per_node else "a process"
    why = {
        **sizes.why,
        **layout.why,
        "world_size": f"nodes={spec.nodes} x {spec.tasks_per_node} tasks a node on cluster {cluster.name}",
        "global_batch": ("given" if "global_batch" in given else f"the recipe's ({recipe.source})")
        + "; it stays when the number of nodes changes",
        "lr": ("given" if "lr" in given else "the recipe's")
        + f", for a global batch of {batch}; {spec.method.schedule}",
        "steps": f"{count:,} images ({'the data' if known else 'the recipe'}) / {batch} x {spec.method.epochs} epochs",
        "expect": recipe.expect if as_published else "the recipe or its data were changed: unknown",
        "memory_gb": f"{per_gpu}: weights {memory.weights:.2f}, gradients {memory.gradients:.2f}, optimiser "
        f"{memory.optimiser:.2f}, activations {memory.activations:.2f} (model, not measured)",
        "disk_gb": f"one checkpoint: network {shared_gb:.2f}, sub-classifiers and the like {sharded_gb:.2f}; "
        f"{spec.method.keep_checkpoints} are kept",
        "checkpoint_every": "given"
        if spec.method.checkpoint_every
        else f"a save takes about {save:.0f} s; 1 % of the time, at least every half hour",
        "hours": f"{seconds:.3g} s a step: arithmetic {step:.3g} at {cluster.efficiency:.0%} of the peak, all-reduce "
        f"{reduce:.3g}; without data loading and k-means (model, not measured)",
    }
    return Plan(
        method=spec.method.name,
        recipe=spec.recipe,
        run=spec.run_id,
        cluster=cluster.name,
        nodes=spec.nodes,
        gpus_per_node=cluster.gpus_per_node,
        world_size=world,
        per_gpu_batch=layout.per_gpu_batch,
        accumulation=layout.accumulation,
        global_batch=batch,
        lr=spec.method.lr,
        groups=Groups(layout.groups, layout.group_size),
        groups_per_rank=layout.groups_per_rank,
        batch_norm_ranks=layout.batch_norm_ranks,
        steps=steps,
        checkpoint_every=every,
        memory_gb=round(memory.total, 3),
        disk_gb=round(shared_gb + sharded_gb, 3),
        hours=round(hours, 4),
        gpu_hours=round(hours * world, 3) if cluster.gpus_per_node else 0.0,
        sbatch=_sbatch(spec, cluster) if cluster.kind == "slurm" else None,
        waste=waste,
        variant=layout.variant,
        why=why,
    )


def _changed(recipes: Any, given: Any) -> bool:
    return (list(given) if isinstance(given, tuple) else given) != recipes


def _sbatch(spec: RunSpec, cluster: ClusterConfig) -> str:
    """The batch script of one run: one task a GPU, requeued on preemption, ended whole when one rank dies."""
    options = {
        "job-name": spec.run_id,
        "nodes": spec.nodes,
        "ntasks-per-node": spec.tasks_per_node,
        "gpus-per-node": cluster.gpus_per_node,
        "cpus-per-task": max(1, cluster.cpus_per_node // spec.tasks_per_node),
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "time": cluster.time_limit_minutes,
        "signal": "USR2@120",
        "requeue": True,
        "open-mode": "append",
        "output": f"{spec.runs}/{spec.run_id}/logs/slurm-%j.log",
    }
    lines = ["#!/bin/bash"]
    for key, value in options.items():
        if value is True:
            lines.append(f"#SBATCH --{key}")
        elif value is not None:
            lines.append(f"#SBATCH --{key}={shlex.quote(str(value)) if key == 'output' else value}")
    run = shlex.quote(f"{spec.runs}/{spec.run_id}")
    lines += ["export PYTHONSAFEPATH=1", *cluster.setup, f"srun --kill-on-bad-exit=1 python -m launcher.worker {run}"]
    return "\n".join(lines) + "\n"
