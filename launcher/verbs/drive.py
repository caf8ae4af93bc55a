"""What launching, resuming and evaluating share: make a run or join it, see it through, and what follows it."""

import os
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import ClusterError, InputError, RunFailed, SslrunError
from launcher.verbs import arguments

if TYPE_CHECKING:
    from launcher.compose.evaluation import Wanted
    from launcher.run.folder import RunDir
    from launcher.slurm.commands import SlurmJob
    from launcher.spec.runspec import RunSpec
    from launcher.start.submit import Submitted


def submit_or_join(spec: "RunSpec", options: Namespace, *, anyway: bool = False) -> int:
    """Make the run of `spec` unless it is there, and go on with it. anyway: also where it needs more memory than this
    machine has."""
    from launcher.plan import kinds
    from launcher.report import view
    from launcher.run import snapshot
    from launcher.run.folder import RunDir
    from launcher.start import at_hand, stages

    run = RunDir(Path(spec.runs) / spec.run_id)
    plan, joined, changes = kinds.make(spec), (run.path / "spec.json").exists(), []
    screen = view.console()
    if joined:
        refuse(run, force=False)
        changes = [c for c in run.spec().differences(spec) if not c.startswith(("runs:", "checksum:"))]
        if changes and not run.generation():
            from launcher.start import submit

            if submit.amend(run, spec, plan):
                changes = []
    else:
        stages.check([spec])
        if spec.cluster.kind == "slurm":
            from launcher.start import submit

            submit.check(spec, plan)
        said = at_hand.check([(spec, plan)], anyway=anyway)
        run.create(spec, plan, lambda: snapshot.take(spec.method.name, Path(spec.runs), spec.protocols))
        for remark in (*plan.remarks, *said):
            screen.print(remark, soft_wrap=True)
    return go_on(run, options, joined=joined, kept=changes)


def go_on(run: "RunDir", options: Namespace, *, joined: bool, force: bool = False, kept: Sequence[str] = ()) -> int:
    """See a run through from wherever it stands, here or on its cluster, and say how it ended or where it is.

    kept: what stays as first submitted although the line just typed says otherwise.
    """
    from launcher.report import view
    from launcher.start import chain

    refuse(run, force=force)
    for change in kept:
        view.console().print(f"kept as first submitted: {change}", soft_wrap=True)
    if run.state().name == "done":
        view.closing(run, view.console(), arguments.runs_option(run))
        chain.let_go(run)
        worst = afterwards(run, options)
        arguments.answer(run, options, joined=True, state="done")
        return worst
    if run.spec().cluster.kind == "slurm":
        return _on_slurm(run, options, joined=joined)
    return _here(run, options, joined=joined)


def refuse(run: "RunDir", *, force: bool) -> None:
    """Raises RunFailed after a divergence, unless `force`, and InputError where a person cannot write, or somebody else
    has made the run."""
    diverged = divergence(run)
    if diverged and not force:
        raise RunFailed(f"{diverged} (`sslrun resume {run.typed} --force` tries all the same)")
    run.keep_private(run.spec())
    if not os.access(run.path, os.W_OK):
        raise InputError.of("runs", run.path.parent, "you cannot write there", "choose another folder with runs=PATH")
    run.refuse_foreign()


def divergence(run: "RunDir") -> str:
    """What a run said when it ended by diverging: it would meet the same step again. Empty where it did not."""
    last = run.history().last("start", "end", "submitted")
    return last["message"] if last.get("event") == "end" and last["cause"] == "diverged" else ""


def _on_slurm(run: "RunDir", options: Namespace, *, joined: bool) -> int:
    from launcher.report import behind, view
    from launcher.slurm import queue

    screen, spec = view.console(), run.spec()
    found = _submitted(run)
    spares = spec.cluster.spare_nodes
    reserve = f", and {spares} spare node{'s' if spares > 1 else ''}" if spares else ""
    where = f"{spec.asked_nodes} x {spec.tasks_per_node} ranks{reserve} on {spec.cluster.name}"
    jobs, _ = queue.of_runs([run])
    before = behind.standing([run], jobs).get(run.path, [])
    waits = behind.in_words(before, run.runs, arguments.runs_option(run))
    if found.joined:
        message = f"{run.id} is in the queue already, as job {found.job}"
        if options.verb == "resume":
            fix = f"it waits for {waits}" if waits else f"`{_follow(run)}`"
            raise InputError.of("RUN", run.id, f"job {found.job} has it, and a run has one writer", fix)
    else:
        message = f"{run.id}: job {found.job}, {where}"
    waits = waits or _waits_for(run, (jobs or {}).get(found.job or ""))
    notes = filter(None, (found.note, f"it waits for {waits}" if waits else ""))
    screen.print("\n".join((message, *notes)) + f"\nfollow it: {_follow(run)}", soft_wrap=True)
    afterwards(run, options, job=found.job)
    arguments.answer(run, options, joined=joined or found.joined, state="pending", job=found.job)
    return 0


def _submitted(run: "RunDir") -> "Submitted":
    """Raises ClusterError where the queue takes no more jobs for now."""
    from launcher.report.bar import STOPPED, Bar
    from launcher.start import submit

    with Bar(STOPPED) as bar:
        given = submit.submit([run], show=bar)[run.id]
    if given.full:
        raise ClusterError(f"{run.id} is not submitted: {given.full}; the same command submits it once some have ended")
    return given


def _waits_for(run: "RunDir", job: "SlurmJob | None") -> str:
    """Why Slurm does not start it, as far as that can be told now."""
    from launcher.slurm import reasons

    waits = job and job.state == "PENDING" and job.reason
    return reasons.of(waits).said(job.id, run.id, arguments.runs_option(run)) if waits else ""


def _follow(run: "RunDir") -> str:
    return f"sslrun logs {run.id} -f{arguments.runs_option(run)}"


def _here(run: "RunDir", options: Namespace, *, joined: bool) -> int:
    from launcher.report import view
    from launcher.run import causes
    from launcher.start import chain, local

    screen, spec = view.console(), run.spec()
    # Why this start begins: what ended the one before; one that left no word was killed.
    last = run.history().last("start", "end")
    cause = "submitted" if not last else last["cause"] if last["event"] == "end" else "killed"
    screen.print(f"run {run.id} in {run.path}", soft_wrap=True)
    with view.Watch(run, screen) as watch:
        outcome = local.run(run, spec, cause=cause, watch=watch)
    if outcome is None:
        holder = run.history().last("start")
        message = f"running already (process {holder.get('pid', '?')} on {holder.get('host', '?')})"
        if options.verb == "resume":
            raise InputError.of("RUN", run.id, f"{message}, and a run has one writer", f"`{_follow(run)}`")
        screen.print(f"{run.id} is {message}; `{_follow(run)}` follows it", soft_wrap=True)
        arguments.answer(run, options, joined=True, state=run.state().name)
        return 0
    if outcome.state == "done":
        view.closing(run, screen, arguments.runs_option(run))
        chain.let_go(run)
        outcome.exit_code = afterwards(run, options)
    else:
        screen.print(f"sslrun: {outcome.message}", soft_wrap=True)
        if causes.of(outcome.cause).resumable:
            command = f"sslrun resume {run.id}{arguments.runs_option(run)}"
            screen.print(f"go on with: {command}", soft_wrap=True)
    arguments.answer(run, options, joined=joined, state=run.state().name)
    return outcome.exit_code


def afterwards(found: "RunDir", options: Namespace, *, job: str | None = None, also: Sequence[str] = ()) -> int:
    """The evaluations of the run's `eval_after` and `also`, if any: here and now, or queued behind `job`. Returns the
    worst exit code; one that cannot be queued does not undo what was."""
    from launcher.compose import evaluation

    if not (found.spec().eval_after or also):
        return 0
    return _evaluate(found, evaluation.afterwards(found, also), options, job)


def judged(found: "RunDir", asked: Sequence[Sequence[str]], options: Namespace, *, job: str | None = None) -> int:
    """The evaluations `asked` for of a run, each as the overrides of `sslrun eval RUN`; as `afterwards`."""
    from launcher.compose import evaluation
    from launcher.report import view

    wanted, worst = [], 0
    for words in asked:
        try:
            wanted.append(evaluation.want(found, [*words], config_dir=options.config_dir))
        except SslrunError as error:
            view.console().print(f"{found.id}: evaluation {' '.join(words)}: {error}", soft_wrap=True)
            worst = max(worst, error.exit_code)
    return max(worst, _evaluate(found, wanted, options, job)) if wanted else worst


def _evaluate(found: "RunDir", asked: "Sequence[Wanted]", options: Namespace, job: str | None) -> int:
    from launcher.compose import evaluation
    from launcher.report import view
    from launcher.slurm import queue

    screen, worst = view.console(), 0
    quiet = Namespace(**{**vars(options), "json": False, "verb": "eval"})
    jobs, _ = queue.of_runs(evaluation.every(found))
    for wanted in asked:
        try:
            evaluation.check_truth(wanted.spec, wanted.settings)
            prepared, joined = evaluation.prepare(found, wanted, jobs)
            if job is None:
                worst = max(worst, go_on(prepared, quiet, joined=joined))
                continue
            given = _submitted(prepared)
            if not given.joined:
                screen.print(f"{prepared.id}: job {given.job}, after job {job}", soft_wrap=True)
        except SslrunError as error:
            screen.print(f"evaluation {wanted.protocol}: {error}", soft_wrap=True)
            worst = max(worst, error.exit_code)
    return worst
