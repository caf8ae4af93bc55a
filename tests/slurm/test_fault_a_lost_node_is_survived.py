"""A node that loses its power takes its ranks along, without a signal: the run goes on elsewhere, as the same job."""

import pytest

from launcher import badnodes

pytestmark = [pytest.mark.fault, pytest.mark.slow]


RUN = ("method=rotnet", "recipe=tiny", "method.epochs=14")
SHAPE = ("nodes=2", "tasks_per_node=1", "cluster=fake", "cluster.cpus_per_task=1")
# A node that does not answer for so many seconds is down.
SOON = {"SlurmdTimeout": 8, "MessageTimeout": 5, "TCPTimeout": 1}


def test_a_node_of_the_ranks_and_then_the_first_one(
    start_cluster, slurm_sslrun, config_dir, undisturbed, watched, until
):
    with start_cluster(nodes=4, cpus=4, config=SOON) as own:
        sslrun = slurm_sslrun(own)
        job = sslrun(*RUN, *SHAPE, "--config-dir", config_dir(own), f"runs={watched.runs}", "--json").json["job"]
        gone = set()
        for generation, which in enumerate((-1, 0), 1):
            until(lambda g=generation: len(watched.events("start")) == g, seconds=240)
            until(lambda g=generation: g in {e["generation"] for e in watched.events("checkpoint")}, seconds=240)
            lost = _nodes(own, watched.events("start")[-1])[which]
            own.kill_node(lost)
            gone.add(lost)
            until(lambda g=generation: len(watched.events("start")) > g, seconds=240)
            assert not gone & set(_nodes(own, watched.events("start")[-1]))
        until(lambda: sslrun.show(watched.path)["state"] in ("done", "failed"), seconds=240)
        shown = sslrun.show(watched.path)
        assert shown["state"] == "done", shown
        assert shown["restarts"] == {"node_failure": 2}
        starts = watched.events("start")
        assert {start["job"] for start in starts} == {job}
        assert [start["restart_count"] for start in starts] == [0, 1, 2]
        assert not watched.processes()
        assert shown["state_digest"] == sslrun.show(undisturbed(2, RUN))["state_digest"]
        assert set(badnodes.listed(watched.runs)) == gone  # left out of the next submissions


def _nodes(cluster, start) -> list[str]:
    return cluster.run("scontrol", "show", "hostnames", start["nodes"]).stdout.split()
