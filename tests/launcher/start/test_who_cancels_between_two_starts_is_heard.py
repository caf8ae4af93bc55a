"""Between two starts of one job no rank lives that could be told that the job is to end, and Slurm takes a job back
that has been cancelled: so the batch process looks."""

from types import SimpleNamespace

import pytest

from launcher.run.ledger import Ledger
from launcher.slurm.commands import SlurmJob
from launcher.start import batch, evidence
from launcher.start.ending import Outcome

KILLED = Outcome("preempted", "killed", "rank 1 on n2: Killed", 0)
CANCELLED = "slurmstepd-n1: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-30T01:52:23 ***\n"
REQUEUED = "slurmstepd-n1: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-30T01:52:23 DUE TO JOB REQUEUE ***\n"


@pytest.fixture
def twice(runs, monkeypatch):
    """A run that job 7 has started for the second time; the first ended in place."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    run = runs.make()
    (run.path / "submit").mkdir()
    Ledger(run.path, 1, "submit").write("submitted", job="7", token="a", folder=str(run.path / "submit"))
    Ledger(run.path, 1, "batch").write("start", cause="submitted", job="7", nodes="n[1-2]", world_size=2)
    Ledger(run.path, 1, "batch").write("end", state="preempted", cause="killed", message="", in_place=True)
    Ledger(run.path, 2, "batch").write("start", cause="killed", job="7", nodes="n[1-2]", world_size=2)
    return run


def log(run, first: str = "", second: str = "") -> None:
    (run.path / "submit" / "slurm-7.log").write_text(f"== start 1\n{first}== start 2\n{second}")


@pytest.mark.parametrize(
    ("first", "second", "said"), [("", "", False), (CANCELLED, "", True), ("", CANCELLED, True), (REQUEUED, "", False)]
)
def test_scancel_is_heard_whichever_start_the_log_tells_of_it(twice, first, second, said):
    log(twice, first, second)
    assert evidence.cancelled(twice, 2) is said


@pytest.mark.parametrize(("generation", "job", "said"), [(1, "7", True), (2, "7", True), (2, "5", False)])
def test_what_the_ledger_says_counts_of_this_job(twice, generation, job, said):
    Ledger(twice.path, generation, "cancel").write("cancel", job=job)
    assert evidence.cancelled(twice, 2) is said


def test_a_start_that_was_cancelled_before_it_begins_starts_nothing(twice, monkeypatch):
    Ledger(twice.path, 1, "cancel").write("cancel", job="7")
    monkeypatch.setattr(batch.preflight, "look", lambda *_, **__: pytest.fail("a task was started"))
    told = SimpleNamespace(signal=None, began=0.0)
    here = SimpleNamespace(told=told, nodes=None)
    outcome = batch._work(twice, twice.spec(), ["n1"], Ledger(twice.path, 2, "batch"), here)
    found = SlurmJob("7", "7", "name", "RUNNING", "", "", "n[1-2]", "", "", "")
    assert evidence.understood(twice, 2, outcome, found, told).cause == "cancelled"


def test_a_job_that_is_cancelled_is_not_put_back(twice, slurm_said):
    log(twice, second=CANCELLED)
    batch._requeue(twice, Ledger(twice.path, 2, "batch"), KILLED, None)
    end = twice.history().last("end")
    assert (end["state"], end["message"]) == ("cancelled", "cancelled; rank 1 on n2: Killed")
    assert not slurm_said.commands("scontrol requeue")


@pytest.mark.fault
def test_that_nobody_can_read_whether_it_was_cancelled_is_no_reason_to_keep_it(twice, job, away):
    away(twice.path / "events")
    batch._requeue(twice, Ledger(twice.path, 2, "batch"), KILLED, SimpleNamespace(left_out={}))
    assert job.slurm.commands("scontrol requeue") == [["scontrol", "requeue", "7"]]
