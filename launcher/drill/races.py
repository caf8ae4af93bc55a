"""Faults: a second process wants to be the writer of a run that has one."""

import contextlib
import os
import signal
import time

from launcher.drill.catalog import ANY, NOTHING, fault
from launcher.drill.places import processes
from launcher.drill.subject import DrilledRun
from launcher.errors import InputError


@fault(13, "second-submission", local=[], slurm=[], lost=NOTHING)
def second_submission(run: DrilledRun) -> None:
    """The run is submitted, and resumed, a second time while it works: joined, and refused with the holder's name"""
    start = run.events("start")[-1]
    run.hit()
    with run.held():
        again = run.sslrun(*run.words)
        refused = run.sslrun("resume", run.run.id)
    run.check(again.returncode == 0, f"the same words again ended with {again.returncode}: {again.stderr.strip()}")
    holder = f"job {start['job']}" if start.get("job") else f"process {start['pid']}"
    said = refused.stderr.strip()
    run.check(refused.returncode == InputError.exit_code and holder in said, f"`sslrun resume` said: {said}")
    run.check(run.run.generation() == run.seen.generation, "a second start of the run began")


@fault(13, "stale-generation", local=["killed"], lost=ANY, alone=True, by_hand="the stale one commits nothing")
def stale_generation(run: DrilledRun) -> None:
    """Every process of a run is stopped, its lock is lost (as a file server forgets a client), it is started again, and
    the stopped ones go on: they may commit and prune nothing"""
    stale, generation = processes(run.run), run.run.generation()
    launcher = run.place.launcher  # type: ignore[attr-defined]
    run.until(run.saving, "a save")  # the worst moment
    everybody = [launcher.pid, *stale]
    run.hit()
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    (run.run.path / "lock").unlink()
    run.place.launcher = None  # type: ignore[attr-defined]
    run.resume()
    for pid in everybody:
        os.kill(pid, signal.SIGCONT)
    try:
        saved = run.saved()
        run.until(lambda: not set(stale) & set(processes(run.run)), "the end of the stale ranks")
    finally:
        for pid in everybody:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        launcher.wait()
    run.until(lambda: run.saved() > saved or run.place.at_rest(run.run), "a checkpoint of the new start")
    time.sleep(0.5)
    commits = run.events("checkpoint").of(generation)
    restored = run.events("restored", since=generation + 1)[0]
    # What the new one found was committed before, also where the line in the ledger came later.
    late = [e["step"] for e in commits if e["step"] > restored["step"]]
    run.check(not late, f"the stale start committed step {late} after the new one had begun")
