"""What the job's own nodes can mend starts again in the same job, whatever the cluster's defaults are; a node on which
that happens twice in a row is left out, and no budget forgives more than it did."""

import os
import signal

import pytest

from launcher.slurm import badnodes

pytestmark = [pytest.mark.fault, pytest.mark.slow]

RUN = ("method=rotnet", "recipe=tiny", "method.epochs=24")
SHAPE = ("nodes=2", "tasks_per_node=1", "cluster=fake", "cluster.cpus_per_task=1")
# Slurm's defaults are 30 and 120 seconds. So long as here, whoever waits for them waits in vain.
DEFAULTS = {"KillWait": 3600, "AuthInfo": "cred_expire=3600"}
# An exception in the middle of whatever a rank does.
CRASHES = """
import signal


def crash(number, frame):
    raise RuntimeError("out of luck")


signal.signal(signal.SIGUSR1, crash)
"""


@pytest.fixture(scope="module")
def own(start_cluster):
    with start_cluster(nodes=3, cpus=2, config=DEFAULTS) as cluster:
        yield cluster


@pytest.fixture
def typed(own, slurm_sslrun, config_dir, watched, tmp_path):
    """The command line, and the words of the run, whose ranks crash at SIGUSR1."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(CRASHES)
    sslrun = slurm_sslrun(own)
    sslrun.environment["PYTHONPATH"] = str(tmp_path / "site")
    return sslrun, (*RUN, *SHAPE, "--config-dir", config_dir(own, standby=True), f"runs={watched.runs}")


def kill(ranks, rank, number=signal.SIGKILL):
    os.kill(ranks[rank][1], number)


def test_killed_crashed_and_stuck_it_goes_on_in_the_same_job(typed, watched, settled, undisturbed):
    sslrun, words = typed
    sslrun(*words, "cluster.stall_minutes=0.25")
    first = watched.ranks(1)
    kill(first, 1, signal.SIGSTOP)  # it hears of nothing, whatever it is told
    kill(first, 0)
    second = watched.ranks(2)
    kill(second, 1, signal.SIGUSR1)
    third = watched.ranks(3)
    kill(third, 0, signal.SIGSTOP)
    watched.ranks(4)
    before = {process for start in (first, second, third) for _, process in start.values()}
    assert not before & set(watched.processes())
    shown = settled(sslrun, watched.path)

    assert shown["state"] == "done", shown
    assert shown["restarts"] == {"killed": 1, "crash": 1, "stuck": 1}
    assert "out of luck" in watched.events("end")[1]["message"]
    assert [told["in_place"] for told in shown["interruptions"]] == [True, True, True]
    starts = watched.events("start")
    assert len({(start["job"], start["restart_count"], start["nodes"]) for start in starts}) == 1
    assert [start["world_size"] for start in starts] == [2, 2, 2, 2]
    assert shown["state_digest"] == sslrun.show(undisturbed(2, RUN))["state_digest"]


def test_twice_in_a_row_on_one_node_it_goes_on_without_and_a_fourth_time_is_not_forgiven(
    typed, watched, settled, standing, until
):
    sslrun, words = typed
    sslrun(*words, "cluster.spare_nodes=1")
    kill(watched.ranks(1), 1)
    second = watched.ranks(2, saved=False)
    with standing(watched.path):  # before it has saved anything
        kill(second, 1)
        until(lambda: len(watched.events("end")) == 2)
    third = watched.ranks(3)
    (left_out,) = watched.events("left_out")
    assert left_out["node"] == second[1][0] not in {node for node, _ in third.values()}
    assert set(badnodes.listed(watched.runs)) == {left_out["node"]}
    kill(third, 1)
    kill(watched.ranks(4), 1)
    shown = settled(sslrun, watched.path)
    assert (shown["state"], shown["cause"]) == ("failed", "killed"), shown
    assert "end 4 of this kind: killed; 3 are forgiven" in shown["message"]
    assert {start["restart_count"] for start in watched.events("start")} == {0}
