"""Slurm signals steps, and a stop that comes while no rank lives reaches nobody: so the first process of a job asks,
and tells ranks that begin later."""

import itertools
import signal
import threading

import pytest
from recorded import Refused

from launcher.start import told as telling
from launcher.start.job import standing
from launcher.start.told import Told


@pytest.fixture
def told(job, monkeypatch) -> Told:
    monkeypatch.setattr(telling, "ASK_SECONDS", 0.001)
    monkeypatch.setattr(telling, "PASS_ON_SECONDS", 0.001)
    told = Told()
    told.warning_s = 60.0
    return told


class Step:
    """srun, which ends after it was looked at so many times."""

    def __init__(self, looks: int):
        self.left, self.heard = looks, []

    def poll(self) -> int | None:
        self.left -= 1
        return None if self.left >= 0 else 0

    def send_signal(self, number: int) -> None:
        self.heard.append(number)


@pytest.fixture
def alive(monkeypatch):
    """`alive(0, 2)`: so many ranks live, at one look after the other; the last number stays."""

    def script(*counts: int) -> None:
        left = itertools.chain(counts, itertools.repeat(counts[-1]))
        monkeypatch.setattr(telling.heartbeats, "alive", lambda *_: next(left))

    return script


def asked(job) -> int:
    return len(job.slurm.commands("scontrol show job"))


def test_slurm_is_asked_until_the_ranks_have_begun_and_once_more(told, job, alive):
    alive(0, 1, 2)
    told.pass_on(Step(looks=20), None, 1, ranks=2)
    assert (asked(job), told.signal) == (3, None)


@pytest.mark.parametrize(("used", "asks"), [("00:30:00", 1), ("00:58:30", 10)])
def test_near_the_time_limit_it_asks_again(told, job, alive, used, asks):
    """Slurm tells of it once, and it may have been before the ranks had begun."""
    job.is_now(used=used)
    told.ask(standing())
    known = asked(job)
    alive(2)
    told.pass_on(Step(looks=10), None, 1, ranks=2)
    assert (asked(job) - known, told.signal) == (asks, None)


@pytest.mark.parametrize(
    ("says", "signal"),
    [
        ({}, None),
        ({"preempted": "2026-11-30T02:00:41"}, "SIGTERM"),
        ({"used": "00:59:01"}, "SIGUSR2"),
        ({"used": "00:58:59"}, None),
        ({"limit": "UNLIMITED", "used": "9-00:00:00"}, None),
    ],
)
def test_what_slurm_says_of_the_job_is_what_it_would_have_told_ranks(told, job, says, signal):
    job.is_now(**says)
    told.ask(standing())
    assert told.signal == signal


def test_where_nobody_answers_nothing_was_told(told, job):
    job.slurm.says("scontrol show job", Refused("slurm_load_jobs error: Unable to contact slurm controller\n"))
    told.ask(standing())
    assert told.signal is None


def test_ranks_that_begin_after_a_preemption_are_told_until_all_have_begun_and_once_more(told, job, alive):
    job.is_now(preempted="2026-11-30T02:00:41")
    alive(0, 0, 0, 1, 2)
    step = Step(looks=20)
    told.pass_on(step, None, 1, ranks=2)
    assert told.signal == "SIGTERM" and step.heard == [signal.SIGUSR2] * 4


def test_ranks_that_had_all_begun_are_told_once(told, alive):
    """Slurm told those that it knew of, which may have been none."""
    signal.raise_signal(signal.SIGTERM)
    alive(2)
    step = Step(looks=20)
    told.pass_on(step, None, 1, ranks=2)
    assert step.heard == [signal.SIGUSR2]


def test_the_first_signal_is_why(told):
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.raise_signal(number)
    assert told.signal == "SIGUSR2"


@pytest.mark.parametrize("before", [True, False])
def test_it_ends_with_its_step(told, alive, before):
    alive(0)
    if before:
        signal.raise_signal(signal.SIGTERM)
    thread = threading.Thread(target=told.pass_on, args=(Step(looks=3), None, 1, 2), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
