"""What the queue could never start is refused before sbatch, with the field to change."""

from collections.abc import Sequence

from launcher import script, slurm
from launcher.errors import InputError
from launcher.spec import RunSpec


def find(name: str | None) -> slurm.Partition | None:
    """The partition called `name`, the default one for None. None where Slurm chooses: it then judges, too.

    Raises InputError when there is no such partition.
    """
    partitions = {p.name: p for p in slurm.partitions()}
    if name is None:
        return next((p for p in partitions.values() if p.default), None)
    if name not in partitions and "," not in name:
        known = ", ".join(sorted(partitions))
        raise InputError.of("cluster.partition", name, "the cluster has no such partition", f"it has: {known}")
    return partitions.get(name)


def check(spec: RunSpec) -> None:
    """Raises InputError with what would fit, where the run's partition could never start it."""
    cluster = spec.cluster
    partition = find(cluster.partition)
    if partition is None:
        return
    where = f"partition {partition.name}"
    if not partition.up:
        raise InputError.of("cluster.partition", partition.name, "it is down", "use another, or wait")
    if cluster.account and partition.allow_accounts and cluster.account not in partition.allow_accounts:
        allowed = ", ".join(partition.allow_accounts)
        raise InputError.of("cluster.account", cluster.account, f"{where} does not take it", f"it takes: {allowed}")
    if partition.max_minutes is not None and cluster.timeout_min > partition.max_minutes:
        reason = f"{where} ends jobs after {partition.max_minutes} minutes"
        fix = f"use cluster.timeout_min={partition.max_minutes}: a run goes on over several jobs"
        raise InputError.of("cluster.timeout_min", cluster.timeout_min, reason, fix)
    _check_nodes(spec, [n for n in slurm.nodes() if n.name in set(partition.nodes)], partition, where)


def _check_nodes(spec: RunSpec, nodes: Sequence[slurm.Node], partition: slurm.Partition, where: str) -> None:
    wanted = spec.cluster.gpus_per_node
    most = max((n.gpus for n in nodes), default=0)
    if wanted > most:
        fix = f"use cluster.gpus_per_node={most}" if most else "use a partition with GPUs"
        raise InputError.of("cluster.gpus_per_node", wanted, f"the nodes of {where} have {most} at most", fix)
    cpus = spec.tasks_per_node * script.cpus_per_task(spec)
    fitting = [n for n in nodes if n.gpus >= wanted and n.cpus >= cpus]
    if not fitting:
        reason = f"{cpus} CPUs a node are needed, and the nodes of {where} have {max(n.cpus for n in nodes)}"
        raise InputError.of("cluster.cpus_per_node", spec.cluster.cpus_per_node, reason, "set it to what they have")
    limit = min(len(fitting), partition.max_nodes or len(fitting))
    if spec.nodes > limit:
        gpus = f" with {wanted} GPUs" if wanted else ""
        raise InputError.of("nodes", spec.nodes, f"{where} gives a job {limit}{gpus} at most", f"use nodes={limit}")


def away(spec: RunSpec) -> bool:
    """Are nodes of the run's partition drained or down, which the run would get once they are back?"""
    partition = find(spec.cluster.partition)
    names = set(partition.nodes) if partition else None
    idle = ("idle", "mixed", "allocated", "completing", "mix", "alloc")
    return any(n.state not in idle for n in slurm.nodes() if names is None or n.name in names)
