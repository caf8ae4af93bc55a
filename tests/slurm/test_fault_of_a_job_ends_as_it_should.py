"""A job of a real Slurm is killed, told to stop, starved of disk, of time and of a node: it goes on by itself where it
should, ends for good where it should, and in the state of its undisturbed twin."""

from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = [pytest.mark.fault, pytest.mark.slow]

RUN = ("method=rotnet", "nodes=2", "tasks_per_node=1", "cluster=fake", "cluster.cpus_per_task=1")
FAULTS = (
    "kill-rank-0", "kill-last-rank", "kill-in-save", "kill-loader-worker", "crash-at-every-start",
    "term-to-one-rank", "scancel-usr2", "scancel",
    "no-rank-can-write", "one-rank-cannot-write", "second-submission",
    "stopped-rank",
    "time-limit",
    "node-down", "node-down-with-a-spare",
)  # fmt: skip
SLOW = ["time-limit"]  # it waits for two minutes


@pytest.fixture(scope="module")
def rows(request, drilled, start_cluster, slurm_sslrun, config_dir):
    """Of two drills at the same time, as far as their faults were selected, on nodes for everybody."""
    mine = {item.callspec.params["fault"] for item in request.session.items if item.path == request.path}
    with start_cluster(nodes=12) as own, ThreadPoolExecutor() as pool:
        words = (*RUN, "--config-dir", config_dir(own), "--as-admin", "--at-once", "3")
        parts = (mine.intersection(SLOW), mine.difference(SLOW))
        found = [pool.submit(drilled, slurm_sslrun(own), *words, faults=sorted(part)) for part in parts if part]
        yield {fault: row for part in found for fault, row in part.result().items()}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_outcome_is_the_right_one(rows, right, fault):
    right(rows[fault])
