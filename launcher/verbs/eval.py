"""`sslrun eval`: protocols on what a run is at its end, or was at a checkpoint, as a job of its own whose numbers join
the run; or on a file of weights, as a run of its own."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from launcher.errors import InputError
from launcher.verbs import arguments, drive

EXAMPLE = "sslrun eval deepercluster-demo protocol=knn,linear cluster.partition=cheap"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="an id, its beginning, or a path; or weights=FILE backbone=NAME")
    what = (
        "protocol=NAME or protocol=NAME,NAME; PROTOCOL.SETTING, such as linear.epochs (docs/evaluation.md); step=N or "
        "step=newest, before the run is done; "
        "eval_data, cluster, nodes, tasks_per_node, runs; of weights: data, key, image_size, precision, workers, seed"
    )
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=what)
    arguments.add_config_dir(parser)
    arguments.add_json(parser)


def run(options: Namespace) -> int:
    """Evaluate a run, once it is done or at a step, where it ran, or as cluster=, nodes= and eval_data= say; or a file
    of weights."""
    from launcher.compose import evaluation
    from launcher.run.folder import find
    from launcher.slurm import queue
    from launcher.start import stages

    if "=" in options.run and not Path(options.run).exists():
        return _weights(options)
    places = [text for text in options.overrides if text.startswith("runs=")]
    overrides = [text for text in options.overrides if text not in places]
    found = find(options.run, arguments.runs_folder(places))
    found = found.owner or found
    jobs, _ = queue.of_runs([found, *evaluation.every(found)])
    wanted = evaluation.want(found, overrides, config_dir=options.config_dir)
    if wanted.after and not evaluation.known(found, wanted, jobs):
        stages.jobs_before(wanted.spec, [stages.Awaited(stages.RUN, found)], jobs)
    if wanted.spec.cluster.kind == "slurm":
        from launcher.plan import evaluation as planning
        from launcher.start import submit

        submit.check(wanted.spec, planning.make(wanted.spec))
    prepared, joined = evaluation.prepare(found, wanted, jobs)
    return drive.go_on(prepared, options, joined=joined)


def _weights(options: Namespace) -> int:
    from launcher.compose import weights

    overrides = [options.run, *options.overrides]
    if not weights.asked(overrides):
        raise InputError("RUN is missing; say sslrun eval RUN protocol=NAME, or weights=FILE backbone=NAME")
    return drive.submit_or_join(weights.want(overrides, config_dir=options.config_dir), options)
