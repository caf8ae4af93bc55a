"""A job with a node in reserve goes on in place where a node dies, is refused or does not let go of its ranks, and
through the queue where it has none left, or lost the one with the batch script: to the undisturbed run's state."""

import os
import signal
import sys
from pathlib import Path

import pytest
from watched import Watched

from launcher.run import heartbeats
from launcher.run.folder import RunDir
from launcher.slurm import badnodes, notation

pytestmark = [pytest.mark.fault, pytest.mark.slow]

RUN = ("method=rotnet", "recipe=tiny", "method.epochs=24")
SHORT = (*RUN[:2], "method.epochs=2")
SHAPE = ("nodes=2", "tasks_per_node=1", "cluster=fake", "cluster.cpus_per_task=1")


@pytest.fixture
def typed(slurm_sslrun, config_dir, watched):
    """`typed(cluster, *words)` -> (the command line, the run's folder), once it is submitted there."""

    def run(cluster, *words, spares=1, runs=None):
        sslrun = slurm_sslrun(cluster)
        there = ("--config-dir", config_dir(cluster, standby=True), f"runs={runs or watched.runs}", "--json")
        return sslrun, sslrun(*words, *SHAPE, f"cluster.spare_nodes={spares}", *there).json["path"]

    return run


def ends(watched) -> list[tuple]:
    """(cause, whether the next start was in the same job, what Slurm alone could mend) of each."""
    return [(end["cause"], bool(end.get("in_place")), end.get("why", "")) for end in watched.events("end")]


def test_nodes_that_die_unnoticed_with_the_batch_script_and_noticed(
    start_cluster, typed, watched, settled, undisturbed, until
):
    with start_cluster(nodes=5, cpus=2) as own:
        sslrun, run = typed(own, *RUN)
        first = watched.ranks(1)
        own.kill_node(first[1][0])
        second = watched.ranks(2)
        own.run("scontrol", "update", f"nodename={first[1][0]}", "state=down", "reason=lost")  # at last
        assert {node for node, _ in second.values()} == set(own.nodes[:3]) - {first[1][0]}
        own.kill_node(second[0][0], noticed=True)
        third = watched.ranks(3)
        own.kill_node(third[1][0], noticed=True)
        shown = settled(sslrun, run)
        assert shown["state"] == "done", shown
        assert shown["restarts"] == {"node_failure": 3}
        assert [told["in_place"] for told in shown["interruptions"]] == [True, False, True]
        assert [start["restart_count"] for start in watched.events("start")] == [0, 0, 1, 1]
        assert shown["state_digest"] == sslrun.show(undisturbed(2, RUN))["state_digest"]
        assert set(badnodes.listed(watched.runs)) == {first[1][0], second[0][0], third[1][0]}


def test_a_node_that_does_not_let_go_of_its_ranks_is_left_out_in_place_or_by_slurm(
    start_cluster, typed, watched, settled, undisturbed, until, tmp_path
):
    without = Watched(tmp_path / "without")
    with start_cluster(nodes=6, cpus=2) as own:
        sslrun, run = typed(own, *RUN)
        _, other = typed(own, *RUN, spares=0, runs=without.runs)
        stuck = {each: _hold_on_to(each.ranks(1)) for each in (watched, without)}
        (job,) = {start["job"] for start in without.events("start")}
        wanted = f"ExcNodeList={stuck[without][0]}"
        until(lambda: wanted in own.run("scontrol", "show", "job", job).stdout.split())
        until(lambda: len(watched.events("start")) == 2)
        for _, process in stuck.values():  # Slurm starts no job again, and ends none, that has not ended everywhere
            os.kill(process, signal.SIGCONT)
        shown = [settled(sslrun, each) for each in (run, other)]
        for each, said in zip((watched, without), shown, strict=True):
            assert (said["state"], said["restarts"]) == ("done", {"killed": 1}), said
            (left_out,) = each.events("left_out")
            assert (left_out["node"], left_out["why"]) == (stuck[each][0], "does not let go of its ranks")
            assert stuck[each][0] not in notation.expand(each.events("start")[1]["nodes"])
            assert said["state_digest"] == sslrun.show(undisturbed(2, RUN))["state_digest"]
        assert ends(watched)[0] == ("killed", True, "")
        assert ends(without)[0] == ("killed", False, "too few of its nodes are left")


def _hold_on_to(ranks: dict[int, tuple[str, int]]) -> tuple[str, int]:
    """Stop a rank and Slurm's own process that looks after it, and kill the other one: its node, and that process."""
    node, process = ranks[1]
    parent = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    assert "slurmstepd" in Path(f"/proc/{parent}/cmdline").read_text()
    for each in (parent, process):
        os.kill(each, signal.SIGSTOP)
    os.kill(ranks[0][1], signal.SIGKILL)
    return node, parent


@pytest.mark.skipif(os.geteuid() != 0, reason="hiding a folder from a node takes a mount namespace, so root")
def test_a_node_that_the_look_refuses_also_where_it_is_the_first(
    start_cluster, typed, watched, settled, undisturbed, ledger, tmp_path
):
    python = tmp_path / "hidden" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with start_cluster(nodes=4, cpus=2, hide={"n2": python.parent}) as own:
        # With more than its path the batch script does with another: the first node lacks only that of the ranks.
        mine = (*SHORT, f"cluster.python='{python} -u'")
        for seed, excluded, wanted in ((0, "n4", ["n1", "n3"]), (1, "n1", ["n3", "n4"])):
            sslrun, run = typed(own, *mine, f"seed={seed}", f"cluster.exclude={excluded}")
            shown = settled(sslrun, run)
            assert shown["state"] == "done", shown
            assert shown["restarts"] == {"not_started": 1}
            ranks = heartbeats.processes(RunDir(run), 2)
            assert [ranks[rank][0] for rank in (0, 1)] == wanted
            (told,) = shown["interruptions"]
            assert told["in_place"]
            job = own.run("scontrol", "show", "job", ledger(run, "start")[0]["job"]).stdout.split()
            assert f"BatchHost={'n1' if excluded == 'n4' else 'n2'}" in job
            (watched.runs / ".bad_nodes.json").unlink()  # or the next one would not get it
        assert shown["state_digest"] == sslrun.show(undisturbed(2, (*SHORT, "seed=1")))["state_digest"]
