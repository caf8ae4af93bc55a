"""docs/preemption.md says how often a run starts again and how long things take: as the code has it."""

import re
from pathlib import Path

from launcher.errors import NoProgress
from launcher.plan import cost, steps
from launcher.run import causes, slow_ranks, waiting
from launcher.run.state import ACTIVE
from launcher.runtime import dist
from launcher.slurm import badnodes
from launcher.spec.schema import ClusterConfig
from launcher.start import ahead, ending, job, preflight, ranks, requeue
from methods.engine import saves

TEXT = (Path(__file__).parents[1] / "docs" / "preemption.md").read_text()
ROWS = {row.split(" | ")[0].removeprefix("| "): row for row in TEXT.splitlines() if row.startswith("| ")}
WORDS = {3: "three", 10: "10", 20: "20"}


def row(begins):
    found = [line for name, line in ROWS.items() if name.startswith(begins)]
    assert len(found) == 1, (begins, found)
    return found[0]


def test_how_often_a_run_starts_again():
    budgets = {"a node is lost": "node_failure", "a rank crashes": "crash", "a rank hangs": "stuck"}
    budgets |= {"a file cannot be read for a moment": "unreadable", "an item of `cluster.setup` fails": "setup"}
    for begins, cause in {**budgets, "srun can start nothing": "not_started"}.items():
        assert f"{causes.of(cause).forgiven} times" in row(begins)
    assert causes.of("crash").forgiven == causes.of("killed").forgiven
    for begins in ("preemption, with time", "preemption, with less", "`scancel --signal=USR2`"):
        assert row(begins).endswith("| free |")
    assert row("`scontrol requeue`").endswith("| free |")
    assert row("the job's time limit").endswith("| free while it gets on |")
    assert row("the same, before the first step").endswith("| same job | free |")
    free = {cause for cause in causes.CAUSES if causes.of(cause).forgiven is None}
    assert free == {"preempted", "asked", "requeued", "suspended", "time_limit"}
    assert {cause for cause in free if causes.of(cause).must_progress} == {"time_limit"}
    assert f"{WORDS[requeue.NO_PROGRESS]} ends in a row that are not free, or at the time limit" in TEXT
    assert f"exit code {NoProgress.exit_code}" in row("three ends in a row")
    assert f"(end {causes.of('crash').forgiven + 1} of this kind" in TEXT


def test_where_it_starts_again():
    mended = {"a rank crashes": "crash", "a rank hangs": "stuck", "srun can start nothing": "not_started"}
    mended |= {"a file cannot be read for a moment": "unreadable", "the same, before the first step": "suspended"}
    queue = {
        "preemption, with time": "preempted",
        "`scancel --signal=USR2`": "asked",
        "the job's time limit": "time_limit",
        "an item of `cluster.setup` fails": "setup",
    }
    for begins, cause in {**mended, **queue, "`scontrol requeue`": "requeued"}.items():
        assert causes.of(cause).in_place == (begins in mended)
        assert ("| same job |" if begins in mended else "| queue |") in row(begins)
    assert causes.of("node_failure").in_place and "same job where there is a spare node" in row("a node is lost")


def test_how_long_things_take():
    assert f"{ranks.END_SECONDS:.0f} to 10 s" in row("from the death of a rank")
    assert f"have {ranks.END_SECONDS:.0f} s to say" in row("a rank crashes")
    gone = f"{ranks.GONE_SECONDS:.0f} to {ranks.GONE_SECONDS + preflight.ASKED_SECONDS:.0f} s after that"
    assert gone in row("until a node whose ranks do not go")
    assert "sleep 10;" in steps.UNDERSTUDY and "looks every 10 s" in TEXT
    assert f"({cost.SHORTEST_SIGNAL} s or more)" in row("the job's time limit")
    assert dist.LONGEST_WAIT.total_seconds() == 1800 and "for half an hour" in row("the same, before the first step")
    assert f"these time-outs are {dist.WATCHED_WAIT.days} days" in TEXT
    assert f"A pause of {ending.LONG_PAUSE_SECONDS:.0f} s or more that ends ranks" in TEXT
    assert waiting.SECONDS == 120 and "up to two minutes" in row("a file cannot be read for a moment")
    assert f"for {job.CONTROLLER_SECONDS / 60:.0f} minutes" in row("slurmctld restarts")
    assert f"imports what the\ntraining needs, at nice {ahead.LEAST}, and waits" in TEXT and ClusterConfig().standby
    assert f"`stall_minutes`, {ClusterConfig().stall_minutes:.0f} by default" in row("until a hang is noticed")
    assert badnodes.HOURS == 24 and "for a day" in row("a node is lost")
    assert f"the {WORDS[saves.SAVES_THAT_MAY_FAIL]}".replace("three", "third") in row("a save fails")


def test_when_a_rank_is_slow():
    longer = f"{100 * slow_ranks.SLOW - 100:.0f} % longer than the median rank's"
    assert f"{longer} in {WORDS[slow_ranks.IN_A_ROW]} times {slow_ranks.WINDOW} steps" in row('"rank 3')


def test_nothing_is_left_to_be_filled_in():
    assert not re.search(r"\b[A-Z]{3,}_[A-Z_]{3,}\b|TODO|XXX", TEXT)


def test_every_state_is_explained():
    for state in (*ACTIVE, "not submitted", "stopped", "cancelled", "failed", "done"):
        assert row(state)
