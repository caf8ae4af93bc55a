"""One rank is killed: the job goes on with all of them, without the queue. More faults: tests/slurm/test_fault_*.py.

Those of the next start wait beside the ranks by then, and begin; where one of them has died they are all begun anew.
"""

import json
import os
import signal

import pytest

RUN = ("method=rotnet", "recipe=tiny", "method.epochs=10")
SHAPE = ("nodes=2", "tasks_per_node=1", "cluster=fake", "cluster.cpus_per_task=1")


@pytest.fixture
def typed(cluster, slurm_sslrun, config_dir, watched):
    sslrun = slurm_sslrun(cluster)
    sslrun(*RUN, *SHAPE, "--config-dir", config_dir(cluster, standby=True), f"runs={watched.runs}")
    return sslrun


@pytest.fixture
def waiting(watched, until):
    """`waiting(generation)`: the processes of those that wait for that start, once all are ready. The ranks stand still
    meanwhile, because one of them is stopped, which is returned, too."""

    def ready(generation: int) -> tuple[list[int], int]:
        stopped = watched.ranks(generation - 1)[1][1]
        os.kill(stopped, signal.SIGSTOP)

        def told() -> list[int] | None:
            files = watched.path.glob("heartbeats/standby*.json")
            found = [json.loads(file.read_text()) for file in files]
            return [each["pid"] for each in found if each["generation"] == generation]

        until(lambda: len(told()) == 2)
        return told(), stopped

    return ready


def test_the_same_job_goes_on(typed, watched, settled, waiting):
    there, stopped = waiting(2)
    os.kill(stopped, signal.SIGKILL)
    assert sorted(process for _, process in watched.ranks(2).values()) == sorted(there)
    shown = settled(typed, watched.path)
    assert (shown["state"], shown["restarts"]) == ("done", {"killed": 1}), shown
    assert [(end["cause"], end["requeued"], end["in_place"]) for end in watched.events("end")] == [
        ("killed", False, True),
        ("done", False, False),
    ]
    first, second = watched.events("start")
    assert (first["job"], first["restart_count"]) == (second["job"], second["restart_count"])
    assert watched.gone()


@pytest.mark.slow
@pytest.mark.fault
def test_where_one_that_waits_has_died_others_begin_and_the_state_is_the_same(
    typed, watched, settled, waiting, undisturbed
):
    there, stopped = waiting(2)
    os.kill(stopped, signal.SIGKILL)
    watched.ranks(2)
    others, stopped = waiting(3)
    os.kill(others[0], signal.SIGKILL)
    os.kill(stopped, signal.SIGKILL)
    third = {process for _, process in watched.ranks(3).values()}
    assert not third & {*there, *others}
    shown = settled(typed, watched.path)
    assert (shown["state"], shown["restarts"]) == ("done", {"killed": 2}), shown
    assert shown["state_digest"] == typed.show(undisturbed(2, RUN))["state_digest"]
    assert watched.gone()
