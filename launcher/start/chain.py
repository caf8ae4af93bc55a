"""Runs behind one another in Slurm's queue. A job waits until the jobs of the runs that it needs have ended well; where
one ends otherwise it stays in the queue, and waits for the next job of that run as soon as there is one.

Whom a run waits for its spec says (stages.py); who waits for it, its ledger (`awaited`), so that nobody has to look for
them among all runs of a folder.
"""

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from launcher.errors import ClusterError, InputError, SslrunError
from launcher.plan import script
from launcher.run import pins
from launcher.run.folder import RunDir
from launcher.run.ledger import History, Ledger
from launcher.run.state import State
from launcher.slurm import commands, queue
from launcher.slurm.commands import SlurmJob
from launcher.start import evidence, job, stages

NO_START = 0  # the generation of what is said of no start
NOT_DONE = 130  # an exit code: of a job whose run is awaited, and not done
LISTED = 3
NEVER = "DependencyNeverSatisfied"  # Slurm's word for a job whose dependency cannot hold any more
SEEN_SECONDS, POLL_SECONDS = 60.0, 2.0  # for which NFS may not show a node what another one wrote
STILL_TO_COME = ("PENDING", "COMPLETING")  # the latter of a job that has just put itself back


def before(runs: Sequence[RunDir], jobs: Mapping[str, SlurmJob]) -> dict[str, list[str]]:
    """{id: the jobs behind which the run is to wait}, of those of `runs` that are to wait. Raises InputError where
    nobody runs what one needs; OSError."""
    found = {}
    for awaited, those in _by_source(runs):
        jobs_before = stages.jobs_before(those[0].spec(), awaited, jobs, made=True)
        for run in those if jobs_before else ():
            asked = _own_dependency(run)
            if asked and asked != (_own_dependency(run.owner) if run.owner else None):  # an evaluation has its run's
                field, reason = "cluster.additional_parameters.dependency", f"{run.id} waits for another run as it is"
                raise InputError.of(field, asked, reason, "leave it out")
            found[run.id] = jobs_before
    return found


def _own_dependency(run: RunDir) -> object:
    return run.spec().cluster.additional_parameters.get("dependency")


def announce(runs: Sequence[RunDir]) -> None:
    """Have the ledgers of those that `runs`, all of one folder, wait for say so. Raises OSError where one cannot be
    written."""
    # Who submits from another folder has another lock, and may be doing so at the same time: a file for each.
    folder = hashlib.sha256(os.fsencode(runs[0].path.parent)).hexdigest()[:8]
    for awaited, those in _by_source(runs):
        for source in stages.unfinished(awaited):
            known, pen = _askers(source.run), Ledger(source.run.path, NO_START, f"awaited-{folder}")
            for run in those:
                if run.path not in known:
                    pen.write("awaited", path=str(run.path))
            if pen.settle():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source.run.path))


def outdated(runs: Sequence[RunDir], before: Mapping[str, Sequence[str]]) -> list[RunDir]:
    """Those of `runs`, submitted behind the jobs `before`, of which one that they wait for has another job since."""
    late = []
    for awaited, those in _by_source(runs):
        now = {source.run.history().job for source in stages.unfinished(awaited)}
        late += [run for run in those if not now <= {*before.get(run.id, ())}]
    return late


def followers(run: RunDir) -> list[RunDir]:
    """The runs of this user that asked for the end of this one, and have not taken what they need of it."""
    return [each for each in map(RunDir, _askers(run)) if _waits(each, run.path)]


def follow(runs: Iterable[RunDir], *, stuck: bool = False) -> dict[Path, str]:
    """Have the jobs of those of `runs` that wait for others wait for the jobs that these have now, or for none once
    they are done. One that needs what nobody runs stays as it is. Returns {folder of a run: its job} of those that
    moved. stuck: only those that Slurm does not expect to start by itself.

    Raises ClusterError where Slurm does not answer.
    """
    waiting = {run.path: run for run in runs if _waits(run)}
    jobs = commands.jobs() if waiting else {}
    moved = {}
    for awaited, those in _by_source(waiting.values()):
        with contextlib.suppress(InputError, OSError):
            dependency = script.afterok(stages.jobs_before(those[0].spec(), awaited, jobs))
            moved |= {run.path: own for run in those if (own := _move(run, dependency, jobs, stuck=stuck))}
    return moved


def _move(run: RunDir, dependency: str, jobs: Mapping[str, SlurmJob], *, stuck: bool) -> str:
    """The job of `run`, if it waits for `dependency` from now on; else nothing."""
    with contextlib.suppress(
        InputError, OSError, ClusterError
    ):  # the latter where it began a moment ago: it looks itself
        history = run.history()
        own = jobs.get(history.job or "")
        if own and own.state in STILL_TO_COME and not (stuck and own.reason == "Dependency"):
            commands.depend(own.id, dependency)
            if _put_back(history, own):
                commands.release(own.id)
            return own.id
    return ""


def _put_back(history: History, own: SlurmJob) -> bool:
    """Whether this job of the run began too early, and went back into the queue, held."""
    return any(event.get("job") == own.id for event in history.after(history.generation).all("waits"))


def stuck(run: RunDir, jobs: Mapping[str, SlurmJob]) -> bool:
    """Whether Slurm does not start the job of `run` although it may be that all is done that it waits for: nobody
    could tell Slurm, say. Whoever resumes what it waits for does."""
    history = run.history()
    own = jobs.get(history.job or "")
    return bool(own) and (own.reason == NEVER or ("held" in own.reason.lower() and _put_back(history, own)))


def held_back(run: RunDir, pen: Ledger) -> bool:
    """Of a run whose job has begun: whether it waits on, which is said in its ledger and counts as no start. Then the
    job is back in the queue, and Slurm ends this script for it: held until somebody resumes what it waits for, or
    behind the job of who did so a moment ago. Raises OSError, and ClusterError where Slurm does not take it back."""
    end = time.monotonic() + SEEN_SECONDS
    try:
        states = _not_done(run)
        while any(_left_no_word(source, state) for source, state in states) and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
            states = _not_done(run)
    except InputError:  # the start itself meets it, and says so in the ledger
        return False
    for source, state in states:
        why = f"{source.id} is {state.name}{state.message and f': {state.message}'}"
        print(f"it waits: {why}", flush=True)
        pen.write("waits", source=str(source.path), why=why, job=job.own_id())
    if states and not evidence.cancelled(run, pen.generation):  # Slurm would take that back, too
        job.back_and_held()
        follow([run])  # whoever resumed the other one met this job at work
    return bool(states)


def exit_code(run: RunDir, code: int) -> int:
    """With what a job of `run` ends that would end with `code`: what waits for the run begins after a 0, so there is
    none where it is not done."""
    with contextlib.suppress(SslrunError, OSError):
        if pins.done(run.history()):
            let_go(run)
        elif followers(run):
            return code or NOT_DONE
    return code


def let_go(run: RunDir) -> None:
    """Of a run that is done: have those start that wait for an earlier job of it, or are held, as far as Slurm answers.
    The others it starts by itself."""
    with contextlib.suppress(SslrunError, OSError):
        follow(followers(run), stuck=True)


def listed(names: Sequence[str]) -> str:
    """The first of them, and how many there are besides: a sweep may wait for one run."""
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def _by_source(runs: Iterable[RunDir]) -> list[tuple[list[stages.Awaited], list[RunDir]]]:
    """(whom they wait for, those of `runs` that wait for these): a sweep may have a thousand points behind one run,
    whose ledger is read once for all."""
    found: dict[tuple, tuple[list[stages.Awaited], list[RunDir]]] = {}
    for run in runs:
        if awaited := stages.of_run(run):
            key = tuple((each.field, each.run.path) for each in awaited)
            found.setdefault(key, (awaited, []))[1].append(run)
    return [*found.values()]


def _not_done(run: RunDir) -> list[tuple[RunDir, State]]:
    """The runs that `run` waits for, and where each stands."""
    awaited = stages.of_run(run)
    jobs, _ = queue.of_runs(each.run for each in stages.unfinished(awaited))
    return [(each.run, state) for each, state in stages.standing(awaited, jobs)]


def _left_no_word(run: RunDir, state: State) -> bool:
    """Whether a run whose job is gone did not say how it ended: this node may not see yet that it did."""
    history = run.history()
    last = history.last("submitted", "start", "end")
    return state.name == "failed" and last.get("event") == "start"


def _askers(run: RunDir) -> list[Path]:
    return list(dict.fromkeys(Path(event["path"]) for event in run.history().all("awaited")))


def _waits(run: RunDir, source: Path | None = None) -> bool:
    """Whether this user's `run` has still to take what another one makes; the one in the folder `source`, say."""
    # What somebody else wrote there is no reason to touch a job.
    with contextlib.suppress(InputError, OSError, ValueError):
        mine = run.path.stat().st_uid == os.geteuid()
        return mine and any(source in (None, each.run.path) for each in stages.of_run(run))
    return False
