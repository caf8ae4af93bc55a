"""`sslrun cancel`: stop runs at their next safe point."""

import contextlib
import os
import signal
import sys
import time
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from launcher.errors import ClusterError, InputError
from launcher.verbs import arguments

if TYPE_CHECKING:
    from launcher.rundir import RunDir
    from launcher.state import State

EXAMPLE = "sslrun cancel deepercluster-demo"
SLACK_SECONDS = 60.0  # beyond the time that a save was planned to take, before Slurm is told to kill


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="an id, its beginning, a path, or the id of a sweep")
    arguments.add_runs(parser)
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    arguments.add_json(parser)


def run(options: Namespace) -> int:
    """Stop a run, or all runs of a sweep, at the next safe point; `sslrun resume` goes on from there."""
    from launcher import queue, sweep
    from launcher.state import ACTIVE

    folder = arguments.runs_folder(options.overrides)
    members = sweep.members(options.run, folder)
    runs = members if members is not None else [arguments.find(options)]
    jobs, trouble = queue.of_runs(runs)
    if trouble:
        raise ClusterError(f"nothing was cancelled: {trouble}")
    states = [(found, found.state(jobs)) for found in runs]
    active = [(f, s) for f, s in states if s.name == "running" or (s.name in ACTIVE and s.job)]
    if not active:
        raise InputError(f"RUN={options.run}: it is {states[0][1].name}, not running; there is nothing to cancel")
    if sys.stdin.isatty() and not options.yes:
        what = f"{len(active)} runs" if len(active) > 1 else f"{active[0][0].id} ({active[0][1].name})"
        if input(f"cancel {what}? [y/N] ").strip().lower() not in ("y", "yes"):
            return 130
    for found, state in active:
        if not state.job:
            _cancel_here(found)
    queued = [(found, state) for found, state in active if state.job]
    if queued:
        _cancel_on_slurm(queued)
    for found, _ in active:
        print(f"{found.id} is {found.state().name}", file=sys.stderr)
    arguments.answer(active[0][0], options, joined=False, state=active[0][0].state().name, job=active[0][1].job)
    return 0


def _cancel_here(run: "RunDir") -> None:
    from launcher.rundir import Ledger

    start = [e for e in run.events() if e["event"] == "start"][-1]
    if start["host"] != os.uname().nodename:
        raise InputError(f"RUN={run.id}: it runs on {start['host']}; cancel it there")
    Ledger(run, start["generation"], "cancel").write("cancel", by=os.getpid())
    with contextlib.suppress(ProcessLookupError):  # it ended a moment ago
        os.kill(start["pid"], signal.SIGTERM)
    while run.held():
        time.sleep(0.1)


def _cancel_on_slurm(runs: "list[tuple[RunDir, State]]") -> None:
    """Pending jobs go at once; running ones are told to save, and killed only when they do not end."""
    from launcher import slurm
    from launcher.rundir import Ledger

    running = [(run, state) for run, state in runs if state.name == "running"]
    waiting = [(run, state) for run, state in runs if state.name != "running"]
    slurm.cancel([state.job for _, state in waiting])
    for run, state in waiting:
        generation = run.generation() + (0 if state.name == "preempted" else 1)
        Ledger(run, generation, "cancel").write("cancel", by=os.getpid(), job=state.job)
    if not running:
        return
    for run, state in running:  # first, so that whoever judges the end finds it
        Ledger(run, run.generation() or 1, "cancel").write("cancel", by=os.getpid(), job=state.job)
    slurm.cancel([state.job for _, state in running], signal="TERM")
    seconds = max(run.plan()["signal_delay_s"] for run, _ in running) + SLACK_SECONDS
    end = time.monotonic() + seconds
    print(f"told to save and stop; killed after {seconds:.0f} s", file=sys.stderr)
    left = {state.job: run for run, state in running}
    while left and time.monotonic() < end:
        time.sleep(0.5)
        left = {job: run for job, run in left.items() if run.state().name == "running"}
    slurm.cancel(left)
