"""Killed without a word and resumed, a run ends in the state of one that nobody touched, byte for byte."""

import os
import signal

import pytest

ROTNET = ("method=rotnet", "recipe=tiny", "method.epochs=5")

# (overrides, ranks, the step after which it is killed, who is killed). Clusterings come every 4 steps, saves every 3.
CASES = {
    "deepercluster, 1 rank, launcher killed": (None, 1, 17, "launcher"),
    "deepercluster, 2 ranks, one killed": (None, 2, 7, "rank"),
    "deepercluster, 4 ranks, launcher killed": (None, 4, 12, "launcher"),
    "rotnet, 2 ranks, one killed": (ROTNET, 2, 10, "rank"),
}


@pytest.mark.parametrize(("overrides", "ranks", "step", "victim"), CASES.values(), ids=CASES.keys())
def test_killed_and_resumed_is_as_never_interrupted(
    sslrun, watched, undisturbed, journey, overrides, ranks, step, victim
):
    overrides = overrides or journey
    launcher = sslrun.start(*overrides, f"tasks_per_node={ranks}", f"runs={watched.runs}")
    watched.reach(step, launcher)
    members = watched.processes()
    assert len(members) == ranks
    os.kill(launcher.pid if victim == "launcher" else max(members), signal.SIGKILL)
    ended = sslrun.finish(launcher, timeout=20)
    assert watched.gone(seconds=15)

    dead, reached = sslrun.show(watched.path), watched.step()
    assert dead["state"] == "failed"
    assert 0 < dead["step"] < dead["steps"] - 4  # another clustering is still to come

    sslrun("resume", watched.path)
    resumed = sslrun.show(watched.path)
    assert resumed["state"] == "done"
    assert resumed["step"] == resumed["steps"]
    assert resumed["state_digest"] == sslrun.show(undisturbed(ranks, overrides))["state_digest"]
    assert resumed["lost_steps"] == reached - dead["step"]
    assert resumed["restarts"] == {"killed": 1}
    if victim == "rank":  # the launcher lived to tell: of the death, not of what the other rank met because of it
        assert ended.code == 4
        assert "killed by SIGKILL" in ended.complaint
