"""DeeperCluster's tiny recipe over two nodes of a real Slurm: trained, cancelled, resumed, and equal to a local run."""

import pytest

pytestmark = pytest.mark.fault

SHAPE = ("nodes=2", "tasks_per_node=2", "cluster=fake", "cluster.cpus_per_task=1")


@pytest.fixture(scope="module")
def here(cluster, slurm_sslrun, config_dir):
    """(the command line, its overrides) on the shared cluster."""
    return slurm_sslrun(cluster), ("--config-dir", config_dir(cluster), *SHAPE)


def settled(sslrun, run, *, until, seconds=180):
    return until(
        lambda: (s := sslrun.show(run))["state"] in ("done", "failed", "cancelled", "stopped") and s, seconds=seconds
    )


def test_over_two_nodes_cancelled_and_resumed_it_ends_with_the_local_runs_weights(
    here, journey, undisturbed, watched, until
):
    sslrun, shape = here
    answer = sslrun(*journey, *shape, f"runs={watched.runs}", "--json").json
    assert (answer["state"], answer["joined"]) == ("pending", False)
    until(lambda: watched.step() >= 5)
    again = sslrun(*journey, *shape, f"runs={watched.runs}", "--json").json
    assert (again["job"], again["joined"]) == (answer["job"], True)
    refused = sslrun("resume", watched.path, code=2)
    assert f"job {answer['job']}" in refused.complaint

    sslrun("cancel", watched.path, "--yes")
    shown = settled(sslrun, watched.path, until=until)
    assert shown["state"] == "cancelled" and 0 < shown["step"] < 40
    assert not watched.processes()

    sslrun("resume", watched.path)
    shown = settled(sslrun, watched.path, until=until)
    assert shown["state"] == "done", shown
    assert shown["restarts"] == {"cancelled": 1}
    local = sslrun.show(undisturbed(4, journey))
    assert shown["state_digest"] == local["state_digest"]
    assert {e["world_size"] for e in watched.events("start")} == {4}
    # The pickle brings the run's path, and the ranks never see submitit.
    assert str(watched.path).encode() in (watched.path / "submit" / "0.pkl").read_bytes()
    assert (watched.path / "submit" / "0.pkl").stat().st_size < 2000 + len(str(watched.path))
