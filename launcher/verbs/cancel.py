"""`sslrun cancel`: stop runs at their next safe point."""

import contextlib
import os
import signal
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import ClusterError, InputError, SslrunError
from launcher.verbs import arguments

if TYPE_CHECKING:
    from launcher.run.folder import RunDir
    from launcher.run.state import State
    from launcher.slurm.commands import SlurmJob

EXAMPLE = "sslrun cancel deepercluster-demo"
LEAVE_SECONDS = 10.0  # for a job that has ended to leave the queue
SLACK_SECONDS = 60.0  # beyond the time that a save was planned to take, before Slurm is told to kill


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="an id, its beginning, a path, or the id of a sweep")
    arguments.add_runs(parser)
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    arguments.add_json(parser)


def run(options: Namespace) -> int:
    """Stop a run, or all runs of a sweep, at the next safe point; `sslrun resume` goes on from there."""
    from launcher.run.question import agreed
    from launcher.run.state import ACTIVE
    from launcher.slurm import queue
    from launcher.sweep import record

    folder = arguments.runs_folder(options.overrides)
    members = record.members(options.run, folder)
    runs = members if members is not None else [arguments.find(options)]
    jobs, trouble = queue.of_runs(runs)
    if trouble:
        raise ClusterError(f"nothing was cancelled: {trouble}")
    idle, active, left = [], [], []
    for found in runs:
        with _others_go_on(runs, left):
            state = found.state(jobs)
            if not (state.name == "running" or (state.name in ACTIVE and state.job)):
                idle.append(state.name)
                continue
            found.refuse_foreign("only they can cancel it")  # whom it names is its owner's word: nobody else's process
            if state.job:
                _refuse_strangers(found, state, jobs or {})
            active.append((found, state))
    if not active and left:
        raise ClusterError(f"nothing was cancelled: {'; '.join(map(str, left))}")
    if not active:
        raise InputError(f"RUN={options.run}: it is {idle[0]}, not running; there is nothing to cancel")
    if sys.stdin.isatty() and not options.yes:
        what = f"{len(active)} runs" if len(active) > 1 else f"{active[0][0].id} ({active[0][1].name})"
        if not agreed(f"cancel {what}?"):
            return 130
    stopped, queued = [], [(found, state) for found, state in active if state.job]
    for found, state in active:
        if not state.job:
            with _others_go_on(runs, left):
                _cancel_here(found)
                stopped.append(found)
    if queued:
        with _others_go_on(runs, left):
            _cancel_on_slurm(queued)
            stopped += [found for found, _ in queued]
    # Where a job was killed nobody wrote an end, and the queue has the last word.
    killed = any(state.suspended for _, state in queued)
    jobs = queue.of_runs(stopped)[0] if killed else None
    for found in stopped:
        arguments.say(f"{found.id} is {found.state(jobs).name}")
        _say_who_waits(found, {each.path for each in stopped})
    if left:
        done = f"cancelled {len(stopped)} of {len(runs) - len(idle)} runs" if stopped else "nothing was cancelled"
        raise ClusterError(f"{done}: {'; '.join(map(str, left))}")
    arguments.answer(active[0][0], options, joined=False, state=active[0][0].state(jobs).name, job=active[0][1].job)
    return 0


def _say_who_waits(run: "RunDir", stopped: set[Path]) -> None:
    from launcher.start import chain

    waiting = [each.id for each in chain.followers(run) if each.path not in stopped and each.state().name == "pending"]
    if waiting:
        resume = f"`sslrun resume {run.id}{arguments.runs_option(run)}`"
        arguments.say(f"in the queue for its end: {chain.listed(waiting)}; {resume} starts these, too")


@contextlib.contextmanager
def _others_go_on(runs: Sequence["RunDir"], left: list[Exception]) -> Iterator[None]:
    """What is wrong with one run of a sweep is put into `left`, and keeps no other from being cancelled."""
    try:
        yield
    except (SslrunError, OSError, ValueError) as error:
        if len(runs) == 1:
            raise
        left.append(error)


def _cancel_here(run: "RunDir") -> None:
    from launcher.run.ledger import Ledger

    start = run.history().last("start")
    host, pid = start.get("host"), start.get("pid")
    if start and host != os.uname().nodename:
        raise InputError(f"RUN={run.id}: it runs on {host}; cancel it there")
    if _holds_lock(pid, run):
        Ledger(run.path, start["generation"], "cancel").write("cancel", by=os.getpid())
        with contextlib.suppress(ProcessLookupError):  # it ended a moment ago
            os.kill(pid, signal.SIGTERM)
    elif run.held():
        fix = "try again, or stop the process that has its `lock` open"
        raise InputError.of("RUN", run.id, f"process {pid}, which its ledger names, does not run it", fix)
    while run.held():
        time.sleep(0.1)


def _holds_lock(pid: object, run: "RunDir") -> bool:
    """Has this process of the user the run's lock open? A number in a ledger may since be another process's."""
    if type(pid) is not int or pid <= 0:
        return False
    with contextlib.suppress(OSError):  # it has ended, or is somebody else's
        lock = os.stat(run.path / "lock", follow_symlinks=False)
        if not os.path.exists("/proc/self/fd"):  # no Linux: what is known is that somebody holds the lock
            return True
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # closed meanwhile
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{name}"), lock):
                    return True
    return False


def _refuse_strangers(run: "RunDir", state: "State", jobs: "Mapping[str, SlurmJob]") -> None:
    """Raises ClusterError where the job that the ledger names is not the run's: numbers come again on a second cluster,
    or after a controller lost its state. Every submission of ours says its token."""
    token = run.history().submission(state.job).get("token")
    if token and state.job in jobs and jobs[state.job].comment == f"sslrun:{token}":
        return
    if state.job not in jobs:
        raise ClusterError(f"job {state.job} of {run.id} is not in your queue; try again")
    said = f"job {state.job} in this queue ({jobs[state.job].name}) does not say that it is {run.id}'s"
    raise ClusterError(f"{said}; if it is, `scancel {state.job}` stops it")


def _begun(run: "RunDir", job: str) -> bool:
    """Has the job's script said that it is at work, and not yet that it ended? Between two starts it is at work, too.
    Slurm calls a job running before that, while it sets up: there is nothing to save then, and nobody who would hear a
    signal."""
    history = run.history()
    last = history.last("start", "end")
    at_work = last.get("event") == "start" or bool(last.get("in_place"))
    return at_work and history.last("start").get("job") == job


def _living(run: "RunDir") -> int:
    """Its latest start, once all ranks of it have been heard of: they hear signals then. 0 before that."""
    from launcher.run import heartbeats

    start = run.history().last("start")
    ranks = start.get("world_size") or run.spec().world_size  # of a range of nodes each start has its own
    generation = start.get("generation", 0)
    return generation if heartbeats.alive(run, generation) == ranks else 0


def _cancel_on_slurm(runs: "list[tuple[RunDir, State]]") -> None:
    """Jobs that have not begun go at once; the others are told to save, and killed only when they do not end."""
    from launcher.run.ledger import Ledger
    from launcher.slurm import commands

    running = [(run, state) for run, state in runs if state.name == "running" and _begun(run, state.job)]
    waiting = [each for each in runs if each not in running]
    stands = [each for each in running if each[1].suspended]
    running = [each for each in running if each not in stands]
    _cancel_where_they_stand(stands)
    commands.cancel([state.job for _, state in waiting])
    for run, state in waiting:
        again = run.history().last("start").get("job") == state.job  # back in the queue, as the same job
        Ledger(run.path, run.generation() + (not again), "cancel").write("cancel", by=os.getpid(), job=state.job)
    if not running:
        return
    for run, state in running:  # first, so that whoever judges the end finds it
        Ledger(run.path, run.generation() or 1, "cancel").write("cancel", by=os.getpid(), job=state.job)
    told = {state.job: _living(run) for run, state in running}
    commands.cancel([state.job for _, state in running], signal="TERM")
    seconds = max(run.plan()["signal_delay_s"] for run, _ in running) + SLACK_SECONDS
    end = time.monotonic() + seconds
    arguments.say(f"told to save and stop; killed after {seconds:.0f} s")
    left = {state.job: run for run, state in running}
    while left and time.monotonic() < end:
        time.sleep(0.5)
        left = {job: run for job, run in left.items() if run.state().name == "running"}
        # A signal reaches the steps that are there: ranks that only came to life afterwards, perhaps those of the next
        # start, are told once more.
        living = {job: _living(run) for job, run in left.items()}
        born = {job: start for job, start in living.items() if start > told[job]}
        with contextlib.suppress(ClusterError):  # then in half a second
            commands.cancel(born, signal="TERM")
            told |= born
    commands.cancel(left)
    with contextlib.suppress(ClusterError):  # what was asked for has been done
        _see_them_gone({state.job for _, state in running})


def _cancel_where_they_stand(runs: "list[tuple[RunDir, State]]") -> None:
    """Slurm takes no signal for a suspended job but the one that kills it."""
    from launcher.run.ledger import Ledger
    from launcher.slurm import commands

    for run, state in runs:
        arguments.say(f"{run.id}: its job is suspended, and is killed where it stands; what is not saved is lost")
        Ledger(run.path, run.generation(), "cancel").write("cancel", by=os.getpid(), job=state.job)
    commands.cancel([state.job for _, state in runs])
    if runs:
        with contextlib.suppress(ClusterError):  # what was asked for has been done
            _see_them_gone({state.job for _, state in runs})


def _see_them_gone(ids: set[str]) -> None:
    """A job that was being preempted comes back into the queue when it has ended, whoever asked for its end."""
    from launcher.slurm import commands

    end = time.monotonic() + LEAVE_SECONDS
    while time.monotonic() < end:
        here = {id: job for id, job in commands.jobs().items() if id in ids}
        commands.cancel(id for id, job in here.items() if job.state == "PENDING")
        if not here:
            return
        time.sleep(0.5)
