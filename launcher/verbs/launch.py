"""`sslrun method=...`: submit or join one run, or a sweep of them."""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.errors import InputError, RunFailed
from launcher.verbs import arguments
from launcher.verbs import eval as evaluating

if TYPE_CHECKING:
    from launcher.rundir import RunDir
    from launcher.spec import RunSpec


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("-m", "--multirun", action="store_true", help="several runs: key=a,b or key=range(0,4)")
    parser.add_argument("--wait", action="store_true", help="with --multirun: show a table until all have ended")
    arguments.add_composing(parser)


def run(options: Namespace) -> int:
    """Submit or join one run."""
    from launcher import plan as planning
    from launcher.compose import resolve

    if options.multirun:
        from launcher.verbs import multirun

        return multirun.run(options)
    if any(word.startswith("sweep=") for word in options.overrides):
        name = next(word for word in options.overrides if word.startswith("sweep=")).partition("=")[2]
        raise InputError.of("sweep", name, "this is several runs", "add --multirun")
    if options.cfg:
        return arguments.print_config(options, planning=False)
    spec, recipe = resolve(options.overrides, config_dir=options.config_dir)
    return submit_or_join(spec, planning.make(spec, recipe).to_json(), options)


def submit_or_join(spec: "RunSpec", plan: dict[str, Any], options: Namespace) -> int:
    """Make the run of `spec` unless it is there, and go on with it."""
    from launcher import snapshot, view
    from launcher.rundir import RunDir

    run = RunDir(Path(spec.runs) / spec.run_id)
    joined, changes = (run.path / "spec.json").exists(), []
    screen = view.console()
    if joined:
        changes = [c for c in run.spec().differences(spec) if not c.startswith(("runs:", "checksum:"))]
        if changes and not run.generation():
            from launcher import submit

            if submit.amend(run, spec, plan):
                changes = []
    else:
        if spec.cluster.kind == "slurm":
            from launcher import submit

            submit.check(spec, plan)
        run.create(spec, plan, lambda: snapshot.take(spec.method.name, Path(spec.runs)))
        for warning in ([f"wasteful: {plan['waste']}"] if plan["waste"] else []) + list(plan["warnings"]):
            screen.print(warning, markup=False, soft_wrap=True)
    return go_on(run, options, joined=joined, kept=changes)


def go_on(run: "RunDir", options: Namespace, *, joined: bool, force: bool = False, kept: Sequence[str] = ()) -> int:
    """See a run through from wherever it stands, here or on its cluster, and say how it ended or where it is.

    kept: what stays as first submitted although the line just typed says otherwise.
    """
    from launcher import view

    diverged = divergence(run)
    if diverged and not force:
        raise RunFailed(f"{diverged} (`sslrun resume {run.id} --force` tries all the same)")
    run.keep_private(run.spec())
    if not os.access(run.path, os.W_OK):
        raise InputError.of("runs", run.path.parent, "you cannot write there", "choose another folder with runs=PATH")
    if run.spec().cluster.kind == "slurm":
        owner = run.path.stat().st_uid
        if owner != os.getuid():  # a job refuses to run what somebody else wrote
            fix = "choose a folder of your own with runs=PATH"
            raise InputError.of("runs", run.path.parent, f"{run.id} belongs to user {owner}, not to you", fix)
    for change in kept:
        view.console().print(f"kept as first submitted: {change}", markup=False, soft_wrap=True)
    if run.spec().cluster.kind == "slurm":
        return _on_slurm(run, options, joined=joined)
    return _here(run, options, joined=joined)


def divergence(run: "RunDir") -> str:
    """What a run said when it ended by diverging: it would meet the same step again. Empty where it did not."""
    last = [e for e in run.events() if e["event"] in ("start", "end", "submitted")][-1:]
    return last[0]["message"] if last and last[0].get("cause") == "diverged" and last[0]["event"] == "end" else ""


def _on_slurm(run: "RunDir", options: Namespace, *, joined: bool) -> int:
    from launcher import submit, view

    screen, spec = view.console(), run.spec()
    if run.state().name == "done":
        view.closing(run, screen, arguments.runs_option(run))
        worst = evaluating.afterwards(run, options)
        arguments.answer(run, options, joined=True, state="done")
        return worst
    found = submit.submit([run])[run.id]
    where = f"{spec.nodes} x {spec.tasks_per_node} ranks on {spec.cluster.name}"
    if found.joined:
        message = f"{run.id} is in the queue already, as job {found.job}"
        if options.verb == "resume":
            raise InputError.of("RUN", run.id, f"job {found.job} has it, and a run has one writer", _follow(run))
    else:
        message = f"{run.id}: job {found.job}, {where}"
        if found.note:
            message += f"\nnodes {found.note}"
    screen.print(f"{message}\nfollow it: {_follow(run)}", soft_wrap=True, markup=False)
    evaluating.afterwards(run, options, job=found.job)
    arguments.answer(run, options, joined=joined or found.joined, state="pending", job=found.job)
    return 0


def _follow(run: "RunDir") -> str:
    return f"sslrun logs {run.id} -f{arguments.runs_option(run)}"


def _here(run: "RunDir", options: Namespace, *, joined: bool) -> int:
    from launcher import local, view

    screen, spec = view.console(), run.spec()
    # Why this life begins: what ended the one before; a life that left no word was killed.
    lives = [e for e in run.events() if e["event"] in ("start", "end")]
    cause = "submitted" if not lives else lives[-1]["cause"] if lives[-1]["event"] == "end" else "killed"
    if run.state().name == "done":
        view.closing(run, screen, arguments.runs_option(run))
        worst = evaluating.afterwards(run, options)
        arguments.answer(run, options, joined=joined, state="done")
        return worst
    screen.print(f"run {run.id} in {run.path}", soft_wrap=True, markup=False)
    with view.Watch(run, screen) as watch:
        outcome = local.run(run, spec, cause=cause, watch=watch)
    if outcome is None:
        holder = next((e for e in reversed(run.events()) if e["event"] == "start"), {})
        message = f"running already (process {holder.get('pid', '?')} on {holder.get('host', '?')})"
        if options.verb == "resume":
            raise InputError.of("RUN", run.id, f"{message}, and a run has one writer", f"`{_follow(run)}`")
        screen.print(f"{run.id} is {message}; `{_follow(run)}` follows it", soft_wrap=True, markup=False)
        arguments.answer(run, options, joined=True, state=run.state().name)
        return 0
    if outcome.state == "done":
        view.closing(run, screen, arguments.runs_option(run))
        outcome.exit_code = evaluating.afterwards(run, options)
    else:
        screen.print(f"sslrun: {outcome.message}", soft_wrap=True, markup=False)
        if outcome.cause in ("stopped", "killed", "crash"):
            command = f"sslrun resume {run.id}{arguments.runs_option(run)}"
            screen.print(f"go on with: {command}", soft_wrap=True, markup=False)
    arguments.answer(run, options, joined=joined, state=run.state().name)
    return outcome.exit_code
