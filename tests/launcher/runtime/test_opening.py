"""Where the time of a start went is in its ledger once the first step is done, part by part."""

import signal
from types import SimpleNamespace

from launcher.runtime import opening

PARTS = ["torch", "meeting", "imports", "data", "networks", "restoring", "step"]


def test_parts_follow_one_another_and_one_may_come_twice(monkeypatch):
    now = iter((10.0, 10.5, 12.0, 15.0))
    monkeypatch.setattr(opening, "time", SimpleNamespace(monotonic=lambda: next(now)))
    found = opening.Opening()
    for part in ("imports", "data", "imports"):
        found.passed(part)
    assert found.seconds == {"imports": 3.5, "data": 1.5}


def test_each_start_of_a_run_says_it_once(sslrun, signalled, watched):
    run = ("method=rotnet", "recipe=tiny", "method.epochs=2", "tasks_per_node=2", f"runs={watched.runs}")
    signalled(*run, number=signal.SIGTERM, after=4)
    sslrun(*run)
    told = watched.events("first_step")
    (restored,) = watched.events("restored")
    assert [(each["generation"], each["step"]) for each in told] == [(1, 1), (2, restored["step"] + 1)]
    assert all(list(each["seconds"]) == PARTS for each in told)
