"""Told to stop, by Ctrl-C or by `cancel`, a run saves where it is and says how to go on."""

import shlex


def test_ctrl_c_saves_where_it_stops(sslrun, interrupted):
    run, answer = interrupted
    assert answer.code == 130
    assert "Traceback" not in answer.out + answer.err
    stopped = sslrun.show(run)
    assert stopped["state"] == "stopped"
    assert 8 <= stopped["step"] < stopped["steps"]
    assert stopped["checkpoint"] == str(run / "checkpoints" / f"step_{stopped['step']:08d}")
    assert f'"step": {stopped["step"]},' in (run / "progress.json").read_text()  # no step after the save


def test_the_command_that_it_prints_goes_on_to_the_same_end(sslrun, interrupted, copied, undisturbed):
    run, answer = interrupted
    program, *words = shlex.split(answer.err.splitlines()[-1].removeprefix("go on with: "))
    assert (program, *words) == ("sslrun", "resume", run.name, f"runs={run.parent}")
    said = sslrun(*words[:-1], f"runs={copied.parent}").err
    assert "the environment changed" not in said
    resumed = sslrun.show(copied)
    assert resumed["state_digest"] == sslrun.show(undisturbed())["state_digest"]
    assert resumed["restarts"] == {"stopped": 1}
    assert resumed["lost_steps"] == 0


def test_cancel_stops_it_from_elsewhere_and_logs_follow_it_to_its_end(sslrun, one_line, watched, endless):
    launcher = sslrun.start(*endless, "tasks_per_node=2", f"runs={watched.runs}")
    watched.reach(4, launcher)
    follower = sslrun.start("logs", watched.path, "-f")
    assert sslrun("cancel", watched.path, "--json").json["state"] == "cancelled"
    assert sslrun.finish(launcher).code == 130
    assert sslrun.finish(follower).code == 0  # the end of the run is the end of its log
    cancelled = sslrun.show(watched.path)
    assert cancelled["state"] == "cancelled"
    assert cancelled["step"] >= 4
    assert watched.gone()

    logs = sslrun("logs", watched.path, "--all").out.splitlines()
    assert {line.partition(":")[0] for line in logs} <= {"rank0", "rank1"}
    assert "not running" in one_line(sslrun("cancel", watched.path, code=2))
    second = sslrun("logs", watched.path, "--rank", 1).out.splitlines()
    assert [line for line in logs if line.startswith("rank1: ")] == [f"rank1: {line}" for line in second]
    assert "--rank=2: " in one_line(sslrun("logs", watched.path, "--rank", 2, code=2))
