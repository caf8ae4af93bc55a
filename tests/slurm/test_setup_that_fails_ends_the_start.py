"""An item of cluster.setup that fails: the start ends with node, item and output; where it worked before, elsewhere."""

from pathlib import Path

import pytest

from launcher.slurm import badnodes

RUN = ("method=rotnet", "recipe=tiny", "cluster=fake", "tasks_per_node=1", "cluster.cpus_per_task=1")


@pytest.fixture
def typed(cluster, slurm_sslrun, config_dir, tmp_path):
    """(sslrun, what is typed, the file that names the nodes without modules): setup is three items, one command."""
    bad = tmp_path / "bad nodes"
    items = [f"if grep -qsx $SLURMD_NODENAME '{bad}'; then", "echo no modules here; (exit 7)", "fi"]
    folder = config_dir(cluster, setup=["export GREETING=hello", *items])
    return slurm_sslrun(cluster), (*RUN, "--config-dir", folder), bad


def said(node: str) -> str:
    return f"{node}: cluster.setup[1] `if grep -qsx $SLURMD_NODENAME "


def test_it_ends_the_first_start_and_the_run_goes_on_once_it_is_mended(typed, settled, ledger, tmp_path):
    sslrun, words, bad = typed
    bad.write_text("n1\nn2\n")
    run = Path(sslrun(*words, f"runs={tmp_path / 'runs'}", "--json").json["path"])
    shown = settled(sslrun, run)
    message = shown["message"]
    assert (shown["state"], shown["cause"], shown["restarts"]) == ("failed", "input", {})
    assert message.startswith(said("n1")) and "...` ended with 7: no modules here; `sslrun resume " in message
    assert f"\n{run.name}: {message}\n" in sslrun("status", f"runs={run.parent}").out
    (log,) = (run / "submit").glob("slurm-*.log")
    assert "sslrun: n1: cluster.setup[1]" in log.read_text() and not list((run / "logs").iterdir())
    assert not badnodes.listed(run.parent)
    bad.unlink()
    sslrun("resume", run)
    assert settled(sslrun, run)["state"] == "done"
    assert [end["cause"] for end in ledger(run, "end")] == ["input", "done"]


@pytest.mark.fault
@pytest.mark.slow
def test_a_node_on_which_it_fails_after_it_worked_is_left_out(typed, cluster, watched, settled, ledger, until):
    sslrun, words, bad = typed
    job = sslrun(*words, "method.epochs=6", f"runs={watched.runs}", "--json").json["job"]
    until(lambda: watched.events("checkpoint"))
    bad.write_text("n1\n")  # where it is, and where Slurm would start it again
    cluster.run("scontrol", "requeue", job)
    shown = settled(sslrun, watched.path)
    assert (shown["state"], shown["restarts"]) == ("done", {"requeued": 1, "setup": 1}), shown
    assert [(start["nodes"], start["job"]) for start in watched.events("start")] == [("n1", job)] * 2 + [("n2", job)]
    (left_out,) = watched.events("left_out")
    assert left_out["node"] == "n1" and left_out["why"].startswith("cluster.setup[1]")
    assert "node n1 is left out until" in sslrun("status", f"runs={watched.runs}").out
