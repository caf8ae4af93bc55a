"""Two ranks on this machine are killed, told to stop, starved of disk and lied to: the run ends in the state of its
undisturbed twin, and does nothing twice that it had saved."""

import pytest

pytestmark = [pytest.mark.fault, pytest.mark.slow]

RUN = ("method=rotnet", "tasks_per_node=2")
FAULTS = (
    "kill-launcher", "kill-in-save", "kill-loader-worker",
    "usr2-to-one-rank", "signal-in-startup", "signal-in-save", "signal-twice", "signal-in-evaluation",
    "one-rank-cannot-write", "no-rank-can-write", "kill-in-slow-save", "no-time-to-save",
    "files-away",
    "truncated-shard", "missing-manifest", "no-checkpoint-left", "prune-beside-a-broken-one",
    "second-submission", "stale-generation",
    "stopped-rank", "wrong-clocks",
    "impossible-layout",
)  # fmt: skip


@pytest.fixture(scope="module")
def rows(drilled, sslrun):
    return drilled(sslrun, *RUN, "--at-once", "2")


@pytest.mark.parametrize("fault", FAULTS)
def test_the_outcome_is_the_right_one(rows, right, fault):
    right(rows[fault])
