"""`sslrun eval`: protocols on what a run is at its end, or was at a checkpoint, as a job of its own whose numbers join
the run; on several runs one after the other; or on a file of weights, as a run of its own."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.errors import InputError, SslrunError
from launcher.verbs import arguments, drive

if TYPE_CHECKING:
    from launcher.compose.evaluation import Wanted
    from launcher.run.folder import RunDir
    from launcher.run.state import Queue
    from launcher.spec.runspec import RunSpec

STOPPED = 130  # exit code of what somebody has ended

EXAMPLE = "sslrun eval deepercluster-demo protocol=knn,linear cluster.partition=cheap"


def add_arguments(parser: ArgumentParser) -> None:
    which = "an id, its beginning, or a path; or several runs, for a table of all; or weights=FILE backbone=NAME"
    parser.add_argument("run", metavar="RUN", help=which)
    what = (
        "protocol=NAME or protocol=NAME,NAME; PROTOCOL.SETTING, such as linear.epochs (docs/evaluation.md); step=N or "
        "step=newest, before the run is done; "
        "eval_data, cluster, nodes, tasks_per_node, runs; of weights: data, key, image_size, interpolation, "
        "precision, workers, seed"
    )
    parser.add_argument("overrides", nargs="*", default=[], metavar="RUN|key=value", help=what)
    parser.add_argument("--plan", action="store_true", help="say what it would take, and stop")
    arguments.add_config_dir(parser)
    arguments.add_json(parser)


def run(options: Namespace) -> int:
    """Evaluate a run, once it is done or at a step, where it ran, or as cluster=, nodes= and eval_data= say; or several
    runs alike; or a file of weights."""
    from launcher.compose import evaluation
    from launcher.run.folder import find

    if "=" in options.run and not Path(options.run).exists():
        return _weights(options)
    places = [text for text in options.overrides if text.startswith("runs=")]
    named = [text for text in options.overrides if "=" not in text or Path(text).is_dir()]
    overrides = [text for text in options.overrides if text not in (*places, *named)]
    folder = arguments.runs_folder(places)
    found = (find(name, folder) for name in dict.fromkeys((options.run, *named)))
    runs = {each.path: each for each in ((run.owner or run) for run in found)}
    asked = [(run, evaluation.want(run, overrides, config_dir=options.config_dir)) for run in runs.values()]
    if options.plan:
        found = [(run, evaluation.next_folder(run, wanted), wanted) for run, wanted in asked]
        plans = [_planned(f"{run.id}/evals/{at.name}", at, wanted.spec, wanted.settings) for run, at, wanted in found]
        return _show(plans, options)
    queues = [_check(run, wanted) for run, wanted in asked]  # whatever is wrong with one, none is begun
    if len(asked) > 1:
        return _several(asked, options)
    prepared, joined = evaluation.prepare(*asked[0], queues[0])
    return drive.go_on(prepared, options, joined=joined)


def _check(run: "RunDir", wanted: "Wanted") -> "Queue | None":
    """What the queue knows of the run. Raises what speaks against it before anything is made."""
    from launcher.compose import evaluation
    from launcher.slurm import queue
    from launcher.start import stages

    jobs, _ = queue.of_runs([run, *evaluation.every(run)])
    if wanted.after and not evaluation.known(run, wanted, jobs):
        stages.jobs_before(wanted.spec, [stages.Awaited(stages.RUN, run)], jobs)
    if wanted.spec.cluster.kind == "slurm":
        from launcher.plan import evaluation as planning
        from launcher.start import submit

        submit.check(wanted.spec, planning.make(wanted.spec, wanted.settings))
    return jobs


def _several(asked: "Sequence[tuple[RunDir, Wanted]]", options: Namespace) -> int:
    """One after the other here, all of them in the queue of a cluster, and then a table of what is known. Returns the
    worst exit code: how one ends does not take the next one's turn."""
    from launcher.compose import evaluation
    from launcher.report import beside, screen
    from launcher.slurm import queue

    quiet, worst, made = Namespace(**{**vars(options), "json": False}), 0, []
    for run, wanted in asked:
        jobs, _ = queue.of_runs([run, *evaluation.every(run)])
        try:
            prepared, joined = evaluation.prepare(run, wanted, jobs)
            made.append(prepared)
            code = drive.go_on(prepared, quiet, joined=joined)
        except SslrunError as error:
            arguments.say(f"{run.id}: {error}")
            code = error.exit_code
        worst = max(worst, code)
        if code == STOPPED:
            break
    jobs, _ = queue.of_runs(made)
    found = [beside.Judged.read(each, jobs) for each in made]
    if options.json:
        print(json.dumps([vars(each) for each in found]))
    else:
        screen.show([beside.table(found)], screen.console())
    return worst


def _weights(options: Namespace) -> int:
    from launcher.compose import weights

    overrides = [options.run, *options.overrides]
    if not weights.asked(overrides):
        raise InputError("RUN is missing; say sslrun eval RUN protocol=NAME, or weights=FILE backbone=NAME")
    spec = weights.want(overrides, config_dir=options.config_dir)
    if options.plan:
        return _show([_planned(spec.run_id, Path(spec.runs, spec.run_id), spec, None)], options)
    return drive.submit_or_join(spec, options)


def _planned(
    name: str, folder: Path, spec: "RunSpec", settings: "Mapping[str, Mapping[str, Any]] | None"
) -> dict[str, Any]:
    """What an evaluation called `name` takes, and on a cluster its batch script."""
    from launcher.plan import evaluation as planning
    from launcher.plan import script

    plan, sbatch = planning.make(spec, settings), None
    if spec.cluster.kind == "slurm":
        folder = folder / "submit"
        given = script.parameters(spec, signal_delay_s=plan.signal_delay_s, folder=folder)
        given["job_name"] = script.job_name(name)
        sbatch = script.text(folder, given, python=script.python_of(spec.cluster))
    return {"run": name, **plan.to_json(), "sbatch": sbatch}


def _show(plans: Sequence[dict[str, Any]], options: Namespace) -> int:
    if options.json:
        print(json.dumps(plans[0] if len(plans) == 1 else plans))
        return 0
    from rich.text import Text

    from launcher.report import view
    from launcher.report.screen import console

    screen = console()
    for plan in plans:
        shown = {key: plan[key] for key in ("run", "nodes", "ranks", "disk_gb")}
        view.show({**shown, "protocols": [_in_words(*each) for each in plan["protocols"].items()]}, screen)
        if plan["sbatch"]:
            screen.print("\nThe batch script, as it will be submitted:", soft_wrap=True)
            screen.print(Text(plan["sbatch"]), style="dim", soft_wrap=True)
    return 0


def _in_words(name: str, takes: Mapping[str, int | None]) -> str:
    if takes["images_a_step"] is None:
        return name
    steps = "steps" if takes["steps"] is None else f"{takes['steps']:,} steps"
    each = "" if takes["images_a_rank"] is None else f", {takes['images_a_rank']:,} a rank"
    return f"{name}: {steps} of {takes['images_a_step']:,} images{each}"
