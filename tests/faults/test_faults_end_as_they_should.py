"""Two ranks on this machine are killed, told to stop, starved of disk and lied to: the run ends in the state of its
undisturbed twin, and does nothing twice that it had saved."""

import pytest

RUN = ("method=deepercluster", "tasks_per_node=2")
FAULTS = (
    "kill-rank-0", "kill-last-rank", "kill-launcher", "kill-in-save", "kill-loader-worker",
    "term-to-one-rank", "usr2-to-one-rank",
    "signal-in-startup", "signal-in-save", "signal-twice", "signal-in-clustering", "signal-in-evaluation",
    "one-rank-cannot-write", "no-rank-can-write",
    "truncated-shard", "flipped-bit", "missing-shard", "missing-manifest", "no-checkpoint-left",
    "second-submission", "stale-generation",
    "kill-in-slow-save",
    "stopped-rank", "wrong-clocks",
    "impossible-layout",
    "prune-beside-a-broken-one",
)  # fmt: skip


@pytest.fixture(scope="module")
def rows(drilled, sslrun):
    return drilled(sslrun, *RUN, "--at-once", "2")


@pytest.mark.parametrize("fault", FAULTS)
def test_the_outcome_is_the_right_one(rows, fault):
    row = rows[fault]
    assert not row["skipped"], row["skipped"]
    assert not row["problems"], row
    assert row["exact"] and row["lost_steps"] is not None
