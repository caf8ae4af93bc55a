"""A run moves from this machine to Slurm and back: the same run, one ledger, and with as many ranks the same bytes."""

import signal


def test_it_goes_from_here_to_slurm_and_back_and_ends_in_the_same_state(
    cluster, slurm_sslrun, config_dir, journey, undisturbed, watched, until
):
    sslrun, there = slurm_sslrun(cluster), ("--config-dir", config_dir(cluster), "cluster=fake")
    launcher = sslrun.start(*journey, "tasks_per_node=2", f"runs={watched.runs}")
    watched.reach(5, launcher)
    launcher.send_signal(signal.SIGINT)
    assert sslrun.finish(launcher).code == 130
    spec = (watched.path / "spec.json").read_bytes()

    # More than the cluster has: refused before anything changes.
    words = ("nodes=4", "tasks_per_node=1", *there)
    assert "at most 2 nodes" in sslrun("resume", watched.path, *words, code=2).complaint
    assert not (watched.path / "placement.json").exists()

    words = ("nodes=2", "tasks_per_node=1", "cluster.cpus_per_task=1", *there)
    job = sslrun("resume", watched.path, *words, "--json").json["job"]
    assert job
    back = ("cluster=local", "nodes=1", "tasks_per_node=2")
    refused = sslrun("resume", watched.path, *back, code=2).complaint
    assert f"job {job} has it" in refused or "a run has one writer" in refused
    assert sslrun.show(watched.path)["where"] == {"cluster": "fake", "nodes": 2, "tasks_per_node": 1}
    until(lambda: watched.step() >= 12, seconds=300)
    sslrun("cancel", watched.path, "--yes")
    until(lambda: sslrun.show(watched.path)["state"] == "cancelled", seconds=300)
    assert not watched.processes()

    sslrun("resume", watched.path, *back)
    shown = sslrun.show(watched.path)
    assert (shown["state"], shown["lost_steps"]) == ("done", 0)
    assert shown["where"] == {"cluster": "local", "nodes": 1, "tasks_per_node": 2}
    assert shown["state_digest"] == sslrun.show(undisturbed(2, journey))["state_digest"]
    assert (watched.path / "spec.json").read_bytes() == spec
    assert [(e.get("job"), e["world_size"]) for e in watched.events("start")] == [(None, 2), (job, 2), (None, 2)]
    placed = [(e["cluster"], e["nodes"], e["tasks_per_node"]) for e in watched.events("placed")]
    assert placed == [("fake", 2, 1), ("local", 1, 2)]
