"""Faults: a rank that hangs, and clocks that are wrong."""

from launcher.drill.catalog import INTERVAL, fault
from launcher.drill.kills import kill
from launcher.drill.simulated import CLOCK
from launcher.drill.subject import DrilledRun

STALL_MINUTES = 0.25  # long enough for the slowest step of a small run, also on a busy machine
BOUND_SECONDS = 90.0  # from the stop to the end of all ranks


@fault(
    15, "stopped-rank", local=["stuck"], slurm=["stuck"], lost=INTERVAL, in_place=True, ends_s=BOUND_SECONDS,
    needs=("ranks",), overrides=(f"cluster.stall_minutes={STALL_MINUTES}",),
)  # fmt: skip
def stopped_rank(run: DrilledRun) -> None:
    """SIGSTOP to the last rank: the others wait in a collective; all end, and their logs say where they stood"""
    rank = run.rank(-1)
    log = run.run.path / "logs" / "rank0.log"
    before = log.stat().st_size
    run.strike("STOP", rank)
    run.ended()
    end = run.events("end").of(run.seen.generation)[-1]
    run.check(f"rank {rank['rank']} " in end["message"], f"the rank was not named: {end['message']}")
    stacks = log.read_bytes()[before:]
    run.check(b"most recent call first" in stacks, "rank 0's log has no stacks")
    run.back()


@fault(16, "wrong-clocks", local=["killed"], lost=INTERVAL, simulated=(CLOCK,))
def wrong_clocks(run: DrilledRun) -> None:
    """SIGKILL to the last rank where one clock is an hour behind and the others are an hour ahead (simulated)"""
    times = [e["time"] for e in run.events("start", "environment")]
    run.check(abs(times[-1] - times[0]) > 1800, "the clocks were not off")
    kill(run, -1)
