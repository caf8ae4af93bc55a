"""`sslrun plan`: what would be submitted, and why."""

import json
import shlex
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.errors import InputError, harmless
from launcher.verbs import arguments

if TYPE_CHECKING:
    from launcher.plan.plan import Plan
    from launcher.spec.contract import Recipe
    from launcher.spec.runspec import RunSpec

EXAMPLE = "sslrun plan method=deepercluster nodes=8, sslrun plan sweep=smog/groups nodes=8"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value")
    arguments.add_composing(parser)
    told = "how it would go on a cluster that preempts, fails and queues: when it ends, steps lost, GPU-hours, restarts"
    parser.add_argument("--simulate", action="store_true", help=told)
    told = "a folder of runs whose ledgers tell how often that happens, or `config`; runs= by default, then the config"
    parser.add_argument("--like", metavar="FOLDER", help=told)
    told = "a page with the picture; with --simulate"
    parser.add_argument("--out", type=lambda text: Path(text).expanduser(), metavar="FILE", help=told)
    parser.add_argument("--seed", type=int, metavar="N", help="of what is drawn; 0 by default")


def run(options: Namespace) -> int:
    """What would be submitted, and why; of a sweep, what each of its runs takes."""
    from launcher.compose import mounts
    from launcher.compose.training import resolve
    from launcher.plan import plan as planning

    sweep = arguments.names_sweep(options.overrides)
    _refuse_contradictions(options, sweep=sweep)
    if sweep:
        return _sweep(options)
    if options.cfg:
        return arguments.print_config(options, planning=True)
    spec, recipe = resolve(options.overrides, config_dir=options.config_dir, planning=True)
    plan = planning.make(spec, recipe)
    if options.simulate:
        return _simulate(spec, recipe, plan, options)
    shown = mounts.line(spec)
    (submission,) = _submissions([spec])
    if options.json:
        print(json.dumps({**plan.to_json(), **submission, **({"mounts": shown} if shown else {})}))
        return 0
    from rich.text import Text

    from launcher.report import view
    from launcher.report.screen import console

    screen = console()
    view.plan(plan, screen)
    for line in _in_words([submission]):
        screen.print(Text(line), soft_wrap=True)
    if said := _judged(spec):
        screen.print(f"It is judged as it trains, which the hours leave out: {said}", soft_wrap=True)
    if shown:
        screen.print("The container must show the ranks what they open; if it does not yet:", soft_wrap=True)
        screen.print(Text(f"  {shown}"), soft_wrap=True)
    if spec.cluster.name == "generic":
        screen.print("No cluster is named: a generic one of 8 GPUs a node is assumed (cluster=NAME picks another).")
    if spec.data.name in ("image_folder", "shards") and not spec.data.path:
        screen.print(f"data.path is not given yet; the size is the recipe's, {recipe.images:,} images.")
    return 0


def _refuse_contradictions(options: Namespace, *, sweep: bool) -> None:
    for name in ("like", "out", "seed"):
        if not options.simulate and getattr(options, name) is not None:
            raise InputError.of(f"--{name}", getattr(options, name), "it is of --simulate", "add that, or leave it out")
    if options.simulate and (sweep or options.cfg):
        reason, fix = ("a sweep is several runs", "give one run") if sweep else ("it simulates nothing", "leave it out")
        raise InputError.of("--simulate" if sweep else "--cfg", ..., reason, fix)
    if options.like == "":
        raise InputError.of("--like", "", "it is empty", "name a folder of runs, or leave it out")
    if options.seed is not None and options.seed < 0:
        raise InputError.of("--seed", options.seed, "it is negative", "give 0 or more")


def _simulate(spec: "RunSpec", recipe: "Recipe", plan: "Plan", options: Namespace) -> int:
    """How it might go; the plan itself stays in the JSON."""
    from launcher.report import outlook, page
    from launcher.report.bar import Bar

    with Bar("nothing was simulated to its end") as bar:
        found = outlook.of(spec, recipe, options.like, seed=options.seed or 0, say=bar)
    file = str(options.out) if options.out else None
    if options.out:
        from launcher.sweep import record

        told = {"config-dir": options.config_dir, "like": options.like, "seed": options.seed}
        more = [f"--{name}={value}" for name, value in told.items() if value is not None]
        words = map(record.masked, options.overrides)
        page.simulation(found, options.out, shlex.join(["sslrun", "plan", *words, "--simulate", *more]))
    if options.json:
        print(json.dumps({**plan.to_json(), "simulation": {**found.to_json(), "page": file}}))
    else:
        for line in outlook.lines(found):
            print(harmless(line))
    if file:
        arguments.say(f"page: {file}")
    return 0


def _judged(spec: "RunSpec") -> str:
    """How often each probe judges it; empty where nobody asked for any."""
    from launcher.spec.runspec import PROBES

    every = {name: probe.get("eval_every", spec.method.eval_every) for name, probe in spec.probes.items()}
    said = [f"{name} {'every ' + f'{each:g} epochs' if each else 'at the end'}" for name, each in every.items()]
    return "" if spec.probes == PROBES else ", ".join(said)


def _submissions(specs: "Sequence[RunSpec]") -> "list[dict[str, Any]]":
    """Of each run `dependency`, sbatch's options that have it wait for those that it needs, why it would be `refused`,
    `srun`, the options that its steps are given, and `packed`, the environment of which nodes have a copy."""
    from launcher.plan import script

    behind = _behind(specs) if any(spec.sources for spec in specs) else [{"dependency": [], "refused": ""}] * len(specs)
    found = []
    for spec, waits in zip(specs, behind, strict=True):
        srun = script.options_of_steps(spec.cluster) if spec.cluster.kind == "slurm" else []
        told = {**waits, "srun": srun, "packed": ""}
        if spec.cluster.local_env:
            from launcher.start import packed

            try:
                told["packed"] = str(packed.of_ranks(spec, Path(spec.runs)).prefix)
            except InputError as error:
                told["refused"] = told["refused"] or str(error)
        found.append(told)
    return found


def _behind(specs: "Sequence[RunSpec]") -> "list[dict[str, Any]]":
    """Of each run `dependency` and `refused`, as `_submissions` has them."""
    from launcher.plan import script
    from launcher.slurm import queue
    from launcher.start import stages

    awaited = [stages.of_spec(spec) for spec in specs]
    jobs, trouble = queue.of_runs({each.run.path: each.run for some in awaited for each in some}.values())
    known: dict[str, dict[str, Any]] = {}  # a sweep may have a thousand points behind one run
    found = []
    for spec, some in zip(specs, awaited, strict=True):
        key = repr((spec.cluster.kind, [(each.field, each.run.path) for each in some]))
        if key not in known:
            try:
                before = script.dependency(stages.jobs_before(spec, some, jobs))
                known[key] = {"dependency": before, "refused": trouble if some else ""}
            except InputError as error:
                known[key] = {"dependency": [], "refused": str(error)}
        found.append(known[key])
    return found


def _in_words(submissions: "Sequence[Mapping[str, Any]]") -> list[str]:
    """What is to be said of them: a line for all of which it is the same."""
    ways = {
        "dependency": ("It waits for another run: sbatch is given", "wait for another: sbatch is given"),
        "refused": ("It would not be submitted now:", "would not be submitted now:"),
        "srun": ("Its steps are started with srun", "start their steps with srun"),
        "packed": ("Its ranks start from copies, on the nodes, of", "start their ranks from copies, on the nodes, of"),
    }
    lines = []
    for key, (one, many) in ways.items():
        told = [each[key] if isinstance(each[key], str) else shlex.join(each[key]) for each in submissions]
        for said, count in Counter(told).items():
            who = one if len(told) == 1 else f"{count} of {len(told)} runs {many}"
            lines += [f"{who} {said}"] if said else []
    return lines


def _sweep(options: Namespace) -> int:
    """One line a run: where it runs, and what it takes."""
    from rich.text import Text

    from launcher.plan import plan as planning
    from launcher.report import words
    from launcher.report.screen import console
    from launcher.sweep import asked

    wanted = asked.read(options.overrides, options.config_dir)
    name = wanted.ablation.name
    if options.cfg:
        raise InputError.of("--cfg", name, "a sweep is several runs", "leave it out")
    members, absent = asked.members(wanted, options.config_dir, planning=True)
    once = {member.point.spec.run_id: member for member in reversed(members)}  # of several columns one run
    members = [member for member in members if once[member.point.spec.run_id] is member]
    rows, lowest = [], []
    for member in members:
        spec, row = member.point.spec, member.row
        plan = planning.make(spec, member.point.recipe)
        at = wanted.ablation.value_at(row, wanted.scale)
        series = row.judged.series if row.judged else row.series
        told = {"value": row.value, "at": at, "series": series, "seed": spec.seed, **plan.to_json()}
        rows.append({**told, "gpu_hours_reckoned": round(plan.reckoned_gpu_hours, 3)})
        lowest.append(plan.at_lowest_rate)
    submissions = _submissions([member.point.spec for member in members])
    if options.json:
        rows = [{**row, **each} for row, each in zip(rows, submissions, strict=True)]
        lacks = [{"value": row.value, "series": row.series, "lacks": lacks} for row, lacks in absent]
        print(json.dumps({"sweep": name, "scale": wanted.scale, "runs": rows, "not_here_yet": lacks}))
        return 0
    screen = console()
    for row, at_lowest in zip(rows, lowest, strict=True):
        least, most = row["layouts"][-1]["world_size"], row["world_size"]
        ranks = f"{most} {'rank' if most == 1 else 'ranks'}" if least == most else f"{least} to {most} ranks"
        gpus = f"{row['gpu_hours_reckoned']:,.1f} GPU-hours"
        takes = gpus if row["gpus_per_node"] else f"{60 * row['hours']:,.1f} minutes"
        point = ", ".join(filter(None, (row["series"], words.axis_value(row["at"]))))
        takes += ", assumed" if row["hours_assumed"] else ""
        takes += ": the lowest published rate of such networks" if at_lowest else ""
        said = f"{point}, seed {row['seed']}: {ranks}, {row['steps']:,} steps, {takes}"
        screen.print(said, soft_wrap=True)
    told = (f"{words.axis_value(row.value)}: not here yet: it needs {', '.join(lacks)}" for row, lacks in absent)
    for said in dict.fromkeys(told):
        screen.print(said, soft_wrap=True)
    for line in _in_words(submissions):
        screen.print(Text(line), soft_wrap=True)
    total, assumed = sum(row["gpu_hours_reckoned"] for row in rows), sum(row["hours_assumed"] for row in rows)
    spent = f", {total:,.0f} GPU-hours" if total else ""
    spent += f", those of {assumed} runs assumed" if assumed and total else ""
    screen.print(f"{name}, recipe={wanted.scale}: {len(rows)} runs{spent}", soft_wrap=True)
    return 0
