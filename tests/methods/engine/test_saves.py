"""When a periodic save is begun: not once somebody was told to stop, however long the save before was waited for."""

import contextlib
from types import SimpleNamespace

import pytest

from launcher.runtime.preempt import Stopped
from methods.engine.saves import Saves, planned_interval

GO, STOP = 0, 1
PLAN = {
    "checkpoint_every": 300,
    "layouts": [{"world_size": 64, "checkpoint_every": 300}, {"world_size": 32, "checkpoint_every": 200}],
}


class Fake:
    """A job whose ranks are one, its checkpoints and its loss: `told` is when they hear of a stop. No part of it is the
    real thing but Saves; real stops in slow saves are drilled (`no-time-to-save`)."""

    def __init__(self, told: str):
        self.told, self.done, self.outcome = told, [], GO
        self.config, self.seconds = SimpleNamespace(checkpoint_every=4), None
        self.vote = SimpleNamespace(now=lambda verdict: self.outcome)
        self._hear("before")

    def _hear(self, moment: str) -> None:
        self.outcome = STOP if moment == self.told else self.outcome

    def clock(self, what):
        return contextlib.nullcontext()

    def verdict(self, **_):
        return GO

    def decide(self, outcome):
        if outcome == STOP:
            raise Stopped

    def settle(self, *, drop):
        self.done.append("settle")
        self._hear("while the save before is waited for")

    def begin(self, step, steps, *, haste):
        self.done.append("begin")


@pytest.mark.parametrize(
    ("told", "done"),
    [("before", []), ("while the save before is waited for", ["settle"]), ("never", ["settle", "begin"])],
)
def test_none_is_begun_after_a_stop(told, done):
    fake = Fake(told)
    saves = Saves(fake, fake, fake, 100)
    with contextlib.nullcontext() if told == "never" else pytest.raises(Stopped):
        saves.save(4)
    assert fake.done == done


def test_the_world_at_hand_decides_how_often():
    assert [planned_interval(PLAN, size) for size in (64, 32, 16)] == [300, 200, 300]
    assert planned_interval({"checkpoint_every": 7}, 4) == 7  # of a run made before
