"""Slurm suspends a job for longer than a rank may get nowhere: `status` says so, and when the job comes back it goes on
where it stood, to the state that it would have had."""

import time
from datetime import datetime

import pytest

pytestmark = [pytest.mark.fault, pytest.mark.slow]

STALL_MINUTES = 0.25  # a rank that hangs is ended within half a minute of its last step
SUSPENDED_SECONDS = 50
RUN = ("method=rotnet", "recipe=tiny", "method.epochs=40", "method.checkpoint_every=300")
SHAPE = ("cluster=fake", "nodes=2", "tasks_per_node=1", "cluster.cpus_per_task=1")


def test_one_that_is_cancelled_meanwhile_is_killed_where_it_stands(cluster, slurm_sslrun, config_dir, watched, until):
    sslrun = slurm_sslrun(cluster)
    job = sslrun(*RUN, *SHAPE, "--config-dir", config_dir(cluster), f"runs={watched.runs}", "--json").json["job"]
    until((watched.path / "checkpoints" / "step_00000300").exists)
    cluster.run("scontrol", "suspend", job)
    answer = sslrun("cancel", watched.path, "--yes")
    assert "its job is suspended, and is killed where it stands" in answer.err
    assert watched.gone()
    assert until(lambda: sslrun.show(watched.path)["state"] != "running")
    assert sslrun.show(watched.path)["state"] == "cancelled"


def test_it_ends_as_if_nothing_had_happened(cluster, slurm_sslrun, config_dir, watched, settled, until, tmp_path):
    sslrun = slurm_sslrun(cluster)
    words = (*RUN, *SHAPE, f"cluster.stall_minutes={STALL_MINUTES}", "--config-dir", config_dir(cluster))
    twin = sslrun(*words, f"runs={tmp_path / 'twin'}", "--json").json["path"]
    job = sslrun(*words, f"runs={watched.runs}", "--json").json["job"]
    until((watched.path / "checkpoints" / "step_00000300").exists)
    assert sslrun("status", f"runs={watched.runs}", "--json").json[0]["suspended"] is None

    cluster.run("scontrol", "suspend", job)
    began = time.monotonic()
    (row,) = until(lambda: [r for r in sslrun("status", f"runs={watched.runs}", "--json").json if r["suspended"]])
    assert row["state"] == "running"
    assert abs((datetime.now() - datetime.fromisoformat(row["suspended"])).total_seconds()) < 600
    assert "suspended since " in sslrun("status", f"runs={watched.runs}").out
    time.sleep(max(0.0, began + SUSPENDED_SECONDS - time.monotonic()))
    shown = sslrun.show(watched.path)
    assert (shown["state"], shown["suspended"], shown["waits_for"]) == ("running", row["suspended"], [])
    cluster.run("scontrol", "resume", job)

    done, undisturbed = settled(sslrun, watched.path), settled(sslrun, twin)
    assert (done["state"], done["restarts"], done["lost_steps"]) == ("done", {}, 0), done
    assert done["state_digest"] == undisturbed["state_digest"]
    assert {event["rank"] for event in watched.events("paused")} == {0, 1}
    assert not watched.events("stalled")
    assert watched.gone()
