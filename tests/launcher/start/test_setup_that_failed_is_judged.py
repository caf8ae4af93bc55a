"""Who is to blame where an item of cluster.setup failed: whoever wrote it, or the node.

A stand-in for Slurm says what it is asked: tests/slurm has real jobs.
"""

import pytest

from launcher.plan import setup
from launcher.run.ledger import Ledger
from launcher.slurm import badnodes
from launcher.start import batch

SAID = "n1: cluster.setup[0] `module load cuda` ended with 1: no \x1b[31mmodule\udcff"
SHOWN = "n1: cluster.setup[0] `module load cuda` ended with 1: no module?"


@pytest.fixture
def unready(monkeypatch):
    """What the batch script could not do of cluster.setup."""
    monkeypatch.setenv("SSLRUN_UNREADY", SAID)
    monkeypatch.setattr(batch, "_work", lambda *_: pytest.fail("its ranks were started"))


def test_setup_that_fails_at_the_first_start_is_wrong_input(runs, job, unready):
    run = runs.make()
    with pytest.raises(SystemExit) as ended:
        batch.main(str(run.path))
    end = run.history().last("end")
    fix = f"`sslrun resume {run.path} cluster.setup=[...]` goes on with others"
    said = f"{SHOWN}; {fix}, and `|| true` behind an item lets it fail"
    assert (end["state"], end["cause"], end["message"], ended.value.code) == ("failed", "input", said, 2)
    assert not badnodes.listed(runs.folder) and not job.slurm.commands("scontrol requeue")


@pytest.fixture
def done_once(runs):
    """`done_once(run, *items)`: job 7 has been given the run, and items of cluster.setup were done in its folder."""

    def submit(run, *items):
        folder = run.path / "submit"
        folder.mkdir(exist_ok=True)
        (folder / setup.mark(items)).touch()
        Ledger(run.path, 1, "submit").write("submitted", job="7", token="a", folder=str(folder))

    return submit


def test_setup_that_was_done_before_fails_on_a_node_that_is_left_out(runs, job, unready, ends_of, done_once):
    run = runs.make(setup=["module load cuda"])
    done_once(run, "module load cuda")
    ends = [ends_of(run)[-1] for _ in range(2)]
    assert ends == [("preempted", "setup", "requeued")] * 2
    assert run.history().last("left_out")["node"] == "n1"
    listed = badnodes.listed(runs.folder)
    assert {node: entry["why"] for node, entry in listed.items()} == {"n1": SHOWN.removeprefix("n1: ")}
    assert job.slurm.commands("scontrol requeue") == [["scontrol", "requeue", "7"]] * 2
    assert ends_of(run)[-1] == ("failed", "input", "")  # there are no others


def test_setup_that_fails_on_a_second_node_in_the_same_way_is_no_nodes_fault(
    runs, job, unready, ends_of, done_once, monkeypatch
):
    run = runs.make(setup=["module load cuda"])
    done_once(run, "module load cuda")
    badnodes.mark(run, ["n9"], "went down while it ran this")
    assert ends_of(run)[-1] == ("preempted", "setup", "requeued")
    job.began_on("n2", "n2")
    monkeypatch.setenv("SSLRUN_UNREADY", "n2: cluster.setup[0] `module load cuda` ended with 2: killed")
    assert ends_of(run)[-1] == ("preempted", "setup", "requeued") and len(badnodes.listed(runs.folder)) == 3
    job.began_on("n3", "n3")
    monkeypatch.setenv("SSLRUN_UNREADY", "n3: cluster.setup[0] `module load cuda` ended with 2: killed, too")
    assert ends_of(run)[-1] == ("failed", "input", "")
    message = run.history().last("end")["message"]
    assert message.startswith("n3: cluster.setup[0] `module load cuda` ended with 2: killed, too; `sslrun resume ")
    assert "goes on with others, and `|| true` behind" in message
    assert list(badnodes.listed(runs.folder)) == ["n9", "n1"]  # which failed in a way of its own
    assert ends_of(run)[-1] == ("failed", "input", "") and len(badnodes.listed(runs.folder)) == 2


@pytest.mark.parametrize("how", ["is no whole command: syntax error", "left the shell with 3"])
def test_what_no_more_words_let_fail_is_not_told_to_have_any(runs, job, unready, ends_of, monkeypatch, how):
    run = runs.make()
    monkeypatch.setenv("SSLRUN_UNREADY", f"n1: cluster.setup[0] `if true` {how}")
    assert ends_of(run)[-1] == ("failed", "input", "")
    assert run.history().last("end")["message"].endswith("cluster.setup=[...]` goes on with others")


def test_other_setup_that_was_done_before_says_nothing(runs, job, unready, ends_of, done_once):
    run = runs.make(setup=["module load cuda"])
    done_once(run, "module load gcc")
    assert ends_of(run)[-1] == ("failed", "input", "")
