"""Faults: a signal tells the run to stop, at every moment from its start to its end."""

import time

from launcher.drill.catalog import INTERVAL, NOTHING, fault
from launcher.drill.places import LOCAL
from launcher.drill.subject import DrilledRun
from launcher.slurm import commands

TELLING = {"local": ["stopped"], "slurm": ["asked"]}


def _one_stop(run: DrilledRun) -> None:
    """All ranks stopped at the same step, saved it once, and left."""
    run.ended()
    generation = run.seen.generation
    told = run.events("stopped_at_safe_point").of(generation)
    ranks = run.run.spec().world_size
    run.check(len(told) == ranks, f"{len(told)} of {ranks} ranks stopped at a safe point")
    saves = [e["step"] for e in run.events("checkpoint").of(generation)]
    run.check(len(saves) == len(set(saves)), f"a step was saved twice: {saves}")
    run.back()


def _tell(run: DrilledRun, number: int, name: str) -> None:
    run.strike(name, run.rank(number))
    _one_stop(run)


@fault(5, "term-to-one-rank", **TELLING, lost=NOTHING)
def term_to_one(run: DrilledRun) -> None:
    """SIGTERM to the last rank alone"""
    _tell(run, -1, "TERM")


@fault(5, "usr2-to-one-rank", **TELLING, lost=NOTHING)
def usr2_to_one(run: DrilledRun) -> None:
    """SIGUSR2 to rank 0 alone"""
    _tell(run, 0, "USR2")


@fault(5, "scancel-usr2", slurm=["asked"], lost=NOTHING)
def scancel_usr2(run: DrilledRun) -> None:
    """scancel --signal=USR2: every rank is told"""
    run.hit()
    commands.cancel([run.job], signal="USR2")
    _one_stop(run)


@fault(6, "scancel", slurm=["cancelled"], lost=INTERVAL, by_hand="stays cancelled")
def scancel(run: DrilledRun) -> None:
    """scancel: told, and killed after KillWait; it stays cancelled until somebody resumes it"""
    job = run.job
    run.hit()
    commands.cancel([job])
    run.ended()
    state = run.rest()
    run.check(state == "cancelled", f"its state is {state}: {run.run.state().message}")
    found = commands.ended(job)
    run.check(found is None or found.state == "CANCELLED", f"Slurm calls job {job} {found and found.state}")
    run.resume()


@fault(10, "signal-in-startup", **TELLING, lost=NOTHING, at_start=True)
def signal_in_startup(run: DrilledRun) -> None:
    """SIGTERM to every rank as soon as it is heard of, before the first step"""
    run.strike("TERM", *run.ranks())
    run.ended()
    run.check(run.step() == 0, f"it came too late: step {run.step()} was done")
    run.back()


@fault(10, "signal-in-save", **TELLING, lost=NOTHING)
def signal_in_save(run: DrilledRun) -> None:
    """SIGTERM to every rank while a save is under way"""
    ranks = run.ranks()
    run.until(run.saving, "a save")
    run.strike("TERM", *ranks)
    _one_stop(run)


@fault(10, "signal-twice", **TELLING, lost=NOTHING)
def signal_twice(run: DrilledRun) -> None:
    """SIGTERM and, while it saves because of that, SIGUSR2 and SIGTERM again, to every rank"""
    ranks = run.ranks()
    run.hit()
    for name in ("TERM", "USR2", "TERM"):
        for rank in ranks:
            run.signal(rank, name)
        time.sleep(0.02)
    _one_stop(run)


@fault(10, "signal-in-clustering", **TELLING, lost=NOTHING, needs=("clustering",))
def signal_in_clustering(run: DrilledRun) -> None:
    """SIGTERM to every rank while features are extracted or clustered"""
    ranks, other = run.ranks(), ("training", "starting", "stopped", "done", "epoch", "")
    run.until(lambda: run.stage() not in other and not run.stage().startswith("k-NN"), "a clustering")
    run.hit()
    at = run.step()
    for rank in ranks:
        run.signal(rank, "TERM")
    run.ended()
    # What the run says of itself is a moment old, and a signal may need another one to arrive.
    late = run.place.name == LOCAL and run.saved() > at + 1
    run.check(not late, f"told in the clustering after step {at}, it stopped at step {run.saved()}")
    run.back()


@fault(10, "signal-in-evaluation", **TELLING, lost=NOTHING, alone=True)
def signal_in_evaluation(run: DrilledRun) -> None:
    """SIGTERM to every rank after the last step, while the run is evaluated"""
    ranks = run.ranks()
    run.until(lambda: run.step() == run.total(), "the last step")
    run.strike("TERM", *ranks)
    run.ended()
    if run.events("finished"):
        run.check(False, "it came too late: the run was done")
        return
    run.check(run.saved() == run.total(), f"step {run.saved()} is the newest checkpoint, not {run.total()}")
    run.back()
