"""Jobs of a higher partition take the nodes of a run, for real: with a grace no step is lost, without at most what was
done since the last checkpoint, and the time limit has nothing to do with it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

pytestmark = [pytest.mark.fault, pytest.mark.slow]

# Nodes of its own, so that whoever takes them takes them from nobody else.
RUN = ("method=rotnet", "nodes=2", "tasks_per_node=1", "cluster=fake", "cluster.cpus_per_task=1")
ALONE = ("cluster.additional_parameters.exclusive=true", "--preempt-with", "high")
# Two minutes: a preemption always comes close to the time limit, and must not be taken for it.
SHORT = ("cluster.timeout_min=2", "cluster.signal_delay_s=20")
PARTITIONS = {
    "main": "Default=YES MaxTime=2-0 DefaultTime=1:00:00 PriorityTier=1 PreemptMode=OFF",
    "low": "MaxTime=2-0 DefaultTime=1:00:00 PriorityTier=1 PreemptMode=REQUEUE GraceTime=600",
    "hard": "MaxTime=2-0 DefaultTime=1:00:00 PriorityTier=1 PreemptMode=REQUEUE GraceTime=0",
    "high": "MaxTime=2-0 DefaultTime=1:00:00 PriorityTier=100 PreemptMode=OFF",
}
WITH_A_GRACE = ["preemption", "preemption-at-start", "done-in-the-grace"]
WITHOUT = ["preemption", "preempt-in-slow-save"]


@contextmanager
def unlimited(cluster):
    """Slurm gives every job an hour more than it asked for: those of the drill are to end for their own reason."""
    over = threading.Event()

    def give() -> None:
        while not over.wait(1):
            for line in cluster.run("squeue", "--noheader", "--format=%i %l", check=False).stdout.splitlines():
                job, limit = line.split()
                if limit == "2:00":
                    cluster.run("scontrol", "update", f"jobid={job}", "timelimit=+60", check=False)

    giving = threading.Thread(target=give)
    giving.start()
    try:
        yield
    finally:
        over.set()
        giving.join()


@pytest.fixture(scope="module")
def drills(drilled, start_cluster, slurm_sslrun, config_dir):
    """Three drills at the same time, since each mostly waits: the rows of each, by fault, when they are there."""

    def drill(own, partition, *words, faults):
        folder = config_dir(own, partition=partition)
        return drilled(slurm_sslrun(own), *RUN, *ALONE, *words, "--config-dir", folder, faults=faults)

    with (
        start_cluster(nodes=8, partitions=PARTITIONS) as own,
        start_cluster(nodes=2, partitions=PARTITIONS, user_signal=True) as telling,
        unlimited(telling),
        ThreadPoolExecutor() as pool,
    ):
        yield {
            "asked for": pool.submit(drill, telling, "low", *SHORT, faults=["preemption"]),
            "grace": pool.submit(drill, own, "low", "--at-once", "2", faults=WITH_A_GRACE),
            "none": pool.submit(drill, own, "hard", "--at-once", "2", faults=WITHOUT),
        }


def test_with_a_grace_and_the_signal_that_was_asked_for_nothing_is_lost(drills, right):
    (row,) = drills["asked for"].result().values()
    right(row)
    assert (row["causes"], row["lost_steps"]) == (["preempted"], 0)


def test_with_a_grace_nothing_is_lost_at_any_moment(drills, right):
    rows = drills["grace"].result()
    for row in rows.values():
        right(row)
        assert row["lost_steps"] == 0
    assert [rows[name]["causes"] for name in WITH_A_GRACE] == [["preempted"], ["preempted"], []]


def test_without_a_grace_the_last_checkpoint_is_gone_on_from(drills, right):
    rows = drills["none"].result()
    assert rows.keys() == set(WITHOUT)
    for row in rows.values():
        right(row)
        assert row["causes"] == ["preempted"]
