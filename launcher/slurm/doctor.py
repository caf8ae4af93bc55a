"""What a cluster will do to a job, read from its own configuration and said in plain words; and what to set.

Everything comes from commands.py and from this machine's files. Nothing is submitted: trial.py does that.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from launcher import durations
from launcher.errors import InputError
from launcher.slurm import commands, limits, machine, preemption
from launcher.slurm.check import BAD, OK, WARN, Check, some
from launcher.slurm.preemption import Preemption
from launcher.spec.schema import ClusterConfig

SHORT_SECONDS = 30  # a save that must be over sooner is at risk
OVERLAP = (22, 5)  # the first Slurm whose steps beside others share memory and GPUs, too (its release notes)
OUT_OF_USE = ("DOWN", "DRAIN", "FAIL", "ERROR", "UNKNOWN")  # how the states of such nodes begin
UNLIMITED = ("UNLIMITED", "(null)", "")


def examine(runs: Path, cluster: ClusterConfig, *, named: bool) -> list[Check]:
    """The findings for jobs of `cluster` with runs in `runs`; its partition is the default one where it names none.

    named: the user chose the cluster's config, so that it must fit. Raises ClusterError where no Slurm answers.
    """
    config, partitions = commands.config(), commands.partitions()
    partition = partition_called(partitions, cluster.partition)
    nodes, found = _nodes_of(partition), preemption.of(config, partition, partitions, cluster)
    rows = [
        Check("slurm", OK, f"Slurm {config.get('SLURM_VERSION', '?')}, cluster {config.get('ClusterName', '?')}"),
        _partition(partition, partitions, cluster),
        *_preemption(config, partition, found),
        _same_job(config),
        _requeue(config),
        _spares(config),
        _time_limit(config, partition),
        _arrays(config),
        _chains(config),
        *_nodes(nodes, partition),
        *_memory(config, cluster),
        _accounting(config),
        machine.runs_folder(runs),
        machine.python(cluster, gpus=any(node.gpus for node in nodes)),
        *machine.options_of_srun(cluster),
    ]
    return rows + (_fit(cluster, partition, nodes, found) if named else [])


def partition_called(partitions: Sequence[commands.Partition], name: str | None) -> commands.Partition:
    """The partition called `name`; the default one, or the only one, for None. Raises InputError with the names."""
    found = [p for p in partitions if p.name == name] if name else [p for p in partitions if p.default]
    if not found and name is None and len(partitions) == 1:
        found = list(partitions)
    if not found:
        reason = "the cluster has no such partition" if name else "the cluster has no default partition"
        known = ", ".join(sorted(p.name for p in partitions)) or "none that you may use"
        raise InputError.of("cluster.partition", name or "null", reason, f"it has: {known}")
    return found[0]


def as_yaml(cluster: ClusterConfig) -> str:
    """A cluster config for jobs of the partition of `cluster`, and of its QOS where that decides who takes whose nodes,
    for `--config-dir DIR` as DIR/cluster/NAME.yaml."""
    config, partitions = commands.config(), commands.partitions()
    partition = partition_called(partitions, cluster.partition)
    found = preemption.of(config, partition, partitions, cluster)
    common = commonest(partition)
    name = re.sub(r"\W+", "_", f"{config.get('ClusterName', 'cluster')}_{partition.name}")
    limit = min(partition.max_minutes or 1440, 1440)
    rates = f"of a {common.gpu_type}" if common.gpu_type else "of your GPUs"
    lines = [
        f"# sslrun --config-dir DIR cluster={name} ...   with this file as DIR/cluster/{name}.yaml",
        f"name: {name}",
        "kind: slurm",
        f"partition: {partition.name}",
        f"account: null # one of {', '.join(partition.allow_accounts)}" if partition.allow_accounts else None,
        f"timeout_min: {limit}",
        f"gpus_per_node: {common.gpus}",
        f"cpus_per_node: {common.cpus}",
        f"host_mem_gb: {common.memory_mb * 2**20 / 1e9:.0f}",
        f"qos: {found.qos}" if found.qos else None,
        f"preemptible: {'true' if found.possible else 'false'}{'' if found.known else ' # as far as anybody can tell'}",
        f"grace_s: {found.grace_s}",
        f"# gpu_mem_gb, gpu_tflops, gpu_fp32_tflops: {rates}, as in cluster_configs/" if common.gpus else None,
    ]
    return "\n".join(line for line in lines if line is not None) + "\n"


# -- what the cluster does ---------------------------------------------------------------------------------------------


def _partition(
    partition: commands.Partition, partitions: Sequence[commands.Partition], cluster: ClusterConfig
) -> Check:
    others = ", ".join(p.name for p in partitions if p.name != partition.name)
    found = f"{partition.name}{' (default)' if partition.default else ''}; there are also: {others or 'no others'}"
    if partition.state in limits.CLOSED:
        said = f"{partition.name} is {partition.state}: Slurm takes no jobs for it"
        return Check("partition", BAD, said, f"use cluster.partition=NAME: {others}")
    if partition.state == "DOWN":
        said = f"{partition.name} is DOWN: its jobs wait in the queue until it is up again"
        return Check("partition", WARN, said, f"wait, or use cluster.partition=NAME: {others}")
    allowed = partition.allow_accounts
    if allowed and cluster.account not in allowed:
        level = BAD if cluster.account else WARN
        advice = f"set cluster.account to one of {some(allowed)}"
        return Check("partition", level, f"{partition.name} takes jobs of some accounts only", advice)
    return Check("partition", OK, found)


def _preemption(config: Mapping[str, str], partition: commands.Partition, found: Preemption) -> list[Check]:
    if not found.known:
        asked = "`sacctmgr show qos format=name,preempt,preemptmode,gracetime`"
        return [Check("preemption", WARN, found.why, f"{asked} tells; set grace_s by it"), _user_signal(config)]
    if not found.by:
        return [Check("preemption", OK, f"jobs of {partition.name} keep their nodes: {found.why}")]
    seconds, mode = found.grace_s, found.mode
    fate = {"REQUEUE": "requeued", "CANCEL": "cancelled", "SUSPEND": "suspended"}.get(mode, mode.lower())
    within_grace = not found.told.startswith("KillWait")
    signal = "SIGUSR2" if within_grace and preemption.sends_user_signal(config) else "SIGTERM"
    said = (
        f"jobs of {found.by} take nodes from jobs of {found.whose}: every rank gets {signal}, has {seconds} s "
        f"({found.told}) until it is killed, and the job is {fate}"
    )
    if mode == "CANCEL":
        row = Check("preemption", WARN, said, "`sslrun resume RUN` starts a cancelled run again; nobody else does")
    elif mode != "REQUEUE":
        said = f"jobs of {found.by} have jobs of {found.whose} {fate} until they are through"
        row = Check("preemption", WARN, said, "suspended ranks keep their GPU memory; prefer another partition")
    elif seconds < SHORT_SECONDS:
        advice = f"a save must fit into {seconds} s (`sslrun plan` shows its time); ask for GraceTime={SHORT_SECONDS}"
        row = Check("preemption", WARN, said, advice)
    else:
        row = Check("preemption", OK, said, "set preemptible: true, and grace_s, in your cluster's YAML")
    if found.spared:
        row = replace(row, advice=f"{row.advice}; jobs of cluster.qos={' or '.join(found.spared)} keep their nodes")
    return [row, _user_signal(config)]


def _user_signal(config: Mapping[str, str]) -> Check:
    advice = "none needed: sslrun heeds both"
    if preemption.sends_user_signal(config):
        found = "within a GraceTime, preemption sends the signal that a job asked for (USR2) in place of SIGTERM"
    else:
        found = "preemption sends SIGTERM alone; the signal that a job asks for comes before the time limit only"
    return Check("preemption signal", OK, found, advice)


def _same_job(config: Mapping[str, str]) -> Check:
    """What costs no requeue."""
    kill, version = preemption.kill_wait(config), config.get("SLURM_VERSION", "")
    found = (
        f"after a rank crashed, was killed or hung a run starts again in its job, without KillWait ({kill} s) or queue"
    )
    number = re.match(r"(\d+)\.(\d+)", version)
    if number and (int(number[1]), int(number[2])) < OVERLAP:
        advice = "leave cluster.spare_nodes at 0: what a job does with them takes Slurm 22.05"
        return Check("same job", WARN, f"{found}; steps of Slurm {version} do not share all that a node has", advice)
    return Check("same job", OK, found)


def _requeue(config: Mapping[str, str]) -> Check:
    expire = re.search(r"cred_expire=(\d+)", config.get("AuthInfo", ""))
    wait = f"a requeued job waits up to {int(expire[1]) if expire else 120} s before it starts again"
    all_are = "jobs are requeued after a preemption, or the loss of a node for which there is no spare"
    asking = "only jobs that ask for it are requeued, and sslrun's do"
    return Check("requeue", OK, f"{asking if config.get('JobRequeue') == '0' else all_are}; {wait}")


def _spares(config: Mapping[str, str]) -> Check:
    """How long a node may be dead before Slurm says so, and what a run makes of that."""
    found = re.match(r"\d+", config.get("SlurmdTimeout", ""))
    seconds = int(found[0]) if found else 300
    advice = "with cluster.spare_nodes=1 a run goes on without that wait, in the same job, unless it is the first node"
    if not seconds:  # SlurmdTimeout=0
        said = "Slurm never takes a node for dead: a run on one that dies is not requeued before its time limit"
        return Check("lost nodes", WARN, said, advice)
    said = f"Slurm takes a node for dead after {seconds} s (SlurmdTimeout), and requeues the jobs that had it"
    return Check("lost nodes", OK, said, advice)


def _time_limit(config: Mapping[str, str], partition: commands.Partition) -> Check:
    kill = preemption.kill_wait(config)
    if partition.max_minutes is None:
        return Check(
            "time limit", OK, f"{partition.name} has none; what is asked for ends with SIGTERM, {kill} s, SIGKILL"
        )
    last = durations.limit(partition.max_minutes)
    found = f"jobs of {partition.name} end after {last} at the latest: SIGTERM, {kill} s, SIGKILL"
    advice = "longer runs save before that and go on in the next job, by themselves"
    return Check("time limit", OK, found, advice)


def _arrays(config: Mapping[str, str]) -> Check:
    size = int(config.get("MaxArraySize", "0") or 0)
    if size <= 1:
        return Check("arrays", WARN, "job arrays are switched off", "a sweep becomes as many jobs as it has points")
    return Check("arrays", OK, f"at most {size} points in one array", "longer sweeps become several arrays")


def _chains(config: Mapping[str, str]) -> Check:
    """What becomes of a run that waits for another."""
    said = f"{config.get('SchedulerParameters')},{config.get('DependencyParameters')}"
    found = "a run behind one that fails or stops stays in the queue; `sslrun resume` of that one starts it, too"
    if "kill_invalid_depend" in said:
        found += "; kill_invalid_depend does not apply to it, which asks for --kill-on-invalid-dep=no"
    age = re.match(r"\d+", config.get("MinJobAge", ""))
    forgotten = (
        f"behind a job that Slurm has forgotten ({age[0]} s after its end) it starts and looks itself" if age else ""
    )
    return Check("chains", OK, found, forgotten)


def _nodes(nodes: Sequence[commands.Node], partition: commands.Partition) -> list[Check]:
    kinds = Counter((n.gpus, n.gpu_type, n.cpus, n.memory_mb) for n in nodes)
    if not nodes:
        return [Check("nodes", BAD, f"{partition.name} has no nodes", "use cluster.partition=NAME")]
    found = "; ".join(
        f"{count} x {' '.join(filter(None, [str(gpus), kind, 'GPUs'])) if gpus else 'no GPU'}, {cpus} CPUs, "
        f"{memory / 1024:.0f} GB"
        for (gpus, kind, cpus, memory), count in kinds.most_common()
    )
    several = len({kind[:2] for kind in kinds}) > 1
    advice = "name one kind with cluster.constraint or cluster.gres, or leave nodes out with cluster.exclude"
    rows = [Check("nodes", WARN if several else OK, found, advice if several else "")]
    unusable = [n for n in nodes if n.state.startswith(OUT_OF_USE)]
    if unusable:
        level = BAD if len(unusable) == len(nodes) else WARN
        said = some([f"{n.name} {n.state.lower()}{f' ({n.reason})' if n.reason else ''}" for n in unusable], most=5)
        left = f"{len(nodes) - len(unusable)} of {len(nodes)} nodes can be used"
        rows.append(
            Check("nodes out of use", level, f"{said}; {left}", "ask for at most that many, or tell the administrators")
        )
    else:
        rows.append(Check("nodes out of use", OK, f"none of {len(nodes)}"))
    if partition.max_nodes is not None:
        said = f"{partition.name} gives a job {partition.max_nodes} at most"
        advice = "nodes=A-B and spare nodes together must not go beyond: such a job would wait for ever"
        rows.append(Check("nodes a job", OK, said, advice))
    return rows


def _memory(config: Mapping[str, str], cluster: ClusterConfig) -> list[Check]:
    given = [(key, value) for key, value in config.items() if key.startswith("DefMemPer") and value not in UNLIMITED]
    if not given or cluster.mem_gb is not None or cluster.mem_per_cpu or cluster.mem_per_gpu:
        return []
    key, value = given[0]
    found = f"a job that asks for no memory gets {value} MB a {key.removeprefix('DefMemPer')}"
    return [Check("memory", OK, found, "mem_gb: 0 asks for all of a node's")]


def _accounting(config: Mapping[str, str]) -> Check:
    kind = config.get("AccountingStorageType", "")
    if kind in ("accounting_storage/none", "(null)", ""):
        return Check("accounting", OK, "off: sacct answers nothing; states come from the runs' own ledgers")
    return Check("accounting", OK, "on: how a job ended can be asked for long after")


# -- does the user's config fit? ---------------------------------------------------------------------------------------


def _fit(
    cluster: ClusterConfig,
    partition: commands.Partition,
    nodes: Sequence[commands.Node],
    found: Preemption,
) -> list[Check]:
    """What the cluster's YAML says against what the partition has."""
    rows, name = [], partition.name
    most = max((n.gpus for n in nodes), default=0)
    if cluster.gpus_per_node > most:
        said = f"cluster.gpus_per_node={cluster.gpus_per_node}, and the nodes of {name} have {most} at most"
        rows.append(Check("config", BAD, said, f"set gpus_per_node: {most}"))
    if partition.max_minutes is not None and cluster.timeout_min > partition.max_minutes:
        said = f"cluster.timeout_min={cluster.timeout_min}, and {name} ends jobs after {partition.max_minutes}"
        rows.append(Check("config", BAD, said, f"set timeout_min: {partition.max_minutes}"))
    if found.by and not cluster.preemptible:
        said = f"cluster.preemptible=false, and jobs of {found.by} take nodes from jobs of {found.whose}"
        rows.append(Check("config", WARN, said, f"set preemptible: true and grace_s: {found.grace_s}"))
    elif found.by and cluster.grace_s > found.grace_s:
        said = (
            f"cluster.grace_s={cluster.grace_s}, and a preempted job of {found.whose} is killed after {found.grace_s} s"
        )
        rows.append(Check("config", WARN, said, f"set grace_s: {found.grace_s}"))
    return rows or [Check("config", OK, f"{cluster.name} fits {name}")]


def commonest(partition: commands.Partition) -> commands.Node:
    """A node of the partition's most frequent kind, those with GPUs before others."""
    kinds = Counter((n.gpus, n.gpu_type, n.cpus, n.memory_mb) for n in _nodes_of(partition))
    most = max(kinds, key=lambda kind: (kind[0] > 0, kinds[kind]), default=(0, "", 1, 0))
    gpus, gpu_type, cpus, memory = most
    return commands.Node("", cpus, memory, gpus, gpu_type, "", "", ())


def _nodes_of(partition: commands.Partition) -> list[commands.Node]:
    return [node for node in commands.nodes() if node.name in set(partition.nodes)]
