"""How a start on Slurm is understood to have ended: by its ranks' words, its job's log, and Slurm's word for it."""

from types import SimpleNamespace

import pytest

from launcher.run.ledger import Ledger
from launcher.slurm import badnodes
from launcher.start import evidence
from launcher.start.ending import Outcome
from launcher.start.job import standing

STOPPED = Outcome("stopped", "stopped", "stopped at a safe point, state saved", 130)
KILLED = Outcome("failed", "killed", "rank 1 on n2: Killed", 4)
INPUT = Outcome("failed", "input", "said", 2)
PREEMPTED = "slurmstepd-n1: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-28T18:27:55 DUE TO PREEMPTION ***\n"
LOST = "srun: error: Node failure on n2\n"


@pytest.fixture
def run(runs, job):
    """One that job 7 has started for the second time; the first ended in place."""
    run = runs.make()
    (run.path / "submit").mkdir()
    Ledger(run.path, 1, "submit").write("submitted", job="7", token="a", folder=str(run.path / "submit"))
    Ledger(run.path, 1, "batch").write("start", cause="submitted", job="7", nodes="n[1-2]", world_size=2)
    Ledger(run.path, 1, "batch").write("end", state="preempted", cause="killed", message="", in_place=True)
    Ledger(run.path, 2, "batch").write("start", cause="killed", job="7", nodes="n[1-2]", world_size=2)
    return run


@pytest.fixture
def understood(run):
    """`understood(outcome, signal, first=..., second=...)`: the cause and the message, where the job's log says this of
    its two starts."""

    def understand(outcome, signal=None, *, first: str = "", second: str = "", found=standing) -> tuple[str, str]:
        (run.path / "submit" / "slurm-7.log").write_text(f"== start 1\n{first}== start 2\n{second}")
        told = SimpleNamespace(signal=signal, began=0.0)
        how = evidence.understood(run, 2, outcome, found(), told)
        return how.cause, how.message

    return understand


def test_what_the_log_says_of_an_earlier_start_in_the_same_job_is_over(understood):
    assert understood(KILLED, first=LOST) == ("killed", "rank 1 on n2: Killed")
    assert understood(KILLED, second=PREEMPTED) == ("preempted", "preempted; rank 1 on n2: Killed")


@pytest.mark.parametrize(
    ("outcome", "cause"), [(STOPPED, "preempted"), (KILLED, "preempted"), (INPUT, "input"), (evidence.NOT_BEGUN, None)]
)
def test_that_others_want_the_nodes_is_why_ranks_ended_unless_they_said_better(job, understood, outcome, cause):
    job.is_now(preempted="2026-11-30T02:00:41")
    assert understood(outcome, "SIGTERM")[0] == (cause or "preempted")


def test_nodes_that_slurm_knows_to_be_down_are_blamed(job, runs, understood):
    job.slurm.cluster("n1|4|16384|(null)|mixed|main|none\nn2|4|16384|(null)|down|main|lost\n")
    assert understood(KILLED, second=LOST)[0] == "node_failure"
    assert list(badnodes.listed(runs.folder)) == ["n2"]


@pytest.mark.parametrize(
    ("signal", "left", "cause"),
    [
        ("SIGUSR2", {"used": "00:57:01"}, "time_limit"),  # of 60 minutes; told 60 s before, and up to 60 s early
        ("SIGUSR2", {"used": "00:56:59"}, "asked"),
        ("SIGTERM", {"used": "00:57:01"}, "asked"),
        ("SIGUSR2", {"limit": "UNLIMITED"}, "time_limit"),  # then the plan's own limit stands, which is over
    ],
)
def test_the_warning_before_the_limit_is_one_where_slurm_says_that_it_is_near(job, understood, signal, left, cause):
    job.is_now(**left)
    assert understood(STOPPED, signal)[0] == cause


def test_what_was_saved_is_said(run, understood):
    assert understood(STOPPED, "SIGTERM") == ("asked", "told to stop by SIGTERM, state saved")
    assert understood(evidence.NOT_BEGUN, "SIGTERM") == ("asked", "told to stop by SIGTERM; no rank had begun")
    Ledger(run.path, 2, "rank0").write("stopped_at_safe_point", signal="SIGUSR2")
    Ledger(run.path, 2, "rank0").write("save_skipped")
    assert understood(STOPPED, None) == ("asked", "told to stop by SIGUSR2, no time to save")


def test_an_end_that_nobody_wrote_down_is_written_by_the_start_after_it(run, job):
    (run.path / "submit" / "slurm-7.log").write_text(f"== start 1\n{LOST}== start 2\n{PREEMPTED}")
    assert evidence.how_it_ended_before(run) == "preempted"
    end = run.history().of(2).last("end")
    assert (end["writer"], end["cause"], end["requeued"]) == ("afterwards", "preempted", True)
    assert evidence.how_it_ended_before(run) == "preempted" and len(run.history().of(2).all("end")) == 1
