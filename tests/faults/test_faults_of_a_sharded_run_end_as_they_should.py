"""Where every rank has state of its own, and images are clustered between epochs."""

import pytest

pytestmark = [pytest.mark.fault, pytest.mark.slow]

# As many clusters as make a group's shard larger than a file of a rank on a full disk can get.
RUN = ("method=deepercluster", "tasks_per_node=2", "method.clusters=40")
FAULTS = (
    "kill-rank-0", "kill-last-rank", "term-to-one-rank", "signal-in-clustering", "one-rank-cannot-write",
    "flipped-bit", "missing-shard",
)  # fmt: skip


@pytest.fixture(scope="module")
def rows(drilled, sslrun):
    return drilled(sslrun, *RUN, "--at-once", "2")


@pytest.mark.parametrize("fault", FAULTS)
def test_the_outcome_is_the_right_one(rows, right, fault):
    right(rows[fault])
