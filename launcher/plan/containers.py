"""The container in which ranks run, by srun's options or by the command that cluster.python is: of what it is made, and
what of the node it must show them. Pure."""

import dataclasses
import os
import shlex
import sys
from pathlib import Path

from launcher.plan import script
from launcher.spec.runspec import InitFrom, RunSpec
from launcher.spec.schema import ClusterConfig

BEGIN_SECONDS = 1800.0  # that fetching an image may take
COMMANDS = ("apptainer", "singularity", "ch-run", "docker", "enroot", "podman", "shifter")


def command(cluster: ClusterConfig) -> list[str]:
    """The words of cluster.python where they start a container."""
    words = shlex.split(cluster.python or "")
    return words if any(os.path.basename(word) in COMMANDS for word in words[:-1]) else []


def contained(cluster: ClusterConfig) -> bool:
    """Whether ranks see what a container shows them, and not their node."""
    return bool(script.image(cluster) or command(cluster))


def patience(cluster: ClusterConfig, seconds: float) -> float:
    """For the first word of a task, which has so many `seconds` where no image may be fetched before."""
    fetches = command(cluster) or any("container" in option for option in script.options_of_steps(cluster))
    return BEGIN_SECONDS if fetches else seconds


def opened(spec: RunSpec) -> list[str]:
    """What is opened on every node beside the run and its code. What it takes of other runs is pinned in it."""
    data = [getattr(config, "path", None) for config in (spec.data, spec.eval_data)]
    sources = {source.path: source for source in spec.sources.values()}
    weights = [path for path, source in sources.items() if isinstance(source, InitFrom) and Path(path).suffix]
    method = [getattr(spec.method, field.name) for field in dataclasses.fields(spec.method)]
    named = [given for given in method if isinstance(given, str) and given.startswith("/") and given not in sources]
    return [*filter(None, data), *weights, *named]


def of_the_node(spec: RunSpec) -> list[str]:
    """Folders on the nodes' own disks; one that a variable names is not known here."""
    stage = getattr(spec.data, "stage", None) or ""
    return [stage] if stage.startswith("/") else []


def folders(spec: RunSpec, code: Path) -> list[str]:
    """All that a container must show the ranks whose code lies in the folder `code`, outermost alone."""
    python = [] if spec.cluster.python else [sys.prefix, sys.base_prefix]
    every = dict.fromkeys([spec.runs, str(code), *opened(spec), *of_the_node(spec), *python])
    return [path for path in every if not any(Path(path).is_relative_to(other) for other in every if other != path)]
