"""Whose jobs take the nodes of a job, and what it is then given: by its partition, or by its QOS, as the cluster is
set up (https://slurm.schedmd.com/preempt.html).
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from launcher.errors import ClusterError, InputError
from launcher.slurm import accounting, commands, notation
from launcher.spec.schema import ClusterConfig

MODES = ("REQUEUE", "CANCEL", "SUSPEND")


@dataclass(frozen=True)
class Preemption:
    """`by`: whose jobs do it, empty where nobody's do; `whose`: the jobs to which it happens. `why`: why it does not
    happen, or cannot be told."""

    whose: str
    by: str
    mode: str  # what becomes of the job: one of MODES, or Slurm's own word
    grace_s: int  # that the ranks surely have from the signals to the kill
    told: str  # which setting gives them that
    why: str = ""
    known: bool = True
    qos: str = ""  # that jobs run in, where it decides
    spared: tuple[str, ...] = ()  # other QOS of the user whose jobs keep their nodes

    @property
    def possible(self) -> bool:
        """Also where nobody can tell: a job that is ready for it loses nothing by that."""
        return bool(self.by) or not self.known


def of(
    config: Mapping[str, str],
    partition: commands.Partition,
    partitions: Iterable[commands.Partition],
    cluster: ClusterConfig,
) -> Preemption:
    """What happens to jobs of `cluster` in `partition`. Raises InputError where it names a QOS that there is not."""
    if config.get("PreemptType") == "preempt/qos":
        return _by_qos(config, partition, cluster)
    mode = partition.preempt_mode.upper()
    grace = partition.grace_s or kill_wait(config)
    told = "GraceTime" if partition.grace_s else "KillWait, since GraceTime is 0"
    nodes, by, why = set(partition.nodes), "", "no partition with a higher PriorityTier shares its nodes"
    if config.get("PreemptType") != "preempt/partition_prio" or mode == "OFF":
        why = "preemption is off"
    else:
        higher = (p for p in partitions if p.priority_tier > partition.priority_tier and nodes & set(p.nodes))
        by = ", ".join(p.name for p in higher)
    return Preemption(partition.name, by, mode, grace, told, why)


def kill_wait(config: Mapping[str, str]) -> int:
    """Seconds from SIGTERM to SIGKILL, for every job that Slurm ends."""
    return notation.number(config.get("KillWait", "30")) or 0


def sends_user_signal(config: Mapping[str, str]) -> bool:
    """It moved from SlurmctldParameters to PreemptParameters in later versions."""
    options = f"{config.get('PreemptParameters', '')},{config.get('SlurmctldParameters', '')}"
    return re.search(r"\b(preempt_)?send_user_signal\b", options) is not None


def _by_qos(config: Mapping[str, str], partition: commands.Partition, cluster: ClusterConfig) -> Preemption:
    """The partition's own GraceTime and PreemptMode are then nothing (measured: 5 s of KillWait where it said 7)."""
    theirs, wait = config.get("PreemptMode", "").upper().split(","), kill_wait(config)
    given = cluster.qos or os.environ.get("SBATCH_QOS")
    try:
        known = accounting.every_qos()
        account = cluster.account or os.environ.get("SBATCH_ACCOUNT")
        default, allowed = accounting.mine(config.get("ClusterName", ""), partition.name, account)
    except ClusterError as error:
        mode = next((word for word in theirs if word in MODES), "OFF")
        why = f"a job's QOS decides whether others take its nodes, and cannot be asked for: {error}"
        return Preemption(partition.name, "", mode, wait, "KillWait", why, known=False)
    name = given or default
    if name not in known:
        raise InputError.of("cluster.qos", name, "there is no such QOS", f"there are: {', '.join(sorted(known))}")

    def takers(victim: accounting.QualityOfService) -> list[str]:
        within = victim.within or (victim.mode == "CLUSTER" and "WITHIN" in theirs)
        return [q.name for q in known.values() if victim.name in q.preempts or (within and q is victim)]

    qos = known[name]
    mode = next((word for word in (theirs if qos.mode == "CLUSTER" else [qos.mode]) if word in MODES), qos.mode)
    told = f"GraceTime of QOS {name}" if qos.grace_s else f"KillWait, since the GraceTime of QOS {name} is 0"
    by = ", ".join(takers(qos))
    spared = tuple(other for other in allowed if other in known and other != name and not takers(known[other]))
    why = f"no QOS preempts QOS {name}, in which they run"
    return Preemption(
        whose=f"QOS {name}, in which yours run",
        by=by and f"QOS {by}",
        mode=mode,
        grace_s=qos.grace_s or wait,
        told=told,
        why=why,
        qos=name,
        spared=spared if by else (),
    )
