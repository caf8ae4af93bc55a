"""`sslrun eval`: protocols on a run's newest checkpoint, as a job of its own whose numbers join the run; or on a file
of weights, as a run of its own."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import InputError, SslrunError
from launcher.verbs import arguments

if TYPE_CHECKING:
    from launcher.rundir import RunDir

EXAMPLE = "sslrun eval deepercluster-demo protocol=knn,linear cluster.partition=cheap"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="an id, its beginning, or a path; or weights=FILE backbone=NAME")
    what = (
        "protocol=NAME or protocol=NAME,NAME; PROTOCOL.SETTING, such as linear.epochs (docs/evaluation.md); step, "
        "eval_data, cluster, nodes, tasks_per_node, runs; of weights: data, key, image_size, precision, workers, seed"
    )
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=what)
    arguments.add_config_dir(parser)
    arguments.add_json(parser)


def run(options: Namespace) -> int:
    """Evaluate the newest checkpoint of a run where the run ran, or as cluster=, nodes= and eval_data= say; or a file
    of weights."""
    from launcher import evaluation, queue, rundir
    from launcher.verbs import launch

    if "=" in options.run and not Path(options.run).exists():
        return _weights(options)
    places = [text for text in options.overrides if text.startswith("runs=")]
    overrides = [text for text in options.overrides if text not in places]
    found = rundir.find(options.run, arguments.runs_folder(places))
    found = found.owner or found
    jobs, _ = queue.of_runs([found, *evaluation.every(found)])
    wanted = evaluation.want(found, overrides, config_dir=options.config_dir, queue=jobs)
    if wanted.spec.cluster.kind == "slurm":
        from launcher import submit

        submit.check(wanted.spec, evaluation.plan(wanted.spec))
    prepared, joined = evaluation.prepare(found, wanted, jobs)
    return launch.go_on(prepared, options, joined=joined)


def _weights(options: Namespace) -> int:
    from launcher import evaluation, weights
    from launcher.verbs import launch

    overrides = [options.run, *options.overrides]
    if not weights.asked(overrides):
        raise InputError("RUN is missing; say sslrun eval RUN protocol=NAME, or weights=FILE backbone=NAME")
    spec = weights.want(overrides, config_dir=options.config_dir)
    return launch.submit_or_join(spec, evaluation.plan(spec), options)


def afterwards(found: "RunDir", options: Namespace, *, job: str | None = None, also: Sequence[str] = ()) -> int:
    """The evaluations of the run's `eval_after` and `also`, if any: here and now, or queued behind `job`. Returns the
    worst exit code; one that cannot be queued does not undo what was."""
    if not (found.spec().eval_after or also):
        return 0
    from launcher import evaluation, queue, submit, view
    from launcher.verbs import launch

    screen, worst = view.console(), 0
    quiet = Namespace(**{**vars(options), "json": False, "verb": "eval"})
    jobs, _ = queue.of_runs(evaluation.every(found))
    for wanted in evaluation.afterwards(found, also):
        try:
            evaluation.check_labels(wanted.spec)
            prepared, joined = evaluation.prepare(found, wanted, jobs)
            if job is None:
                worst = max(worst, launch.go_on(prepared, quiet, joined=joined))
                continue
            given = submit.submit([prepared], after=job)[prepared.id]
            if not given.joined:
                screen.print(f"{prepared.id}: job {given.job}, after job {job}", soft_wrap=True, markup=False)
        except SslrunError as error:
            screen.print(f"evaluation {wanted.protocol}: {error}", soft_wrap=True, markup=False)
            worst = max(worst, error.exit_code)
    return worst
