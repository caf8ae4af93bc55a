"""`sslrun eval`: a protocol on a run's newest checkpoint, as a job of its own whose number joins the run."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from launcher.errors import SslrunError
from launcher.verbs import arguments

if TYPE_CHECKING:
    from launcher.rundir import RunDir

EXAMPLE = "sslrun eval deepercluster-demo protocol=knn cluster.partition=cheap"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="an id, its beginning, or a path")
    what = "protocol=NAME, and step, eval_data, cluster, nodes, tasks_per_node, runs"
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=what)
    arguments.add_config_dir(parser)
    arguments.add_json(parser)


def run(options: Namespace) -> int:
    """Evaluate the newest checkpoint of a run where the run ran, or as cluster=, nodes= and eval_data= say."""
    from launcher import evaluation, queue, rundir
    from launcher.verbs import launch

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


def afterwards(found: "RunDir", options: Namespace, *, job: str | None = None) -> int:
    """The evaluations of `eval_after`, if any: here and now, or queued behind `job`. Returns the worst exit code; one
    that cannot be queued does not undo what was."""
    if not found.spec().eval_after:
        return 0
    from launcher import evaluation, queue, submit, view
    from launcher.verbs import launch

    screen, worst = view.console(), 0
    quiet = Namespace(**{**vars(options), "json": False, "verb": "eval"})
    jobs, _ = queue.of_runs(evaluation.every(found))
    for wanted in evaluation.afterwards(found):
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
