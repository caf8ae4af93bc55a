"""DeeperCluster's tiny recipe over two nodes of a real Slurm: cancelled, moved to this machine and back, resumed, it is
the same run with one ledger, and ends in the state of one that was left alone here."""

import signal

import pytest

pytestmark = [pytest.mark.fault, pytest.mark.slow]

HERE = ("cluster=local", "nodes=1", "tasks_per_node=4")


@pytest.fixture
def cancelled(standing, settled):
    """`cancelled(sslrun, run)`: what `show` says of it then; it was in the middle, whatever the machine does."""

    def cancel(sslrun, run):
        with standing(run):
            command = sslrun.start("cancel", run, "--yes")
            assert any("told to save and stop" in line for line in command.stderr)
        assert sslrun.finish(command).code == 0
        return settled(sslrun, run)

    return cancel


def test_cancelled_moved_and_resumed_it_ends_with_the_local_runs_weights(
    cluster, slurm_sslrun, config_dir, journey, undisturbed, watched, cancelled, settled, standing, until
):
    journey = (*journey, "method.log_every=1")
    sslrun, there = (
        slurm_sslrun(cluster),
        ("--config-dir", config_dir(cluster), "cluster=fake", "cluster.cpus_per_task=1"),
    )
    two_nodes = (*there, "nodes=2", "tasks_per_node=2")
    answer = sslrun(*journey, *two_nodes, f"runs={watched.runs}", "--json").json
    assert (answer["state"], answer["joined"]) == ("pending", False)
    spec = (watched.path / "spec.json").read_bytes()
    # The pickle brings the run's path, and the ranks never see submitit.
    pickle = (watched.path / "submit" / "0.pkl").read_bytes()
    assert str(watched.path).encode() in pickle and len(pickle) < 2000 + len(str(watched.path))

    until(lambda: len(watched.rows()) >= 5)
    with standing(watched.path):
        again = sslrun(*journey, *two_nodes, f"runs={watched.runs}", "--json").json
        assert (again["job"], again["joined"]) == (answer["job"], True)
        assert f"job {answer['job']}" in sslrun("resume", watched.path, code=2).complaint
    shown = cancelled(sslrun, watched.path)
    assert shown["state"] == "cancelled" and 0 < shown["step"] < 40
    assert not watched.processes()

    stopped = sslrun.signalling(number=signal.SIGINT, after=shown["step"] + 2)
    stopped("resume", watched.path, *HERE, code=130)
    assert sslrun.show(watched.path)["where"] == {"cluster": "local", "nodes": 1, "tasks_per_node": 4}

    # More than the cluster has: refused before anything changes.
    placed = (watched.path / "placement.json").read_bytes()
    assert "at most 2 nodes" in sslrun("resume", watched.path, *two_nodes, "nodes=4", code=2).complaint
    assert (watched.path / "placement.json").read_bytes() == placed

    one_node = (*there, "nodes=1", "tasks_per_node=4")
    others = cluster.run("sbatch", "--parsable", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep inf")
    until(lambda: "R" in cluster.run("squeue", "--noheader", "--format=%t").stdout)
    job = sslrun("resume", watched.path, *one_node, "--json").json["job"]
    assert f"job {job} has it" in sslrun("resume", watched.path, *HERE, code=2).complaint
    assert sslrun.show(watched.path)["where"] == {"cluster": "fake", "nodes": 1, "tasks_per_node": 4}
    cluster.run("scancel", others.stdout.strip())
    shown = settled(sslrun, watched.path)
    assert (shown["state"], shown["lost_steps"]) == ("done", 0), shown
    assert shown["restarts"] == {"cancelled": 1, "stopped": 1}
    assert shown["state_digest"] == sslrun.show(undisturbed(4, journey))["state_digest"]
    assert (watched.path / "spec.json").read_bytes() == spec
    started = [(e.get("job"), e["world_size"]) for e in watched.events("start")]
    assert started == [(answer["job"], 4), (None, 4), (job, 4)]
    moved = [(e["cluster"], e["nodes"], e["tasks_per_node"]) for e in watched.events("placed")]
    assert moved == [("local", 1, 4), ("fake", 1, 4)]
