"""The ranks of one start on a job's nodes: looked at, started, and seen to their end though srun waits for ever."""

import time

import pytest
import recorded

from launcher.errors import NodesRefused, NotStarted
from launcher.run.files import write_json
from launcher.start import ranks
from launcher.start.told import Told

FAILED = "echo 'srun: error: n2: task 1: Exited with exit code 1' >&2"
KILLED = "echo 'srun: error: n1: task 0: Killed' >&2"
NODES = ["n1", "n2", "n3"]


@pytest.fixture
def run(runs, job, monkeypatch):
    """A run on three nodes, whose ranks end together."""
    monkeypatch.setattr(ranks, "END_SECONDS", 0.1)
    monkeypatch.setattr(ranks, "GONE_SECONDS", 60.0)
    job.began_on("n[1-3]")
    job.slurm.says("squeue --steps", recorded.STEPS_7.replace("|", "\x1f"))
    run = runs.make(nodes=3)
    (run.path / "heartbeats").mkdir()
    return run


@pytest.fixture
def impatient(monkeypatch):
    """Ranks that were killed are given up on soon, and nodes that do not answer."""
    monkeypatch.setattr(ranks, "GONE_SECONDS", 2.0)


@pytest.fixture
def ended(run, tmp_path, monkeypatch):
    """`ended()`: how the ranks of its first start did."""
    monkeypatch.setattr(Told, "pass_on", lambda *_: None)

    def start(nodes=NODES, **more) -> ranks.Ended:
        given = {"address": "n1.cluster", "generation": 1, "told": Told(), "beside": False, **more}
        return ranks.start(run, run.spec(), tmp_path, nodes, **given)

    return start


def beats(run, rank: int, node: str, pid: int) -> None:
    known = {"generation": 1, "rank": rank, "host": node, "pid": pid, "stage": "training", "step": 1, "points": 1}
    times = {"still_s": 0.0, "every_s": 1.0, "alive_s": 1.0, "marks": 0, "stalled": False, "joined": True}
    write_json(run.path / "heartbeats" / f"rank{rank}.json", known | times)


def test_once_one_has_failed_the_others_are_killed_and_srun_ends(job, ended, tmp_path):
    """By a signal to the step that was started: Slurm's own end of a step would wait for KillWait."""
    alive = tmp_path / "alive"
    alive.touch()
    job.slurm.says("scancel", lambda _: alive.unlink() or "")
    job.srun(f"{FAILED}; for n in $(seq 500); do [ ! -e {alive} ] || sleep 0.02; done; {KILLED}; exit 137")
    assert ended() == ranks.Ended(137, 1, "rank 1 on n2: Exited with exit code 1", lost={}, over=True)
    assert job.slurm.commands("scancel") == [["scancel", "--signal=KILL", "7.0"]]


def test_others_that_end_by_themselves_are_not_killed(job, ended, monkeypatch):
    monkeypatch.setattr(ranks, "END_SECONDS", 60.0)
    job.srun(f"{FAILED}; {KILLED}; exit 1")
    assert ended() == ranks.Ended(1, 1, "rank 1 on n2: Exited with exit code 1", lost={}, over=True)
    assert not job.slurm.commands("scancel")


def test_while_none_has_failed_nothing_is_killed(job, ended, monkeypatch):
    monkeypatch.setattr(ranks, "END_SECONDS", 0.0)
    job.srun("echo 'slurmstepd: a word' >&2; sleep 0.5")
    assert ended() == ranks.Ended(0, None, "slurmstepd: a word", lost={}, over=True)
    assert not job.slurm.commands("scancel")


def test_where_srun_waits_for_ever_each_node_is_asked_for_what_is_left_there(run, job, ended, impatient, tmp_path):
    """Of n2 a rank cannot be killed, and on n3 nothing starts: it is dead, and Slurm does not know yet."""
    beats(run, 0, "n1", 101)
    beats(run, 1, "n2", 102)
    asked = f'echo "$*" | sed "s/.*--nodelist=\\([^ ]*\\) .*done sh/\\1/" >> {tmp_path}/asked'
    by_node = 'case "$*" in *=n1\\ *) exit 0;; *=n2\\ *) exit 7;; esac; exit 1'
    job.srun(f"{FAILED}; exec sleep 60", gone=f"{asked}; {by_node}")
    began = time.monotonic()
    found = ended()
    assert found.lost == {"n2": ranks.HELD, "n3": "does not start a task"}
    assert (found.exit_code, found.rank, found.over) == (-9, 1, False)
    assert time.monotonic() - began < 50  # it has not waited for srun
    assert sorted((tmp_path / "asked").read_text().split("\n")) == ["", "n1 101", "n2 102", "n3"]


def test_a_node_that_does_not_even_answer_is_lost(job, ended, impatient):
    job.srun(f"{FAILED}; exec sleep 60", gone='case "$*" in *=n3\\ *) exec sleep 60;; esac')
    assert ended().lost == {"n3": "does not start a task"}


def test_nodes_of_which_slurm_knows_are_lost(job, ended):
    job.srun("echo 'srun: error: Node failure on n[2,9]' >&2; exit 1")
    found = ended()
    assert found.lost == {"n2": "is lost"} and found.over  # n9 is another job's


def test_what_srun_waits_for_on_a_lost_node_is_no_rank_that_lives(job, ended, impatient):
    job.srun("echo 'srun: error: Node failure on n3' >&2; exec sleep 60", gone="exit 0")
    found = ended()
    assert (found.lost, found.rank, found.over) == ({"n3": "is lost"}, None, False)


@pytest.mark.parametrize(("nodes", "address"), [(NODES, "n1.cluster"), (["n2"], "127.0.0.1")])
def test_ranks_meet_on_the_first_of_their_nodes_and_know_no_others(run, job, ended, tmp_path, nodes, address):
    job.srun(f"env > {tmp_path}/seen")
    ended(nodes)
    seen = dict(line.partition("=")[::2] for line in (tmp_path / "seen").read_text().splitlines())
    assert seen["MASTER_ADDR"] == address and int(seen["MASTER_PORT"]) > 1023
    assert not {"SLURM_NODELIST", "SLURM_JOB_NODELIST"} & {*seen} and seen["SLURM_JOB_ID"] == "7"


def test_a_variable_with_which_srun_would_refuse_to_start_is_not_passed_on(job, ended, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_NO_KILL", "1")
    job.srun(f"env > {tmp_path}/seen")
    ended()
    assert "SLURM_NO_KILL" not in (tmp_path / "seen").read_text()


# -- looking at the nodes ----------------------------------------------------------------------------------------------


@pytest.fixture
def looked(run):
    """`looked()`: what a look at its three nodes finds."""
    return lambda: ranks.look(run, run.spec(), NODES, seconds=1.0)


def test_each_node_tells_its_hosts_name(job, looked):
    job.srun(look="for n in 3 1 2; do echo n$n is host$n.cluster; done")
    assert looked() == {f"n{n}": f"host{n}.cluster" for n in (1, 2, 3)}


def test_nodes_that_lack_something_are_named(job, looked):
    job.srun(look="echo n1 is n1; echo n3 has no python; echo n2 does not see /runs/r; exit 3")
    with pytest.raises(NodesRefused, match=r"^n2 does not see /runs/r; n3 has no python$") as refused:
        looked()
    assert refused.value.why == {"n2": "does not see /runs/r", "n3": "has no python"}


@pytest.mark.parametrize("look", ["exec sleep 60", "echo 'srun: error: Task launch failed on node n3' >&2; exit 1"])
def test_where_nothing_starts_on_some_they_are_looked_for_one_by_one(job, looked, monkeypatch, look):
    monkeypatch.setattr(ranks, "PREFLIGHT_SECONDS", 0.2)
    job.srun(look=look, gone='case "$*" in *=n3\\ *) exit 1;; esac')
    with pytest.raises(NodesRefused) as refused:
        looked()
    assert refused.value.why == {"n3": "does not start a task"}


@pytest.mark.parametrize("gone", ["exit 0", "exit 1"])
def test_where_it_is_all_of_them_or_none_no_node_is_to_blame(job, looked, gone):
    job.srun(look="echo 'srun: error: Unable to create step' >&2; exit 1", gone=gone)
    with pytest.raises(NotStarted, match=r"on every node failed: srun: error: Unable to create step$") as failed:
        looked()
    assert not isinstance(failed.value, NodesRefused)


def test_a_look_that_takes_too_long_is_given_up(job, looked, monkeypatch):
    monkeypatch.setattr(ranks, "PREFLIGHT_SECONDS", 0.2)
    job.srun(look="exec sleep 60", gone="exit 0")
    with pytest.raises(NotStarted, match=r"^a node of n1,n2,n3 does not start a task$"):
        looked()


def test_many_nodes_are_told_in_one_line():
    said = str(NodesRefused({f"n{number}": "has no python" for number in range(1, 8)}))
    assert said.endswith("; n5 has no python; and 2 more") and "\n" not in said
