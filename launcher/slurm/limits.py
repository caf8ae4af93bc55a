"""What the queue could never start is refused before sbatch, with the field to change.

A job of more memory or GPUs than any node has is taken by sbatch while nodes are drained, and then waits for ever: so
it is the configuration of the nodes that is looked at here, not their state.
"""

import os
import re
from collections.abc import Sequence
from typing import NoReturn

from launcher.errors import ClusterError, InputError
from launcher.plan import script, worlds
from launcher.slurm import commands, notation, srun
from launcher.spec.runspec import RunSpec

# Words of Slurm -> what they may be about.
FIELDS = {
    "feature": ("constraint",),
    "generic resource": ("gres",),
    "node name": ("exclude", "additional_parameters.nodelist"),
    "reservation": ("additional_parameters.reservation",),
    "qos": ("qos", "account"),
    "account": ("account", "partition"),
    "partition": ("partition",),
    "node configuration": ("constraint", "gres", "exclude", "additional_parameters.nodelist"),
}
# Slurm's word for the limit where an account, its user or a QOS may have no more jobs in the queue for now:
# AssocMaxSubmitJobLimit, AssocGrpSubmitJobsLimit, QOSMaxSubmitJobPerUserLimit, QOSGrpSubmitJobsLimit,
# MaxSubmitJobsPerAccount (measured on 22.05). Limits of jobs that run, such as MaxJobs, only let them wait.
FULL = re.compile(r"\b\w*(?:Max|Grp)Submit\w*")
CLOSED = ("DRAIN", "INACTIVE")  # states of a partition in which sbatch refuses jobs; in DOWN, as in UP, it takes them
IN_USE = ("IDLE", "MIXED", "ALLOCATED", "COMPLETING", "PLANNED", "RESERVED")


def find(name: str | None) -> commands.Partition | None:
    """The partition called `name`, the default one for None. None where Slurm chooses: it then judges, too.

    Raises InputError when there is no such partition.
    """
    partitions = {p.name: p for p in commands.partitions()}
    if name is None:
        return next((p for p in partitions.values() if p.default), None)
    for wanted in name.split(","):
        if wanted not in partitions:
            known = ", ".join(sorted(partitions))
            raise InputError.of("cluster.partition", wanted, "the cluster has no such partition", f"it has: {known}")
    return partitions.get(name)


def check(spec: RunSpec) -> None:
    """Raises InputError with what would fit, where the run's partition could never start it, or srun its ranks."""
    cluster = spec.cluster
    srun.check(cluster)
    partition = find(cluster.partition)
    if partition is None:
        return
    where = f"partition {partition.name}"
    if partition.state in CLOSED:
        reason = f"it is {partition.state}, and Slurm takes no jobs for it"
        raise InputError.of("cluster.partition", partition.name, reason, "use another, or wait")
    _check_account(cluster.account, partition, where)
    if partition.max_minutes is not None and cluster.timeout_min > partition.max_minutes:
        reason = f"{where} ends jobs after {partition.max_minutes} minutes"
        fix = f"use cluster.timeout_min={partition.max_minutes}: a run goes on over several jobs"
        raise InputError.of("cluster.timeout_min", cluster.timeout_min, reason, fix)
    _check_nodes(spec, usable(spec), partition, where)


def waits(spec: RunSpec) -> str:
    """What to tell a person about a job that Slurm takes and does not start for now; empty where there is nothing."""
    partition = find(spec.cluster.partition)
    if partition and partition.state == "DOWN":  # as during a maintenance
        return f"partition {partition.name} is DOWN: its jobs wait in the queue until it is up again"
    return ""


def usable(spec: RunSpec) -> list[commands.Node]:
    """The nodes of the run's partitions, without those that the user leaves out, whatever their state."""
    partition = find(spec.cluster.partition)
    wanted = set((spec.cluster.partition or "").split(","))
    try:
        left_out = set(notation.expand(spec.cluster.exclude or ""))
    except ValueError:  # Slurm will say what is wrong with it
        left_out = set()
    return [
        n
        for n in commands.nodes()
        if n.name not in left_out and (n.name in partition.nodes if partition else wanted & set(n.partitions))
    ]


def explained(error: ClusterError, spec: RunSpec) -> ClusterError:
    """`error` with the fields behind it: Slurm names none, and says little."""
    fields = next((fields for words, fields in FIELDS.items() if words in str(error).lower()), ())
    given = {name: getattr(spec.cluster, name) for name in fields if "." not in name}
    more = {f"additional_parameters.{name}": value for name, value in spec.cluster.additional_parameters.items()}
    given |= {name: value for name, value in more.items() if name in fields}
    said = ", ".join(f"cluster.{name}={value}" for name, value in given.items() if value is not None)
    return ClusterError(f"{error}; look at {said}") if said else error


def full(error: ClusterError) -> str:
    """What to tell a person where Slurm refuses a job for the number of those in the queue; empty where it does not."""
    found = FULL.search(str(error))
    return f"no more jobs of yours may be in the queue now ({found[0]})" if found else ""


def away(spec: RunSpec) -> bool:
    """Are nodes of the run's partition drained, down or silent, which the run would get once they are back?"""
    return any(n.state not in IN_USE or not n.responding for n in usable(spec))


def _check_account(account: str | None, partition: commands.Partition, where: str) -> None:
    if not partition.allow_accounts:
        return
    account, allowed = account or os.environ.get("SBATCH_ACCOUNT"), ", ".join(partition.allow_accounts)
    if account and account not in partition.allow_accounts:
        raise InputError.of("cluster.account", account, f"{where} does not take it", f"it takes: {allowed}")
    # With accounting everybody has an account to begin with, and Slurm says when it is the wrong one.
    if not account and commands.config().get("AccountingStorageType", "").endswith("none"):
        raise InputError.of("cluster.account", None, f"{where} asks for one", f"it takes: {allowed}")


def _check_nodes(spec: RunSpec, nodes: Sequence[commands.Node], partition: commands.Partition, where: str) -> None:
    if not nodes:
        left_out = "cluster.exclude", spec.cluster.exclude, f"it leaves no node of {where}", "leave out fewer"
        none = "cluster.partition", partition.name, "it has no nodes", "use another"
        raise InputError.of(*(left_out if spec.cluster.exclude else none))
    gpus = script.gpus_per_node(spec)
    most = max(n.gpus for n in nodes)
    if gpus > most:
        fix = f"use cluster.gpus_per_node={most}" if most else "use a partition with GPUs"
        reason = f"the nodes of {where} have {most} at most"
        raise InputError.of("cluster.gpus_per_node", spec.cluster.gpus_per_node, reason, fix)
    cpus = spec.tasks_per_node * script.cpus_per_task(spec)
    fitting = [n for n in nodes if n.gpus >= gpus and n.cpus >= cpus]
    if not fitting:
        _too_many_cpus(spec, cpus, max((n.cpus for n in nodes if n.gpus >= gpus), default=0), where)
    memory = script.asked_memory_gb(spec) or 0.0
    fitting, before = [n for n in fitting if n.memory_mb * 2**20 / 1e9 >= memory], fitting
    if not fitting:
        _too_much_memory(spec, max(n.memory_mb for n in before), where)
    with_gpus = f" with {gpus} GPUs" if gpus else ""
    least, most = worlds.asked(spec)
    limit = min(len(fitting), partition.max_nodes or len(fitting))
    if least > limit:
        _too_many_nodes(spec, limit, f"{where} gives a job at most {limit} nodes{with_gpus}")
    # Slurm's own test passes it, and the job then waits for ever (PartitionNodeLimit; measured on 22.05).
    if partition.max_nodes is not None and most > partition.max_nodes:
        _too_many_nodes(spec, partition.max_nodes, f"{where} gives a job at most {partition.max_nodes} nodes")


def _too_many_nodes(spec: RunSpec, limit: int, reason: str) -> NoReturn:
    spares, fix = spec.cluster.spare_nodes, "use another partition"
    left = limit - spares
    if spares:
        reason += f", and cluster.spare_nodes={spares} is asked for besides"
        fix = "use fewer spare nodes, or another partition"
    if left > 0:
        least = spec.least_nodes if spec.least_nodes is not None and spec.least_nodes < left else None
        fits = str(left) if least is None else f"{least}-{left}"
        fix = f"use nodes={fits}, {fix.removeprefix('use ')}" if spares else f"use nodes={fits}, or another partition"
    raise InputError.of("nodes", spec.asked_nodes, reason, fix)


def _too_many_cpus(spec: RunSpec, cpus: int, most: int, where: str) -> None:
    reason = f"{cpus} CPUs a node are needed, and the nodes of {where} have {most}"
    cluster, share = spec.cluster, most // spec.tasks_per_node
    for name in ("cpus_per_task", "cpus_per_gpu"):
        if share and getattr(cluster, name):
            raise InputError.of(f"cluster.{name}", getattr(cluster, name), reason, f"use at most {share}")
    if not share:
        raise InputError.of("tasks_per_node", spec.tasks_per_node, reason, f"use at most {most}")
    raise InputError.of("cluster.cpus_per_node", cluster.cpus_per_node, reason, f"use cluster.cpus_per_node={most}")


def _too_much_memory(spec: RunSpec, most_mb: int, where: str) -> None:
    reason = f"the nodes of {where} have {most_mb / 1024:g} GB"
    name = next(n for n in ("mem_gb", "mem_per_gpu", "mem_per_cpu") if getattr(spec.cluster, n) is not None)
    raise InputError.of(f"cluster.{name}", getattr(spec.cluster, name), reason, "ask for less; cluster.mem_gb=0 is all")
