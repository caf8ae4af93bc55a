"""What a run's earlier start said last is not shown as what it does now that it starts again."""

import os

import pytest
import recorded

from launcher.report.index import RunIndex
from launcher.run.ledger import Ledger


@pytest.fixture
def run(ledgers):
    """One that got to step 90 and was saved at step 40."""
    run = ledgers.create("method=rotnet", "recipe=tiny")
    ledgers.start(run)
    ledgers.save(run, 40)
    ledgers.progress(run, 90, generation=1, stage="stopped", loss=1.5, images_per_s=500.0, seconds_left=60.0)
    return run


def row(run, ledgers) -> dict:
    (found,) = RunIndex(ledgers.folder).rows()[0]
    return found.facts


def now(facts: dict) -> list:
    return [facts[name] for name in ("state", "stage", "step", "loss", "images_per_s", "seconds_left")]


def test_a_run_that_starts_again_is_starting_until_it_speaks(run, ledgers):
    ledgers.end(run, "stopped")
    assert now(row(run, ledgers)) == ["stopped", None, 90, 1.5, 500.0, 60.0]
    ledgers.start(run, "stopped")
    lock = run.lock()
    assert now(row(run, ledgers)) == ["running", "starting", 40, None, None, None]
    ledgers.progress(run, 41, generation=2, loss=1.25)
    assert now(row(run, ledgers)) == ["running", "training", 41, 1.25, None, None]
    ledgers.progress(run, 91, generation=1, loss=1.0)  # a process of before that stood still and goes on
    assert now(row(run, ledgers))[:3] == ["running", "starting", 40]
    os.close(lock)


@pytest.mark.parametrize("follows", ["in_place", "requeued"])
def test_between_two_starts_of_a_job_it_is_starting(run, ledgers, follows):
    Ledger(run.path, 1, "batch").write("end", state="preempted", cause="killed", message="", **{follows: True})
    lock = run.lock()
    assert now(row(run, ledgers))[:3] == ["running", "starting", 40]
    os.close(lock)


def test_what_a_run_does_that_waits_for_its_next_job_is_nothing(run, ledgers):
    ledgers.end(run, "stopped")
    ledgers.submit(run, "7")
    assert now(row(run, ledgers))[:3] == ["pending", None, 90]


def test_a_run_made_before_does_not_say_which_start_speaks_and_is_believed(run, ledgers):
    ledgers.progress(run, 90, loss=1.5)
    lock = run.lock()
    assert now(row(run, ledgers))[:4] == ["running", "training", 90, 1.5]
    os.close(lock)


def test_a_job_that_has_begun_and_whose_run_has_not_is_starting(run, ledgers, slurm_said):
    """Between Slurm's start of the job and the first word of the batch script."""
    ledgers.end(run, "stopped")
    ledgers.submit(run, "4")
    slurm_said.says("squeue", recorded.table(recorded.JOBS))
    assert now(row(run, ledgers))[:3] == ["running", "starting", 40]
