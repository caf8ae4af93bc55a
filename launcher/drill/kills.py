"""Faults: a process of the run is killed."""

from launcher.drill.catalog import INTERVAL, fault
from launcher.drill.subject import SAVING, DrilledRun
from launcher.errors import NoProgress
from launcher.slurm import commands

UNTIL_IT_IS_MISSED = """
for i in $(seq 300); do
    kill -0 "$1" 2>/dev/null || exit 0
    for worker in $(pgrep -P "$1"); do
        grep -qsx sslrun-watchdog "/proc/$worker/comm" && continue
        kill -KILL "$worker" && echo "$worker"
        break
    done
    sleep 0.2
done
"""
SAVES = 4  # among which a certain moment of one is waited for
STARTS_WITHOUT_PROGRESS = 3  # after which a run stops, as requeue.py says


def kill(run: DrilledRun, number: int) -> None:
    """SIGKILL to one rank (-1: the last), and on again."""
    run.strike("KILL", run.rank(number))
    run.ended()
    run.back()


@fault(1, "kill-rank-0", local=["killed"], slurm=["killed"], lost=INTERVAL, in_place=True, ends_s=60)
def kill_rank_0(run: DrilledRun) -> None:
    """SIGKILL to rank 0"""
    kill(run, 0)


@fault(
    1, "kill-last-rank", local=["killed"], slurm=["killed"], lost=INTERVAL, in_place=True, ends_s=60, needs=("ranks",)
)
def kill_last_rank(run: DrilledRun) -> None:
    """SIGKILL to the last rank"""
    kill(run, -1)


@fault(1, "kill-launcher", local=["killed"], lost=INTERVAL, ends_s=60)
def kill_launcher(run: DrilledRun) -> None:
    """SIGKILL to the launcher of a local run: its ranks go with it"""
    start = run.events("start")[-1]
    run.hit()
    run.on(run.rank(0), "kill", "-KILL", str(start["pid"]))
    run.ended()
    run.back()


@fault(
    2, "kill-in-save", local=["killed", "killed"], slurm=["killed", "killed"], lost=INTERVAL, in_place=True, ends_s=60
)
def kill_in_save(run: DrilledRun) -> None:
    """SIGKILL to rank 0 as soon as a save has begun, and once more when a manifest is being written"""
    folder = run.run.path / "checkpoints"
    for moment in (SAVING, f"{SAVING}/manifest.json"):
        rank, before = run.rank(0), run.saved()
        late = before + SAVES * run.run.plan()["checkpoint_every"]

        def comes(moment: str = moment, late: int = late) -> bool:  # on a fast disk a manifest is hardly seen
            return any(folder.glob(moment)) or (run.saved() >= late and run.saving())

        run.until(comes, "a save", poll=0.001)
        run.strike("KILL", rank)
        run.ended()
        run.check(run.saved() >= before, f"step {before} was saved, and {run.saved()} is the newest now")
        run.back()
        run.train()
    leftovers = [path.name for path in folder.glob(".saving-*") if f"-{run.saved():08d}-" in path.name]
    run.check(not leftovers, f"left over from a save: {leftovers}")


@fault(
    3,
    "kill-loader-worker",
    local=["crash|killed"],
    slurm=["crash|killed"],
    lost=INTERVAL,
    in_place=True,
    overrides=("method.workers=2",),
)
def kill_loader_worker(run: DrilledRun) -> None:
    """SIGKILL to a data-loader process of the last rank"""
    rank = run.rank(-1)
    run.hit()
    # One whose work was done already is not missed: then the next one.
    killed = run.on(rank, "sh", "-c", UNTIL_IT_IS_MISSED, "sh", str(rank["pid"]))
    run.check(killed.strip(), f"rank {rank['rank']} has no data-loader process")
    run.ended()
    run.back()


@fault(
    17,
    "crash-at-every-start",
    slurm=["killed", "killed", "killed", "no_progress"],
    lost=INTERVAL,
    in_place=None,
    alone=True,
    by_hand="stops for good",
)
def crash_at_every_start(run: DrilledRun) -> None:
    """SIGKILL to rank 0 of every start, before it does a step: the second time on its node, that is left out"""
    run.hit()
    first = run.seen.generation
    run.signal(run.rank(0), "KILL")
    run.ended()
    generation = first
    for _ in range(STARTS_WITHOUT_PROGRESS):
        run.until(lambda g=generation: run.run.generation() > g or run.place.at_rest(run.run), "the next start")
        if run.run.generation() == generation:
            break
        generation = run.run.generation()
        run.signal(run.rank(0), "KILL")
    state = run.rest()
    end = run.events("end")[-1]
    run.check((state, end["cause"]) == ("failed", "no_progress"), f"it is {state}: {end['cause']}, {end['message']}")
    run.check(run.events("left_out", since=first), "no node was left out")
    job = commands.ended(run.job)
    code = job.exit_code if job else ""
    run.check(code in ("", f"{NoProgress.exit_code}:0"), f"the exit code of its job is {code}")
    # Started by the user alone from here on.
    run.resume()
