"""`sslrun resume`: go on with a run from its newest checkpoint, where it ran or somewhere else."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from launcher.errors import InputError, SslrunError
from launcher.verbs import arguments, drive

if TYPE_CHECKING:
    from launcher.run.folder import RunDir

EXAMPLE = "sslrun resume deepercluster-demo tasks_per_node=2"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="an id, its beginning, or a path")
    what = "runs=FOLDER; nodes, tasks_per_node, cluster: where it goes on, with the same global batch and data order"
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=what)
    parser.add_argument("--force", action="store_true", help="also after a divergence, which will probably recur")
    parser.add_argument(
        "--code",
        choices=("submitted", "current"),
        default="submitted",
        help="current: take the code as it is now, instead of the snapshot that the run was submitted with",
    )
    arguments.add_config_dir(parser)
    arguments.add_json(parser)


def run(options: Namespace) -> int:
    """Go on with a run from its newest checkpoint, with the code that it was submitted with."""
    from launcher.run import snapshot
    from launcher.run.folder import find
    from launcher.slurm import queue

    runs = [text for text in options.overrides if text.startswith("runs=")]
    place = [text for text in options.overrides if text not in runs]
    found = find(options.run, arguments.runs_folder(runs))
    if found.state().name == "done":
        _leave_aside(found, place, options)
        return drive.go_on(found, options, joined=True, force=options.force)
    drive.refuse(found, force=options.force)
    taken, restore = None, found.standing()
    if options.code == "current":
        queue.refuse_second_writer(found)
        from launcher.compose import evaluation

        protocols = evaluation.asked_of(found).get("settings", ()) if found.owner else found.spec().protocols
        taken = snapshot.take(found.spec().method.name, found.path.parent, protocols)
    elif place:
        snapshot.verify(found.code_folder(), found.code()["digest"])
    if place:
        _move(found, place, options, own_code=not taken)
    if taken:
        found.adopt(taken)
    begun = len(found.history().all("start", "submitted"))
    try:
        code = drive.go_on(found, options, joined=True, force=options.force)
    except SslrunError:
        history = found.history()
        # Where somebody else has started it a moment before, or a job may be there, it stays where that one has it.
        if len(history.all("start", "submitted")) == begun and not (history.open_intent or found.held()):
            restore()
        raise
    last = found.history().last("start", "submitted", "end")
    if last.get("event") == "end" and last["cause"] == InputError.cause:  # its ranks refused it
        restore()
    return code


def _leave_aside(found: "RunDir", place: list[str], options: Namespace) -> None:
    """Say of a run that is done what is not needed. Raises InputError for what would make another run of it."""
    from launcher.compose.training import placed
    from launcher.report import view

    if place:
        placed(found.spec(), place, config_dir=options.config_dir)
    asked = [*place, *(["--code=current"] if options.code == "current" else [])]
    if asked:
        said = f"{' '.join(asked)}: left aside, since {found.id} is done"
        view.console().print(said, soft_wrap=True)


def _move(found: "RunDir", place: list[str], options: Namespace, *, own_code: bool) -> None:
    """From its next start on the run goes on where `place` says, or nothing changes. Raises InputError where its state
    cannot be laid out there, with the sizes that work, and where a process or a job has it. own_code: it goes on with
    the code that it has."""
    from launcher.compose.training import placed
    from launcher.plan import kinds
    from launcher.report import view
    from launcher.slurm import queue
    from launcher.start import submit

    if found.owner:
        reason = "an evaluation stays where it was asked for"
        raise InputError.of("RUN", found.id, reason, f"`sslrun eval {found.owner.typed} {' '.join(place)}` asks anew")
    queue.refuse_second_writer(found)
    spec = found.spec()
    moved = placed(spec, place, config_dir=options.config_dir)
    changes = spec.moves(moved)
    if not changes:
        return
    if own_code:
        submit.refuse_unknown(found, moved)
    plan = kinds.make(moved)
    if moved.cluster.kind == "slurm":
        submit.check(moved, plan)
    submit.move(found, moved, plan)
    screen = view.console()
    for change in (*changes, *plan.remarks):
        screen.print(change, soft_wrap=True)
