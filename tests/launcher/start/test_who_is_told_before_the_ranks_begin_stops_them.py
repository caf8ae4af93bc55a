"""Slurm tells the steps that there are of a preemption: ranks that begin just afterwards hear of it from the batch
process, also where all of them have begun when it asks for the first time."""

import signal
from types import SimpleNamespace

import pytest

from launcher.slurm.commands import SlurmJob
from launcher.start import told

PREEMPTED = SlurmJob("7", "7", "name", "RUNNING", "", "", "n[1-2]", "10:00", "", "", preempted=True)


@pytest.fixture
def listener(monkeypatch):
    before = {number: signal.getsignal(number) for number in (signal.SIGCONT, signal.SIGTERM, signal.SIGUSR2)}
    monkeypatch.setattr(told, "ASK_SECONDS", 0.01)
    monkeypatch.setattr(told, "PASS_ON_SECONDS", 0.01)
    yield told.Told()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("alive", [[2], [1, 1, 1, 2]])
def test_all_ranks_are_told(listener, monkeypatch, alive):
    """`alive`: how many of two ranks are heard of, at each look."""
    sent = []
    monkeypatch.setattr(told.job, "standing", lambda: PREEMPTED)
    monkeypatch.setattr(told.heartbeats, "alive", lambda *_: alive.pop(0) if len(alive) > 1 else alive[0])
    step = SimpleNamespace(poll=lambda: None, send_signal=sent.append)
    listener.pass_on(step, None, 1, ranks=2)
    assert set(sent) == {signal.SIGUSR2} and listener.signal == "SIGTERM"
