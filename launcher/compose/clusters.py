"""The clusters that ship with sslrun, and the machine at hand as one of them."""

import os
from functools import cache
from importlib.resources import files as resources
from itertools import takewhile
from pathlib import Path
from typing import Any

from yaml import YAMLError

from launcher import durations
from launcher.compose import yamlfile
from launcher.errors import InputError
from launcher.plan import script
from launcher.spec.schema import ClusterConfig

FOLDER = Path(str(resources("cluster_configs")))
# Of the generic cluster's GPUs, where the machine at hand has some.
RATES = (
    "gpu_mem_gb", "gpu_tflops", "gpu_fp32_tflops", "gpu_mem_gb_s", "host_gb_s", "efficiency", "network_gb_s",
    "disk_gb_s",
)  # fmt: skip


@cache
def files() -> dict[str, Path]:
    """name -> YAML file."""
    return {file.stem: file for file in FOLDER.glob("*.yaml")}


def shipped(name: str) -> ClusterConfig:
    """One of `files()`. Raises InputError where somebody has spoilt its YAML."""
    try:
        return ClusterConfig(**yamlfile.read(files()[name]))
    except (TypeError, YAMLError) as error:
        raise InputError(f"{files()[name]}: {error}; mend the YAML") from None


def minutes(given: Any) -> int:
    """A time limit in minutes: a number of them, or what Slurm takes. Raises InputError."""
    try:
        if isinstance(given, str):
            return durations.minutes(given)
        if not isinstance(given, bool) and given == int(given):
            return int(given)
    except (TypeError, ValueError, OverflowError):
        pass
    fix = "give minutes, an integer, or as Slurm has it: 2:00:00, 1-12"
    raise InputError.of("cluster.timeout_min", "null" if given is None else given, "Slurm reads no time in it", fix)


def gb(given: Any) -> float | None:
    """The memory of a node: GB, or a size as Slurm takes it. Raises InputError."""
    if given is None or (isinstance(given, int | float) and not isinstance(given, bool)):
        return given
    size = script.MEMORY.fullmatch(str(given))
    if not size:
        raise InputError.of("cluster.mem_gb", given, "Slurm reads no size in it", "give GB, or one like 500G")
    return int(size[1]) * script.UNITS[size[2].upper() or "G"] / script.UNITS["G"]


def fit_local(cluster: ClusterConfig, nodes: str, tasks_per_node: int | None) -> None:
    """Make `cluster` this machine: one node, with the GPUs that it has. Raises InputError for what it has not."""
    if nodes != "1":
        fix = "use tasks_per_node, or cluster=NAME on a machine with Slurm"
        raise InputError.of("nodes", nodes, "cluster=local is this one machine", fix)
    if cluster.spare_nodes > 0:
        fix = "leave it out, or use cluster=NAME on a machine with Slurm"
        raise InputError.of("cluster.spare_nodes", cluster.spare_nodes, "cluster=local is this one machine", fix)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))  # 0.1 ms; asking the driver takes a second
    cluster.gpus_per_node = gpus if visible is None else min(gpus, _visible(visible))
    if cluster.gpus_per_node:
        generic = shipped("generic")
        for field in RATES:
            setattr(cluster, field, getattr(generic, field))
    if cluster.gpus_per_node and (tasks_per_node or 1) > cluster.gpus_per_node:
        reason = f"this machine has {cluster.gpus_per_node} GPUs, and each rank takes one"
        raise InputError.of("tasks_per_node", tasks_per_node, reason, "use fewer")


def _visible(devices: str) -> int:
    """How many CUDA_VISIBLE_DEVICES names; it ends at the first that is not a device."""
    return len(list(takewhile(lambda name: name.strip() and not name.strip().startswith("-"), devices.split(","))))
