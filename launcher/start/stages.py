"""Runs behind the end of others: what init_from=RUN and `eval RUN` ask for may be asked for before RUN is done.

A run is submitted behind the jobs of those that it waits for. That such a job ended with 0 says little, since one that
was cancelled or stopped does so, too: so the batch script looks at the ledgers, and goes back into the queue (chain.py)
while a run is not done. What was taken is noted in the ledger (run/pins.py); from then on nobody is waited for.
"""

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from launcher.errors import InputError
from launcher.run import pins
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.run.shapes import ASKED
from launcher.run.state import ACTIVE, Queue, State
from launcher.slurm import queue
from launcher.spec.runspec import FromRun, RunSpec

RUN = "RUN"  # the field of an evaluation, as a person types it


@dataclass(frozen=True)
class Awaited:
    """A run whose end another one waits for, and the field that names it."""

    field: str
    run: RunDir


def of_spec(spec: RunSpec) -> list[Awaited]:
    """Those of a run that is not made yet, done or not."""
    ends = {field: s.path for field, s in spec.sources.items() if isinstance(s, FromRun) and s.step is None}
    return [Awaited(pins.as_typed(spec, field), RunDir(path)) for field, path in ends.items()]


def of_run(run: RunDir) -> list[Awaited]:
    """Those of a run, or of an evaluation, of which it has not taken yet what it needs. Raises InputError, OSError."""
    if run.owner:
        return [Awaited(RUN, run.owner)] if ASKED.read(run.path / "eval.json").get("after") else []
    spec = run.spec()
    missing = {source.path for source in pins.missing(run.path, spec).values()}
    return [each for each in of_spec(spec) if str(each.run.path) in missing]


def unfinished(awaited: Iterable[Awaited]) -> list[Awaited]:
    """Those that are not done, as their ledgers say. One whose folder is gone is not waited for: what is pinned next
    says so. Raises OSError."""
    there = [each for each in awaited if (each.run.path / "spec.json").exists()]
    return [each for each in there if not pins.done(each.run.history())]


def standing(awaited: Iterable[Awaited], jobs: Queue | None) -> list[tuple[Awaited, State]]:
    """Those that are not done, and where each stands: as its ledger says, and the user's `jobs` in Slurm's queue, None
    where nobody could or needed to ask. Raises OSError."""
    states = [(each, each.run.state(jobs)) for each in unfinished(awaited)]
    return [(each, state) for each, state in states if state.name != "done"]  # which it may be by now


def check(specs: Iterable[RunSpec]) -> None:
    """Raises InputError where a run of `specs`, none of which is made yet, would wait in vain; see `jobs_before`."""
    each_once = {(str(each.run.path), spec.cluster.kind): (spec, each) for spec in specs for each in of_spec(spec)}
    known, _ = queue.of_runs(each.run for _, each in each_once.values())
    for spec, each in each_once.values():
        jobs_before(spec, [each], known)


def jobs_before(spec: RunSpec, awaited: Iterable[Awaited], jobs: Queue | None, *, made: bool = False) -> list[str]:
    """The jobs behind which a run of `spec` is to be submitted: of those of `awaited` that are not done.

    jobs: the user's in Slurm's queue, None where nobody could or needed to ask. made: that run is there, and asks for
    no other checkpoint any more. Raises InputError where a run will not come to its end by itself, or no job can wait
    for it.
    """
    found: dict[str, None] = {}
    for each, state in standing(awaited, jobs):
        reason, fix = _in_vain(spec, each, state, made=made)
        if reason:
            raise InputError.of(each.field, each.run.id, f"it is {state.name}, and {reason}", fix)
        found[state.job or ""] = None
    return [*found]


def _in_vain(spec: RunSpec, awaited: Awaited, state: State, *, made: bool) -> tuple[str, str]:
    """(why a run of `spec` would wait for this one in vain, what to do instead); empty where it would not."""
    run, on_slurm = awaited.run, awaited.run.spec().cluster.kind == "slurm"
    near = awaited.field == RUN or str(run.runs) == spec.runs
    named = run.id if near else str(run.path)
    newest = "step=newest" if awaited.field == RUN else shlex.quote(f"{awaited.field}={named}@newest")
    now = f", or {newest}" if run.checkpoints() and not made else ""
    wait, resume = f"wait until it is done{now}", f"{run.first_fix()}{now}"
    if run.path.stat().st_uid != os.geteuid():
        return "somebody else's", wait
    if state.name not in ACTIVE or not (state.job if on_slurm else run.held()):
        return "nobody runs it", resume
    if spec.cluster.kind != "slurm":
        return "only a job on a cluster waits for another run", wait
    return ("", "") if on_slurm else ("no job can wait for what runs outside Slurm", wait)


def pin(run: RunDir, spec: RunSpec, pen: Ledger) -> None:
    """Take what the run, which starts, needs of those that it waited for. Raises InputError where one is not done, or
    what it made is gone; OSError."""
    if not run.owner:  # an evaluation judges its run's own
        pins.complete(run.path, spec, pen)
