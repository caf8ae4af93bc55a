"""`sslrun doctor`: what this cluster will do to a job, and what to set; with --launch, by trying."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import ClusterError, InputError
from launcher.verbs import arguments

if TYPE_CHECKING:
    from launcher.slurm.check import Check
    from launcher.spec.runspec import RunSpec

EXAMPLE = "sslrun doctor --launch nodes=2 cluster.partition=gpu"
KEYS = ("cluster", "nodes", "tasks_per_node", "runs")
COLOURS = {"ok": "green", "warn": "yellow", "bad": "red"}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=f"{', '.join(KEYS)}, cluster.*")
    parser.add_argument("--launch", action="store_true", help="start one task a GPU on nodes=N, without training")
    parser.add_argument(
        "--timeout", type=float, default=900, metavar="SECONDS", help="with --launch: wait so long for the job; 900"
    )
    parser.add_argument("--yaml", action="store_true", help="print this cluster as a file for --config-dir, no more")
    arguments.add_config_dir(parser)
    arguments.add_json(parser)


def run(options: Namespace) -> int:
    """What this cluster will do to a job, and what to set. Exit code 3 when something is bad."""
    from launcher.slurm import client

    for text in options.overrides:
        if text.lstrip("+").partition("=")[0].partition(".")[0] not in KEYS:
            raise InputError(f"{text}: this verb takes {', '.join(KEYS)} and cluster.FIELD, and nothing else")
    if options.yaml and options.launch:
        raise InputError("--yaml: --launch tries a cluster and describes none; leave out one of them")
    if options.timeout <= 0:
        raise InputError.of("--timeout", options.timeout, "it is not positive", "give seconds")
    spec = _spec(options.overrides, options.config_dir)
    for program in ("sbatch", "scontrol"):
        if not client.installed(program):
            fix = "log in where it is, or train with cluster=local"
            raise ClusterError(f"no Slurm here: {program} is not on this machine; {fix}")
    if not client.up():
        raise ClusterError("no Slurm here: slurmctld does not answer; try again, or train with cluster=local")
    named = any(text.startswith("cluster=") for text in options.overrides)
    if options.launch:
        rows, snippet = _launch(options, spec, named=named), ""
    else:
        rows, snippet = _examine(spec, named=named)
    if options.yaml:
        print(snippet, end="")
    elif options.json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        _show(rows, snippet)
    return ClusterError.exit_code if any(row.level == "bad" for row in rows) else 0


def _spec(overrides: Sequence[str], config_dir: Path | None) -> "RunSpec":
    """The overrides as those of a run: any method will do, nothing of it is looked at."""
    from launcher.compose.training import resolve
    from launcher.spec import registry

    named = any(text.startswith("cluster=") for text in overrides)
    any_run = [f"method={registry.names()[0]}", "recipe=tiny", *([] if named else ["cluster=generic"])]
    spec, _ = resolve([*any_run, *overrides], config_dir=config_dir, planning=True)
    if spec.cluster.kind != "slurm":
        raise InputError.of("cluster", spec.cluster.name, "it has no queue", "name one of kind slurm, or none")
    return spec


def _examine(spec: "RunSpec", *, named: bool) -> tuple[list["Check"], str]:
    from launcher.slurm import doctor
    from launcher.slurm.check import Check

    rows = doctor.examine(Path(spec.runs), spec.cluster, named=named)
    snippet = doctor.as_yaml(spec.cluster)
    return [*rows, Check("cluster yaml", "ok", snippet, "keep it, with the rates of your GPUs")], snippet


def _launch(options: Namespace, spec: "RunSpec", *, named: bool) -> list["Check"]:
    from launcher.slurm import trial

    if spec.least_nodes is not None:
        raise InputError.of("nodes", spec.asked_nodes, "a trial starts a task on every node of a job", "give one count")
    if not named:  # what the nodes have, where nobody said it
        spec = _spec([*_measured(spec, options.overrides), *options.overrides], options.config_dir)
    return trial.launch(spec.without_spares(), seconds=options.timeout, say=arguments.say)


def _measured(spec: "RunSpec", overrides: Sequence[str]) -> list[str]:
    """Overrides with what doctor reads from the partition, but for what the user gives."""
    from launcher.slurm import commands, doctor

    partition = doctor.partition_called(commands.partitions(), spec.cluster.partition)
    common = doctor.commonest(partition)
    found = {
        "gpus_per_node": common.gpus,
        "cpus_per_node": common.cpus,
        "timeout_min": min(partition.max_minutes or spec.cluster.timeout_min, spec.cluster.timeout_min),
    }
    given = {text.lstrip("+").partition("=")[0] for text in overrides}
    return [f"cluster.{name}={value}" for name, value in found.items() if f"cluster.{name}" not in given]


def _show(rows: Sequence["Check"], snippet: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from launcher.report.screen import console

    screen = console()
    table = Table(box=SIMPLE_HEAD)
    for name in ("check", ""):
        table.add_column(name, no_wrap=True)
    for name in ("found", "advice"):
        table.add_column(name, overflow="fold")
    for row in rows:
        if row.check != "cluster yaml":
            table.add_row(row.check, Text(row.level, style=COLOURS[row.level]), Text(row.found), Text(row.advice))
    screen.print(table)
    if snippet:
        screen.print(Text(snippet), style="dim", soft_wrap=True)
