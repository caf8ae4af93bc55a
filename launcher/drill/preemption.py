"""Faults: a job is preempted, and a job's time limit comes."""

import tempfile
import time
from pathlib import Path

from launcher.drill.catalog import GRACE, NOTHING, fault
from launcher.drill.subject import DrilledRun
from launcher.errors import ClusterError
from launcher.slurm import client, commands, notation

LEFT_SECONDS = 20  # of the time limit, when ranks that were held are let go: what is asked of nodes takes seconds
SHORT = ("cluster.timeout_min=2", "cluster.signal_delay_s=25")  # not 1: PyTorch alone may take half a minute to load


def grace(run: DrilledRun) -> int:
    """GraceTime of the run's partition, in seconds."""
    name = commands.jobs()[run.job].partition
    return next(p.grace_s for p in commands.partitions() if p.name == name)


def take_nodes(run: DrilledRun) -> None:
    """Submit a job that needs the run's nodes for a moment, to the partition that may have them, and wait until the
    run's job has been told to go."""
    nodes = run.events("start")[-1]["nodes"]
    options = [f"--partition={run.preempt_with}", f"--nodelist={nodes}", "--exclusive", "--job-name=drill"]
    options += [f"--nodes={len(notation.expand(nodes))}", "--output=/dev/null", "--time=1"]
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as script:
        script.write("#!/bin/sh\ntrue\n")
        script.flush()
        other = commands.submit(Path(script.name), options, environment=client.environment())
    run.left_behind.append(other)

    def told() -> bool:
        found = commands.ended(run.job)
        return found is None or found.preempted or found.state != "RUNNING"

    run.until(told, "a preemption", poll=0.3)


def _restarts(run: DrilledRun) -> int:
    found = commands.ended(run.job)
    return (found.restarts or 0) if found else 0


@fault(7, "preemption", slurm=["preempted"], lost=GRACE, alone=True, needs=("preempt_with",))
def preemption(run: DrilledRun) -> None:
    """A job of a partition with higher priority takes the nodes"""
    job, restarts = run.job, _restarts(run)
    run.hit()
    take_nodes(run)
    run.ended()
    run.back()
    run.check(run.job == job, f"it goes on as job {run.job}, not {job}")
    run.check(_restarts(run) == restarts + 1, f"job {job} was restarted {_restarts(run) - restarts} times")


@fault(10, "preemption-at-start", slurm=["preempted"], lost=NOTHING, alone=True, at_start=True, needs=("preempt_with",))
def preemption_at_start(run: DrilledRun) -> None:
    """A job of a partition with higher priority takes the nodes as soon as the run has them"""
    run.hit()
    with run.held():  # from their first sign of life on, which they give before they load anything
        take_nodes(run)
    run.ended()
    run.check(run.step() == 0, f"it came too late: step {run.step()} was done")
    run.back()


@fault(8, "done-in-the-grace", slurm=[], lost=NOTHING, alone=True, needs=("preempt_with", "grace"))
def done_in_the_grace(run: DrilledRun) -> None:
    """Preempted, and the training ends within the grace: it is done, and what Slurm starts again ends at once"""
    start = run.events("start")[-1]
    first, pid = {"host": notation.expand(start["nodes"])[0]}, str(start["pid"])
    # The ranks end while the job's first process is held, so that the job outlives its training until it is told.
    run.on(first, "kill", "-STOP", pid)
    run.until(lambda: run.events("finished"), "the end of the training")
    run.hit()
    take_nodes(run)
    time.sleep(1)
    try:
        run.on(first, "kill", "-CONT", pid)
    except ClusterError as error:
        run.check(False, f"the grace was too short: {error}")
    state = run.rest()
    run.check(state == "done", f"it is {state}: {run.run.state().message}")
    run.check(len(run.events("start")) == 1, f"it was started {len(run.events('start'))} times")
    found = commands.ended(start["job"])
    run.check(found is None or found.state == "COMPLETED", f"job {start['job']} is {found and found.state}")


@fault(9, "time-limit", slurm=["time_limit"], lost=NOTHING, alone=True, overrides=SHORT)
def time_limit(run: DrilledRun) -> None:
    """The time limit of a job comes, two minutes after its start"""
    job, generation = run.job, run.run.generation()

    def nearly_over() -> bool:
        found = commands.jobs([job]).get(job)
        minutes, _, seconds = (found.left if found else "0:00").rpartition(":")
        return minutes in ("", "0") and seconds.isdigit() and int(seconds) <= LEFT_SECONDS

    with run.held():  # Slurm's warning, which may come a minute early, wakes them
        run.until(lambda: run.place.over(run.run, generation) or nearly_over(), "the time limit", poll=0.5)
        run.hit()
        run.seen.generation = generation
    run.ended()
    run.back()
    run.check(run.job == job, f"it goes on as job {run.job}, not {job}")
