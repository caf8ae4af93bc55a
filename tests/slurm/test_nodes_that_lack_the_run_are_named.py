"""A node that does not see the run, or lacks its Python: the job says which, and the next avoids it.

A job that has other nodes that lack nothing is tried again first, and here it gets the same ones each time."""

import json
import sys
import time
from pathlib import Path

import pytest

AGAIN = " (3 starts in a row ended without a newer checkpoint)"
RUN = ("method=rotnet", "recipe=tiny", "cluster=fake", "tasks_per_node=1", "cluster.cpus_per_task=1", "--json")
LATER = "cluster.additional_parameters.begin=now+1hour"


@pytest.fixture(scope="module")
def typed(uneven, slurm_sslrun, config_dir):
    return slurm_sslrun(uneven), (*RUN, "--config-dir", config_dir(uneven))


@pytest.fixture
def failed(typed, settled):
    """`failed(override, ...)` -> (the run, what `show` says), once its job has failed."""
    sslrun, words = typed

    def launch(*overrides) -> tuple[Path, str]:
        run = Path(sslrun(*words, *overrides).json["path"])
        shown = settled(sslrun, run)
        assert shown["state"] == "failed", shown
        status = sslrun("status", f"runs={run.parent}").out
        assert f"{run.name}: {shown['message']}\n" in status  # one line, the same everywhere
        return run, shown["message"]

    return launch


def left_out(cluster, answer) -> str:
    said = cluster.run("scontrol", "show", "job", answer.json["job"]).stdout
    return next(word.partition("=")[2] for word in said.split() if word.startswith("ExcNodeList="))


@pytest.mark.slow
def test_a_second_node_that_does_not_see_the_run(uneven, typed, failed, hidden):
    sslrun, words = typed
    runs = hidden / "second"
    run, message = failed("nodes=2", f"runs={runs}", "cluster.timeout_min=1")
    assert message == f"n2 does not see {run}{AGAIN}"
    assert "node n2 is left out until" in sslrun("status", f"runs={runs}").out

    next_one = sslrun(*words, "seed=1", LATER, f"runs={runs}")
    assert "left out until" in next_one.err and f"n2 (does not see {run})" in next_one.err
    assert left_out(uneven, next_one) == "n2"
    both = sslrun(*words, "seed=2", "nodes=2", LATER, f"runs={runs}")
    assert "used all the same, because too few other nodes are left: n2" in both.err
    assert left_out(uneven, both) == "(null)"
    elsewhere = sslrun(*words, "seed=3", LATER, f"runs={hidden / 'elsewhere'}")
    assert left_out(uneven, elsewhere) == "(null)"

    known = json.loads((runs / ".bad_nodes.json").read_text())
    assert 23 < (known["n2"]["until"] - time.time()) / 3600 <= 24
    known["n2"]["until"] = time.time() - 1
    (runs / ".bad_nodes.json").write_text(json.dumps(known))
    assert "is left out" not in sslrun("status", f"runs={runs}").out
    expired = sslrun(*words, "seed=4", LATER, f"runs={runs}")
    assert "left out" not in expired.err
    assert left_out(uneven, expired) == "(null)"
    (runs / ".bad_nodes.json").write_text('{"n2": 7}')  # a list that somebody damaged is no list
    assert sslrun("status", f"runs={runs}").code == 0


def test_a_first_node_that_does_not_see_the_run_is_known_from_slurm_and_avoided(typed, failed, hidden, settled, ledger):
    sslrun, words = typed
    run, message = failed("cluster.exclude=n1", f"runs={hidden / 'first'}")
    assert "its first node, n2, could not open its log" in message
    assert f"does not see {run}/submit" in message and "choose a folder that all nodes share" in message
    # Once more, without the exclusion that led there: the run never began, so it takes today's.
    again = sslrun(*words, f"runs={run.parent}")
    assert "n2 (could not open a log in" in again.err
    shown = settled(sslrun, run)
    assert shown["state"] == "done", shown
    assert [e["nodes"] for e in ledger(run, "start")] == ["n1"]


def test_a_node_that_lacks_the_python(uneven, typed, failed, hidden, tmp_path):
    sslrun, words = typed
    python = hidden / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    mine = f"cluster.python={python}"
    _, message = failed(mine, "nodes=2", f"runs={tmp_path / 'second'}")
    assert message == f"n2 has no {python}{AGAIN}"
    _, message = failed(mine, "cluster.exclude=n1", f"runs={tmp_path / 'first'}")
    assert message.startswith(f"n2 has no {python}; install it there")
    again = sslrun(*words, mine, LATER, f"runs={tmp_path / 'first'}")
    assert left_out(uneven, again) == "n2"


@pytest.mark.parametrize("command", ["/nowhere/python", "'/nowhere/apptainer exec image.sif python'"])
def test_what_every_node_lacks_is_no_nodes_fault(typed, failed, tmp_path, command):
    sslrun, words = typed
    _, message = failed(f"cluster.python={command}", "nodes=2", f"runs={tmp_path}")
    assert "has no /nowhere/" in message
    again = sslrun(*words, "nodes=2", LATER, f"runs={tmp_path}", code=None)
    assert again.code == 0 and "left out" not in again.err and "used all the same" not in again.err
