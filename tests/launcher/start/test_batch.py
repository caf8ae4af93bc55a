"""The batch script of a run: a start that nobody decided, and one that somebody asked for.

A stand-in for Slurm says what it is asked, and nothing is started: tests/slurm has real jobs.
"""

import signal
import sys

import pytest

from launcher.run.ledger import Ledger
from launcher.start import batch
from launcher.start.ending import Outcome

DONE = Outcome("done", "done", "", 0)


@pytest.fixture
def job(monkeypatch, slurm_said):
    """This process is in job 7, as the batch script of a run; what it changes of itself is put back afterwards."""
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, getattr(sys, stream))
    for name, value in {"JOB_ID": "7", "JOB_NODELIST": "n1", "JOB_NUM_NODES": "1", "NTASKS_PER_NODE": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    slurm_said.says("scontrol requeue", "")
    slurm_said.says("scontrol show job", "")
    slurm_said.says("scontrol show hostnames", "n1\n")
    before = {number: signal.getsignal(number) for number in (signal.SIGCONT, signal.SIGTERM, signal.SIGUSR2)}
    yield slurm_said
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def killed(runs):
    """A run that was killed three times and got on each time; the fourth time nobody was left to write it down."""
    run = runs.make()
    for generation in range(1, 5):
        pen = Ledger(run.path, generation, "batch")
        pen.write("start", cause="killed", job="7", nodes="n1", world_size=1)
        pen.write("checkpoint", step=10 * generation, path=f"step_{10 * generation:08d}")
        if generation < 4:
            pen.write("end", state="preempted", cause="killed", message="", requeued=True)
    return run


def test_a_run_whose_budget_is_spent_is_not_started_although_slurm_began_to(killed, job, monkeypatch, capsys):
    monkeypatch.setattr(batch, "_work", lambda *_: pytest.fail("its ranks were started"))
    with pytest.raises(SystemExit) as ended:
        batch.main(str(killed.path))
    end = killed.history().last("end")
    message = "ended without a word: killed (end 4 of this kind: killed; 3 are forgiven)"
    assert (end["state"], end["cause"], end["message"]) == ("failed", "killed", message)
    assert ended.value.code == 4 and not end["requeued"] and message in capsys.readouterr().out
    assert not job.commands("scontrol requeue")


def test_it_is_started_where_a_person_asked_for_that(killed, job, monkeypatch):
    Ledger(killed.path, 5, "submit").write("submitted", job="7", token="a", folder=str(killed.path / "submit"))
    monkeypatch.setattr(batch, "_work", lambda *_: DONE)
    with pytest.raises(SystemExit) as ended:
        batch.main(str(killed.path))
    assert ended.value.code == 0 and killed.history().last("end")["state"] == "done"


@pytest.fixture
def ended_as(job, monkeypatch):
    """`ended_as(run)`: (state, cause, whether it was requeued) of one more start."""
    monkeypatch.setattr(batch, "_requeue", lambda *_: None)

    def end(run) -> tuple[str, str, bool]:
        with pytest.raises(SystemExit):
            batch.main(str(run.path))
        end = run.history().last("end")
        return end["state"], end["cause"], end["requeued"]

    return end


def test_a_job_whose_log_finds_no_room_ends_as_it_would(runs, ended_as, monkeypatch):
    run = runs.make()
    monkeypatch.setattr(batch, "_work", lambda *_: DONE)
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert ended_as(run) == ("done", "done", False)
