"""`sslrun eval`: protocols on what a run is at its end, or was at a checkpoint, as a job of its own whose numbers join
the run; on several runs one after the other; or on a file of weights, as a run of its own."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import InputError, SslrunError
from launcher.verbs import arguments, drive

if TYPE_CHECKING:
    from launcher.compose.evaluation import Wanted
    from launcher.run.folder import RunDir
    from launcher.run.state import Queue

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

        submit.check(wanted.spec, planning.make(wanted.spec))
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
    return drive.submit_or_join(weights.want(overrides, config_dir=options.config_dir), options)
