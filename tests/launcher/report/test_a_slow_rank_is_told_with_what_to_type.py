"""`status` and `show` name the ranks that are slow now, and the line by which the run goes on without their nodes."""

import pytest

SAID = "rank 3 on n7 takes 1.34 times as long as the others"


@pytest.fixture
def slow(ledgers):
    """`slow(*overrides, node=...)`: a run that trains, and whose rank 3 is slow."""

    def run(*overrides, node="n7"):
        made = ledgers.create("method=rotnet", "recipe=tiny", *overrides)
        ledgers.start(made, job="12") if "cluster=generic" in overrides else ledgers.start(made)
        ledgers.say(made, "slow_rank", rank=3, node=node, ratio=1.34, step=320)
        return made

    return run


def told(sslrun, run) -> tuple[str, list[str], dict]:
    """(the line of `status`, those of `show`, the JSON of both)."""
    where = f"runs={run.runs}"
    lines = [line for line in sslrun("status", where).out.splitlines() if " times as long" in line]
    shown = [" ".join(line.split()) for line in sslrun("show", run.id, where).out.splitlines()]
    (row,), facts = sslrun("status", where, "--json").json, sslrun("show", run.id, where, "--json").json
    assert all(row[key] == facts[key] for key in ("slow_ranks", "leave_out"))
    return "".join(lines), [line for line in shown if line.startswith(("slow_ranks", "leave_out"))], row


@pytest.mark.parametrize(
    ("given", "override", "typed"),
    [
        ((), "cluster.exclude=n7", "cluster.exclude=n7"),
        (("cluster.exclude=n3",), "cluster.exclude='n3,n7'", "\"cluster.exclude='n3,n7'\""),
        (("cluster.exclude='n[3-4],n9'",), "cluster.exclude='n[3-4],n9,n7'", "\"cluster.exclude='n[3-4],n9,n7'\""),
    ],
)
def test_on_slurm_the_line_stops_the_run_and_leaves_its_node_out_too(sslrun, slow, given, override, typed):
    run = slow("cluster=generic", "nodes=1", *given)
    run_there = f"{run.id} runs={run.runs}"
    line, shown, row = told(sslrun, run)
    assert row["slow_ranks"] == [{"rank": 3, "node": "n7", "ratio": 1.34, "step": 320}]
    assert row["leave_out"] == override
    command = f"sslrun cancel {run_there} && sslrun resume {run_there} {typed}"
    assert row["state"] == "running" and line == f"{run.id}: {SAID}; {command}"
    assert shown == [f"slow_ranks {SAID}", f"leave_out {command}"]


def test_a_run_that_has_ended_needs_no_stop_and_one_that_is_done_nothing(sslrun, slow, ledgers):
    run = slow("cluster=generic", "nodes=1")
    ledgers.end(run, "stopped")
    line, _, _ = told(sslrun, run)
    assert line == f"{run.id}: {SAID}; sslrun resume {run.id} runs={run.runs} cluster.exclude=n7"
    ledgers.end(run, "done")
    line, shown, row = told(sslrun, run)
    assert (line, shown, row["slow_ranks"], row["leave_out"]) == ("", [], [], "")


def test_here_there_is_no_node_to_leave_out(sslrun, slow):
    run = slow(node="laptop")
    line, shown, row = told(sslrun, run)
    assert row["leave_out"] == ""
    assert line == f"{run.id}: {SAID.replace('n7', 'laptop')}"
    assert shown == [f"slow_ranks {SAID.replace('n7', 'laptop')}"]


def test_it_is_told_of_the_latest_start_as_long_as_it_lasts(sslrun, slow, ledgers):
    run = slow("cluster=generic", "nodes=1")
    ledgers.say(run, "slow_rank", rank=5, node="n8", ratio=1.3, step=420)
    ledgers.say(run, "slow_rank_over", rank=3, node="n7", ratio=1.01, step=620)
    _, _, row = told(sslrun, run)
    assert [each["rank"] for each in row["slow_ranks"]] == [5] and row["leave_out"] == "cluster.exclude=n8"
    ledgers.start(run, job="13")
    line, shown, row = told(sslrun, run)
    assert (line, shown, row["slow_ranks"], row["leave_out"]) == ("", [], [], "")


def test_a_name_that_a_shell_would_take_for_more_is_in_no_line(sslrun, slow):
    run = slow("cluster=generic", "nodes=1", node="n7;ls")
    line, _, row = told(sslrun, run)
    assert "n7;ls" in line and "resume" not in line and row["leave_out"] == ""
