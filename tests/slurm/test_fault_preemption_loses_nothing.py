"""Jobs of a higher partition take the nodes of a run, for real: with a grace no step is lost, without at most what was
done since the last checkpoint, and the time limit has nothing to do with it."""

import pytest

pytestmark = [pytest.mark.fault, pytest.mark.slow]

# Two minutes: a preemption always comes close to the time limit, and must not be taken for it.
RUN = ("method=rotnet", "nodes=2", "tasks_per_node=1", "cluster=fake", "cluster.cpus_per_task=1")
SHORT = ("cluster.timeout_min=2", "cluster.signal_delay_s=20")
GRACE_SECONDS = 40
PARTITIONS = {
    "main": "Default=YES MaxTime=2-0 DefaultTime=1:00:00 PriorityTier=1 PreemptMode=OFF",
    "low": f"MaxTime=2-0 DefaultTime=1:00:00 PriorityTier=1 PreemptMode=REQUEUE GraceTime={GRACE_SECONDS}",
    "hard": "MaxTime=2-0 DefaultTime=1:00:00 PriorityTier=1 PreemptMode=REQUEUE GraceTime=0",
    "high": "MaxTime=2-0 DefaultTime=1:00:00 PriorityTier=100 PreemptMode=OFF",
}


@pytest.fixture(scope="module")
def drill_on(drilled, start_cluster, slurm_sslrun, config_dir):
    """`drill_on("low", user_signal=True, faults=[...])`: the rows."""

    def run(partition, *words, faults, user_signal=False):
        with start_cluster(nodes=2, cpus=4, partitions=PARTITIONS, user_signal=user_signal) as own:
            folder = config_dir(own, partition=partition)
            where = ("--config-dir", folder, "--preempt-with", "high")
            return drilled(slurm_sslrun(own), *RUN, *words, *where, faults=faults)

    return run


def test_with_a_grace_and_the_signal_that_was_asked_for_nothing_is_lost(drill_on, right):
    (row,) = drill_on("low", *SHORT, user_signal=True, faults=["preemption"]).values()
    right(row)
    assert (row["causes"], row["lost_steps"]) == (["preempted"], 0)


def test_with_a_grace_nothing_is_lost_at_any_moment(drill_on, right):
    faults = ["preemption", "preemption-at-start", "done-in-the-grace"]
    rows = drill_on("low", faults=faults)
    for row in rows.values():
        right(row)
        assert row["lost_steps"] == 0
    assert [rows[name]["causes"] for name in faults] == [["preempted"], ["preempted"], []]


def test_without_a_grace_the_last_checkpoint_is_gone_on_from(drill_on, right):
    rows = drill_on("hard", faults=["preemption", "preempt-in-slow-save"])
    for row in rows.values():
        right(row)
        assert row["causes"] == ["preempted"]
