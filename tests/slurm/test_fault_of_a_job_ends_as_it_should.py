"""A job of a real Slurm is killed, told to stop, starved of disk, of time and of a node: it goes on by itself where it
should, ends for good where it should, and in the state of its undisturbed twin."""

import pytest

pytestmark = [pytest.mark.fault, pytest.mark.slow]

RUN = ("method=rotnet", "nodes=2", "tasks_per_node=1", "cluster=fake", "cluster.cpus_per_task=1")
FAULTS = (
    "kill-rank-0", "kill-last-rank", "kill-in-save", "kill-loader-worker", "crash-at-every-start",
    "term-to-one-rank", "scancel-usr2", "scancel",
    "no-rank-can-write", "one-rank-cannot-write", "second-submission",
    "stopped-rank",
    "time-limit",
    "node-down",
)  # fmt: skip


@pytest.fixture(scope="module")
def rows(drilled, start_cluster, slurm_sslrun, config_dir):
    # A node more than the run has, for the fault that takes one away.
    with start_cluster(nodes=3, cpus=8) as own:
        folder = config_dir(own)
        yield drilled(slurm_sslrun(own), *RUN, "--config-dir", folder, "--as-admin", "--at-once", "3")


@pytest.mark.parametrize("fault", FAULTS)
def test_the_outcome_is_the_right_one(rows, right, fault):
    right(rows[fault])
