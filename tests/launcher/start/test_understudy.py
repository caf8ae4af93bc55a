"""Who puts a job back whose first node dies stands by on another one, and on a new one where that has died."""

from functools import partial
from types import SimpleNamespace

import pytest

from launcher.run.folder import RunDir
from launcher.start import understudy
from launcher.start.allocation import Allocation


@pytest.fixture
def stands(job, runs, monkeypatch):
    """`stands.by(nodes)` on its second node; `stands.steps`: the nodes on which it was started, and its srun."""
    job.began_on("n[1-4]")
    steps = []

    def start(command, **_) -> SimpleNamespace:
        where = next(word.removeprefix("--nodelist=") for word in command if word.startswith("--nodelist="))
        step = SimpleNamespace(node=where, told=command[-4:], ended=None)
        step.poll, step.kill = lambda: step.ended, lambda: setattr(step, "ended", -9)
        steps.append(step)
        return step

    monkeypatch.setattr(understudy.subprocess, "Popen", start)
    return SimpleNamespace(by=partial(understudy.Understudy().stand_by, RunDir("/run"), runs.spec()), steps=steps)


@pytest.fixture
def nodes(stands) -> Allocation:
    nodes = Allocation()
    nodes.take([2])
    return nodes


def test_it_is_on_another_node_than_the_first_and_stays(stands, nodes):
    stands.by(nodes)
    stands.by(nodes)
    assert [step.node for step in stands.steps] == ["n2"]


def test_it_is_told_the_job_its_first_node_how_often_it_had_begun_and_where_to_leave_word(stands, nodes, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    stands.by(nodes)
    assert stands.steps[0].told == ["7", "n1", "3", "/run/first_node_lost"]


def test_where_its_node_is_left_out_it_moves(stands, nodes):
    stands.by(nodes)
    nodes.left_out["n2"] = "is lost"
    nodes.take([2])
    stands.by(nodes)
    assert [(step.node, step.ended) for step in stands.steps] == [("n2", -9), ("n3", None)]


def test_where_it_has_ended_there_is_another(stands, nodes):
    stands.by(nodes)
    stands.steps[0].ended = 1
    stands.by(nodes)
    assert [step.node for step in stands.steps] == ["n2", "n2"]


def test_a_job_of_one_node_has_none(stands, nodes):
    nodes.left_out |= dict.fromkeys(("n2", "n3", "n4"), "is lost")
    nodes.take([1])
    stands.by(nodes)
    assert not stands.steps
