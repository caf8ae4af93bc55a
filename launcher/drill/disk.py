"""Faults: a disk that is full, one that is slow, and one that cannot be read for a while."""

from launcher.drill.catalog import ANY, INTERVAL, NOTHING, fault
from launcher.drill.preemption import grace, take_nodes
from launcher.drill.simulated import AWAY_FILES, SLOW_FILES
from launcher.drill.subject import SAVING, DrilledRun

# Bytes that a file of a rank may have: more than its ledger and its log.
LIMIT = 1 << 16
# Where the rank runs, because a run gives up after a few saves: whoever must ask Slurm first may come too late.
UNTIL_A_SAVE_FAILED = """
prlimit --pid "$1" --fsize="$2":unlimited
until grep -qs '"save_failed"' "$3"; do
    kill -0 "$1" || exit
    sleep 0.02
done
prlimit --pid "$1" --fsize=unlimited:unlimited
"""
SLOW_SECONDS = 3.0  # of each fsync
SHORT_GRACE = ("cluster.grace_s=2",)
LONGEST_KILL_WAIT = 60.0  # of Slurm, from SIGTERM to SIGKILL; 30 by default


def _limit(run: DrilledRun, rank: dict) -> None:
    """The kernel refuses a rank's writes beyond LIMIT bytes a file, as it does on a disk that is full."""
    run.on(rank, "prlimit", "--pid", str(rank["pid"]), f"--fsize={LIMIT}:unlimited")


def _writer(run: DrilledRun) -> dict:
    """The last rank that writes a shard beyond the limit: rank 0 where only the one that it writes is as large."""
    shards = run.run.checkpoints()[-1].glob("*.safetensors")
    return run.rank(-1 if sum(shard.stat().st_size > LIMIT for shard in shards) > 1 else 0)


@fault(11, "one-rank-cannot-write", local=[], slurm=[], lost=NOTHING)
def one_rank_cannot_write(run: DrilledRun) -> None:
    """No room for one rank's shard of one checkpoint: all agree that it failed, and training goes on"""
    rank, before = _writer(run), run.saved()
    run.hit()
    said = run.run.path / "events" / f"{run.seen.generation:04d}-rank0.jsonl"
    run.on(rank, "sh", "-c", UNTIL_A_SAVE_FAILED, "sh", str(rank["pid"]), str(LIMIT), str(said))
    failed = run.until(lambda: run.events("save_failed", since=run.seen.generation), "a save that failed")
    newest = run.run.checkpoints()
    run.check(newest and run.saved() >= before, f"step {before} was the newest checkpoint, and it is gone")
    beside = [p.name for p in (run.run.path / "checkpoints").glob(f".saving-{failed[0]['step']:08d}-*")]
    run.check(not beside, f"left over: {beside}")
    why = f"rank {rank['rank']}: File too large"
    run.check(why in failed[0]["reason"], f"the reason was: {failed[0]['reason']}")
    run.until(lambda: run.saved() > failed[-1]["step"], "the next checkpoint")


@fault(11, "no-rank-can-write", local=["input"], slurm=["input"], lost=ANY, by_hand="stops for good")
def no_rank_can_write(run: DrilledRun) -> None:
    """No room for any checkpoint: after several the run stops, and is not started again until somebody does"""
    ranks = run.ranks()
    run.hit()
    for rank in ranks:
        _limit(run, rank)
    run.ended()
    state = run.rest()
    message = run.run.state().message
    run.check(state == "failed" and "free some space" in message, f"it is {state}: {message}")
    run.resume()


@fault(14, "kill-in-slow-save", local=["killed"], lost=INTERVAL, simulated=(SLOW_FILES,), overrides=SHORT_GRACE)
def kill_in_slow_save(run: DrilledRun) -> None:
    """SIGKILL to rank 0 in the middle of a save that takes seconds (a slow file system, simulated)"""
    rank, before = run.rank(0), run.saved()
    run.slow_files(SLOW_SECONDS)
    run.until(run.saving, "a save")
    run.strike("KILL", rank)
    run.ended()
    run.slow_files(0)
    run.check(run.seen.saving, "the save was over: the file system was not slow enough")
    run.check(run.saved() >= before, f"step {before} was saved, and {run.saved()} is the newest now")
    run.back()


@fault(14, "no-time-to-save", local=["stopped"], lost=INTERVAL, simulated=(SLOW_FILES,), overrides=SHORT_GRACE)
def no_time_to_save(run: DrilledRun) -> None:
    """SIGTERM to every rank with a grace that no save fits into (a slow file system, simulated): none is begun, the one
    under way is seen through"""
    ranks, before = run.ranks(), run.saved()
    run.slow_files(SLOW_SECONDS)
    run.until(lambda: run.saved() > before, "a slow save")  # by which the run knows how long one takes
    run.until(run.saving, "the next")
    under_way = [int(path.name.split("-")[1]) for path in (run.run.path / "checkpoints").glob(SAVING)]
    run.strike("TERM", *ranks)
    run.ended()
    run.slow_files(0)
    skipped = run.events("save_skipped", since=run.seen.generation)
    run.check(skipped, "a save was begun that could not fit")
    run.check(run.saved() in under_way, f"step {run.saved()} is the newest checkpoint; {under_way} was being saved")
    run.back()


@fault(
    14, "preempt-in-slow-save", slurm=["preempted"], lost=INTERVAL, alone=True, needs=("preempt_with",),
    simulated=(SLOW_FILES,),
)  # fmt: skip
def preempt_in_slow_save(run: DrilledRun) -> None:
    """Preempted where a save takes longer than the grace (a slow file system, simulated): the last commit stands"""
    before = run.saved()
    run.slow_files(grace(run) + SLOW_SECONDS + LONGEST_KILL_WAIT)
    run.hit()
    take_nodes(run)
    run.ended()
    run.slow_files(0)
    run.check(run.saved() >= before, f"step {before} was saved, and {run.saved()} is the newest now")
    run.back()


@fault(22, "files-away", local=["stopped"], lost=NOTHING, simulated=(AWAY_FILES,), by_hand="waits and loads it")
def files_away(run: DrilledRun) -> None:
    """No rank can read the newest checkpoint when the run is resumed (a stale file handle, simulated): it is waited
    for, and never set aside"""
    run.stop()
    newest = run.run.checkpoints()[-1]
    run.files_away(newest)
    run.place.start("resume", run.run.id, f"runs={run.runs}")
    run.until(lambda: run.stage().startswith("waiting: "), "a word that it waits")
    run.files_away(None)
    run.under_way()
    restored = [e["step"] for e in run.events("restored", since=run.seen.generation + 1)]
    run.check(restored == [int(newest.name.rpartition("_")[2])], f"restored {restored}, not {newest.name}")
    aside = [path.name for path in newest.parent.glob("broken-*")]
    run.check(not aside, f"set aside: {aside}")
