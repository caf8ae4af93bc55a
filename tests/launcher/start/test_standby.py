"""Ranks of the next start that are there already are taken where they are those that would be started, and all of them
are ready; else the start begins as any other, and nobody is left."""

import dataclasses
import time

import pytest

from launcher.run.files import write_json
from launcher.run.folder import RunDir
from launcher.run.heartbeats import READY
from launcher.run.ledger import Ledger
from launcher.slurm.meeting import Meeting
from launcher.spec import registry
from launcher.start import standby
from launcher.start.ranks import _of_ranks
from launcher.start.standby import Standby

NODES = ["n1", "n2"]
HERE, THERE = Meeting("10.1.0.1", 10001, {}), Meeting("10.1.0.2", 10002, {"n1": "eth0"})
HEARS = 'read -r word; printf "%s\\n" "$word" > "$HEARD"'  # what srun passes on


@pytest.fixture
def run(runs, job, monkeypatch, tmp_path):
    """A run on two nodes, whose first start has done a step."""
    monkeypatch.setattr(standby, "POLL_SECONDS", 0.01)
    monkeypatch.setenv("HEARD", str(tmp_path / "heard"))
    job.began_on("n[1-2]")
    job.srun(HEARS)
    run = runs.make(nodes=2)
    (run.path / "heartbeats").mkdir()
    Ledger(run.path, 1, "batch").write("start", cause="submitted")
    Ledger(run.path, 1, "rank0").write("first_step", step=1, seconds={})
    return run


@pytest.fixture
def environment(run, tmp_path):
    """`environment(meeting)`: of the ranks of its second start."""
    return lambda meeting, nodes=NODES: _of_ranks(run.spec(), tmp_path, nodes, meeting, 2)


@pytest.fixture
def waits(run, environment, until):
    """`waits(ready)`: a Standby whose ranks have begun, as many of them `ready`; and its step, for a look."""
    made = []

    def begin(ready: int = 2, **cluster) -> Standby:
        spec = run.spec().on(2)
        here = Standby()
        made.append(here)
        here.begin_behind(run, spec, NODES, environment(HERE))
        until(lambda: here._heard, seconds=30)
        here.begin_none()
        for rank in range(ready):
            write_json(run.path / "heartbeats" / READY.format(rank), {"generation": 2})
        return here

    yield begin
    for here in made:
        here.end()


def test_they_are_taken_and_told_what_was_not_known_when_they_began(run, environment, waits, until, tmp_path):
    step, heard = waits().take(run, run.spec(), NODES, environment(THERE))
    assert step.wait(30) == 0 and heard.failed is None
    assert (tmp_path / "heard").read_text() == (
        '{"MASTER_ADDR": "10.1.0.2", "MASTER_PORT": "10002", "SSLRUN_INTERFACES": "{\\"n1\\": \\"eth0\\"}"}\n'
    )


@pytest.mark.parametrize("why", ["not ready", "of another start", "other nodes", "another environment", "one died"])
def test_else_they_are_sent_away(run, environment, waits, until, job, tmp_path, why):
    if why == "one died":
        job.srun(f"echo 'srun: error: n2: task 1: Killed' >&2; {HEARS}")
    here = waits(ready=1 if why == "not ready" else 2)
    step, nodes, told = here._step, NODES, environment(THERE)
    if why == "of another start":
        write_json(run.path / "heartbeats" / READY.format(1), {"generation": 1})
    elif why == "other nodes":
        nodes = ["n1", "n3"]
    elif why == "another environment":
        told = {**told, "OMP_NUM_THREADS": "7"}
    elif why == "one died":
        until(lambda: here._heard.failed, seconds=30)
    assert here.take(run, run.spec(), nodes, told) is None
    assert step.wait(30) == 0 and (tmp_path / "heard").read_text() == "\n"  # the end of its stdin
    assert here.take(run, run.spec(), NODES, environment(THERE)) is None


def test_those_whose_srun_has_ended_are_not_taken(run, environment, waits, job):
    job.srun("exit 1")
    here = waits()
    here._step.wait(30)
    assert here.take(run, run.spec(), NODES, environment(THERE)) is None


def test_at_the_end_of_the_job_they_end(run, waits, tmp_path):
    here = waits()
    step = here._step
    here.end()
    assert step.wait(30) == 0 and (tmp_path / "heard").read_text() == "\n"


def test_none_begins_before_the_first_step_nor_after_the_last(run, environment):
    here = Standby()
    told = environment(HERE) | {"SSLRUN_GENERATION": "3"}  # behind a start that has done no step
    here.begin_behind(run, run.spec(), NODES, told)
    time.sleep(0.05)
    here.begin_none()
    Ledger(run.path, 2, "rank0").write("first_step", step=1, seconds={})
    time.sleep(0.05)
    assert here._step is None


@pytest.mark.parametrize("cluster", [{"standby": False}, {"srun": {"container-image": "a#b"}}, {"mem_gb": 4}])
def test_none_begins_where_it_is_not_wanted_or_would_not_fit(runs, job, environment, run, cluster):
    here = Standby()
    here.begin_behind(run, runs.spec(nodes=2, **cluster), NODES, environment(HERE))
    time.sleep(0.05)
    here.begin_none()
    assert here._step is None


@pytest.mark.parametrize("work", ["an evaluation", "a clustering"])
def test_none_begins_behind_what_has_no_steps(run, environment, monkeypatch, work):
    spec, looked = run.spec(), []
    monkeypatch.setattr(standby, "_has_begun", lambda *given: looked.append(given))
    if work == "an evaluation":
        monkeypatch.setattr(RunDir, "owner", run)
    else:
        spec = dataclasses.replace(spec, method=registry.method("kmeans").config())
    here = Standby()
    here.begin_behind(run, spec, NODES, environment(HERE))
    time.sleep(0.05)
    here.begin_none()
    assert not looked
