"""A node that loses its power takes its ranks along, without a signal: the run goes on elsewhere, as the same job."""

import pytest

from launcher.slurm import badnodes

pytestmark = [pytest.mark.fault, pytest.mark.slow]

RUN = ("method=rotnet", "recipe=tiny", "method.epochs=6")
SHAPE = ("nodes=2", "tasks_per_node=1", "cluster=fake")


def test_a_node_of_the_ranks_and_then_the_first_one(
    start_cluster, slurm_sslrun, config_dir, undisturbed, watched, settled, until
):
    # A node that does not answer for so many seconds is down.
    with start_cluster(nodes=4, cpus=2, config={"SlurmdTimeout": 10}) as own:
        sslrun = slurm_sslrun(own)
        there = ("--config-dir", config_dir(own), "cluster.cpus_per_task=1")
        job = sslrun(*RUN, *SHAPE, *there, f"runs={watched.runs}", "--json").json["job"]
        gone = set()
        for generation, which in enumerate((-1, 0), 1):
            until(lambda g=generation: g in {e["generation"] for e in watched.events("checkpoint")})
            lost = _nodes(own, watched.events("start")[-1])[which]
            own.kill_node(lost, noticed=which == 0)  # the other one Slurm finds out about by itself
            gone.add(lost)
            until(lambda g=generation: len(watched.events("start")) > g)
            assert not gone & set(_nodes(own, watched.events("start")[-1]))
        shown = settled(sslrun, watched.path)
        assert shown["state"] == "done", shown
        assert shown["restarts"] == {"node_failure": 2}
        starts = watched.events("start")
        assert {start["job"] for start in starts} == {job}
        counts = [start["restart_count"] for start in starts]
        assert counts[0] == 0 and counts == sorted(set(counts))  # Slurm may put it back once more, from a dead node
        assert not watched.processes()
        assert shown["state_digest"] == sslrun.show(undisturbed(2, RUN))["state_digest"]
        assert set(badnodes.listed(watched.runs)) == gone  # left out of the next submissions


def _nodes(cluster, start) -> list[str]:
    return cluster.run("scontrol", "show", "hostnames", start["nodes"]).stdout.split()
