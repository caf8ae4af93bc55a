"""A run of this machine, started by a launcher; no rank is started: a program that ends at once stands in."""

import os
import signal
import subprocess
import sys
from unittest.mock import Mock

import pytest

from launcher.run.files import NotOurs
from launcher.run.ledger import Ledger
from launcher.start import local

pytestmark = pytest.mark.fault


@pytest.fixture
def starts(runs, monkeypatch):
    """`starts(run, before)`: how the run ended, whose only rank says that it finished; `before` that it ended, ...
    `starts.told`: its environment."""
    popen = subprocess.Popen

    def start(run, before=lambda: None, says=""):
        def rank(_, **more):
            start.told = more["env"]
            Ledger(run.path, 1, "rank0").write("finished", seconds={})
            before()
            return popen([sys.executable, "-c", f"print({says!r})"], stdout=more["stdout"])

        monkeypatch.setattr(local.subprocess, "Popen", rank)
        return local.run(run, run.spec(), cause="submitted", watch=Mock())

    return start


def test_ranks_of_one_machine_meet_on_its_loopback(runs, starts, monkeypatch):
    """Whatever the shell says, which may be for a cluster's nodes."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib9")
    starts(runs.make())
    assert starts.told["GLOO_SOCKET_IFNAME"] == "lo"


def test_how_it_ended_is_told_once_the_ledger_can_be_read(runs, starts, away):
    run = runs.make()
    assert starts(run, lambda: away(run.path / "events", times=2)).state == "done"
    assert run.history().last("end")["state"] == "done"


def test_a_ledger_that_stays_away_is_said_and_the_end_is_written(runs, starts, away, monkeypatch):
    run = runs.make()
    judge = local._judge

    def unread(*all):
        away(run.path / "events")
        try:
            return judge(*all)
        finally:
            away(None)

    monkeypatch.setattr(local, "_judge", unread)
    assert (outcome := starts(run)).cause == "unreadable" and "events cannot be read on " in outcome.message
    assert run.history().last("end")["cause"] == "unreadable" and outcome.exit_code == 4


def test_which_start_it_is_is_waited_for(runs, starts, away, monkeypatch):
    run = runs.make()
    lock = local.RunDir.lock
    monkeypatch.setattr(local.RunDir, "lock", lambda run: (lock(run), away(run.path / "events", times=2))[0])
    assert starts(run).state == "done"


def test_whatever_is_raised_the_run_can_be_locked_again(runs, starts):
    run = runs.make()

    def broken():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        starts(run, broken)
    os.close(run.lock())


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_what_a_rank_says_goes_into_a_plain_file_alone(runs, starts, tmp_path, kind):
    run = runs.make()
    log, elsewhere = run.path / "logs" / "rank0.log", tmp_path / "elsewhere"
    elsewhere.write_text("theirs")
    if kind == "link":
        log.symlink_to(elsewhere)
    else:
        os.mkfifo(log)
        reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)  # without one, whoever opens it to write would wait
    with pytest.raises(NotOurs, match=r"logs/rank0\.log: it is not a plain file"):
        starts(run)
    assert elsewhere.read_text() == "theirs" and not run.generation()
    if kind == "fifo":
        os.close(reader)


def test_what_a_rank_says_goes_behind_what_was_said_before(runs, starts):
    run = runs.make()
    (run.path / "logs" / "rank0.log").write_text("before\n")
    assert starts(run, says="after").state == "done"
    assert (run.path / "logs" / "rank0.log").read_text() == "before\nafter\n"


def test_who_asks_twice_is_told_that_it_was_killed_as_asked(runs, starts):
    run = runs.make()

    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    assert starts(run, twice).message == "killed as asked; nothing was saved yet"
    assert run.history().last("end")["cause"] == "killed"
