"""`sslrun drill`: preempt, kill and damage a run on purpose, and see that it ends as if nothing had happened."""

import json
import os
import shutil
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import ClusterError, InputError, RunFailed
from launcher.verbs import arguments

if TYPE_CHECKING:
    from launcher.drill.engine import Setting
    from launcher.spec.runspec import RunSpec

EXAMPLE = "sslrun drill method=deepercluster faults=1,5,15 tasks_per_node=2"
PATIENCE = {"local": 300.0, "slurm": 1800.0}  # seconds for one wait; a queue may be long


def add_arguments(parser: ArgumentParser) -> None:
    what = "RUN, or method=NAME; overrides of it; faults=all, or numbers and names between commas"
    parser.add_argument("words", nargs="+", metavar="RUN|key=value", help=what)
    arguments.add_config_dir(parser)
    parser.add_argument("--preempt-with", metavar="PARTITION", help="whose jobs may take the drilled run's nodes")
    parser.add_argument("--as-admin", action="store_true", help="also mark a node of the drilled run as down, and back")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="runs at a time; 1 by default")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="for any one wait; 300, and 1800 on Slurm")
    parser.add_argument("--keep", action="store_true", help="keep the runs; those of a fault gone wrong stay anyway")
    arguments.add_json(parser)


def run(options: Namespace) -> int:
    """Preempt, kill and damage runs of a spec on purpose (recipe=tiny unless said otherwise), and compare each with one
    that nobody disturbed. Exit code 4 when any fault has another outcome than it should."""
    from launcher.drill import catalog, engine, report
    from launcher.report import view

    wanted = [word.removeprefix("faults=") for word in options.words if word.startswith("faults=")]
    faults = catalog.select(wanted[-1] if wanted else "all")
    screen = view.console()
    setting = _setting(options, say=lambda line: screen.print(line, soft_wrap=True))
    try:
        results = engine.drill(setting, faults)
    except RuntimeError as error:
        raise RunFailed(str(error)) from None
    wrong = [result for result in results if not result.as_expected]
    report.show(results, screen)
    if not wrong and not options.keep:
        shutil.rmtree(setting.folder, ignore_errors=True)
    else:
        screen.print(f"the runs are in {setting.folder}", soft_wrap=True)
    if options.json:
        rows = [engine.as_json(result) for result in results]
        print(json.dumps({"path": str(setting.folder), "as_expected": not wrong, "faults": rows}))
    return RunFailed.exit_code if wrong else 0


def _setting(options: Namespace, say) -> "Setting":
    from launcher.compose.training import resolve
    from launcher.drill.engine import Setting
    from launcher.run.permissions import make_private

    if options.at_once < 1:
        raise InputError.of("--at-once", options.at_once, "it is less than one run", "give 1 or more")
    words = [word for word in options.words if not word.startswith("faults=")]
    runs = arguments.runs_folder([word for word in words if word.startswith("runs=")])
    words = [word for word in words if not word.startswith("runs=")]
    names = [word for word in words if "=" not in word]
    if len(names) > 1:
        raise InputError(f"{names[1]}: one run at a time")
    folder = runs / ".drills" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    config_dir = options.config_dir and options.config_dir.absolute()
    if names:
        like, config_dir = _like(names[0], runs, folder, config_dir)
        words = [*like, *(word for word in words if word not in names)]
    keys = [word.partition("=")[0] for word in words]
    if "recipe" not in keys:
        words.append("recipe=tiny")
    spec, _ = resolve(words, config_dir=config_dir)
    if spec.least_nodes is not None:
        reason = "runs are compared with one that nobody disturbs, on as many ranks"
        raise InputError.of("nodes", spec.asked_nodes, reason, f"give one count, as nodes={spec.nodes}")
    if spec.cluster.kind == "slurm":
        _check_cluster(spec, options)
    make_private(folder)
    epochs = [word.partition("=")[2] for word in words if word.startswith("method.epochs=")]
    return Setting(
        spec=spec,
        words=tuple(words),
        options=("--config-dir", str(config_dir)) if config_dir else (),
        folder=folder,
        epochs=int(epochs[-1]) if epochs else None,
        patience=options.timeout or PATIENCE[spec.cluster.kind],
        at_once=options.at_once,
        preempt_with=options.preempt_with,
        admin=options.as_admin,
        say=say,
    )


def _like(name: str, runs: Path, folder: Path, config_dir: Path | None) -> tuple[list[str], Path | None]:
    """Overrides of a run of the same method, on the same ranks in the same place as the run called `name`."""
    from launcher.run.folder import find
    from launcher.run.permissions import make_private

    found = find(name, runs)
    found.refuse_foreign("drill a run of your own: what its cluster's settings say is done in your name")
    spec = found.spec()
    spec = spec.on(spec.nodes)
    words = [f"method={spec.method.name}", f"nodes={spec.nodes}", f"tasks_per_node={spec.tasks_per_node}"]
    if spec.cluster.kind != "slurm":
        return words, config_dir
    # The cluster as that run has it, also where its YAML has gone or changed.
    make_private(folder)
    own = folder / "config"
    if config_dir is not None:
        shutil.copytree(config_dir, own)
    (own / "cluster").mkdir(parents=True, exist_ok=True)
    cluster = json.dumps(spec.to_json()["cluster"])  # JSON is YAML
    (own / "cluster" / "as-drilled.yaml").write_text(cluster + "\n")
    return [*words, "cluster=as-drilled"], own


def _check_cluster(spec: "RunSpec", options: Namespace) -> None:
    from launcher.slurm import client, commands, limits

    if not client.installed() or not client.up():
        raise ClusterError("no Slurm answers here; log in where it does, or drill with cluster=local")
    if options.preempt_with:
        partition = next((p for p in commands.partitions() if p.name == options.preempt_with), None)
        own = limits.find(spec.cluster.partition)
        if partition is None:
            known = ", ".join(sorted(p.name for p in commands.partitions()))
            raise InputError.of("--preempt-with", options.preempt_with, "there is no such partition", f"known: {known}")
        if own and (own.preempt_mode == "OFF" or own.priority_tier >= partition.priority_tier):
            reason = f"its jobs do not preempt those of {own.name}"
            raise InputError.of("--preempt-with", options.preempt_with, reason, "set cluster.partition=NAME, too")
