"""Nodes of several networks, whose names lead nowhere or to the wrong machine: their ranks meet all the same, and where
they cannot, a line says so before they begin."""

import re
import sys
from pathlib import Path

import pytest

RUN = ("method=rotnet", "recipe=tiny", "cluster=fake", "nodes=2", "tasks_per_node=1", "cluster.cpus_per_task=1")


@pytest.fixture
def started(networked, slurm_sslrun, config_dir, settled, tmp_path):
    """`started(override, ...)`: what `show` says of a run of two nodes, once it has ended, and where it is."""
    sslrun = slurm_sslrun(networked)
    words = (*RUN, "--json", "--config-dir", config_dir(networked, environment={}), f"runs={tmp_path}")

    def start(*overrides: str) -> tuple[dict, Path]:
        run = Path(sslrun(*words, *overrides).json["path"])
        return settled(sslrun, run), run

    return start


def test_nodes_whose_names_lead_to_themselves_train_together(started):
    shown, run = started()
    assert shown["state"] == "done", shown
    (log,) = (run / "submit").glob("*.log")
    assert re.search(r"its nodes reach n1 at 10\.231\.\d+\.1, by ens3 eth0\n", log.read_text())


def test_the_doctor_says_where_they_would(networked, slurm_sslrun, tmp_path):
    rows = slurm_sslrun(networked)("doctor", "--launch", "--json", "nodes=2", f"runs={tmp_path}").json
    (found,) = (row["found"] for row in rows if row["check"] == "rendezvous")
    assert re.fullmatch(r"10\.231\.\d+\.1 by eth0 \(n1\) and ens3 \(n2\), reached from 2 of 2 nodes", found)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("MASTER_ADDR=nosuchhost.invalid", r"n1, n2 do not reach n1 at nosuchhost.invalid \(its name cannot .*\)"),
        ("GLOO_SOCKET_IFNAME=docker0", r"n1 is not reached by n2 at 172\.31\.255\.1 \(docker0\): .*"),
        ("GLOO_SOCKET_IFNAME=ib0", r"n1 has no address at ib0; n2 has no address at ib0"),
    ],
)
def test_what_the_user_has_set_is_tried_alone(started, ledger, setting, reason):
    shown, run = started(f"cluster.environment.{setting}")
    (end,) = ledger(run, "end")
    assert (end["state"], end["cause"]) == ("failed", "input")
    assert re.match(rf"cluster\.environment\.{setting}: {reason}; set it to ", shown["message"])
    assert not ledger(run, "left_out") and len(ledger(run, "start")) == 1


def test_who_cancels_meanwhile_is_heard_at_once(networked, slurm_sslrun, config_dir, settled, ledger, until, tmp_path):
    """Otherwise it would be waited for a node that starts nothing, and the run be told to save what it has not."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$SLURMD_NODENAME" = n2 ] && exec sleep infinity\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    sslrun = slurm_sslrun(networked)
    words = ("--config-dir", config_dir(networked, environment={}), f"runs={tmp_path}", f"cluster.python='{python} -B'")
    launched = sslrun(*RUN, "--json", *words).json
    steps = ("squeue", "--steps", "--noheader", "--format=%i")
    until(lambda: f"{launched['job']}.1" in networked.run(*steps).stdout.split())  # .0 is the look at the nodes
    sslrun("cancel", launched["path"])
    assert settled(sslrun, launched["path"])["state"] == "cancelled"
    (end,) = ledger(launched["path"], "end")
    assert (end["state"], end["cause"]) == ("cancelled", "cancelled") and not ledger(launched["path"], "left_out")
