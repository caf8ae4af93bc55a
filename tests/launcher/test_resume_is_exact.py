"""Killed without a word and resumed, a run of any method ends in the state of one that nobody touched, byte for byte.

Every registered method on 1, 2 and 4 ranks. Three kills in one epoch on 1 and 4 ranks run in `make test-full` only.
"""

import json
import os
import random
import signal

import pytest

from launcher.registry import names

EPOCHS, EVERY = 2, 12  # epochs; steps between two checkpoints, of which an epoch holds several
RANKS = (1, 2, 4)
slow = pytest.mark.slow


def overrides(method: str) -> tuple[str, ...]:
    """Small batches: epochs of 38 steps, so that three kills find room in one. Whatever a method does between epochs
    lies in the middle. Each step is logged, or nobody could tell from outside where the run is."""
    batch, saves = "method.global_batch=8", f"method.checkpoint_every={EVERY}"
    return f"method={method}", "recipe=tiny", f"method.epochs={EPOCHS}", batch, saves, "method.log_every=1"


class Victim:
    """One run that is killed again and again, and resumed."""

    def __init__(self, sslrun, watched, until, method: str, ranks: int):
        self.sslrun, self.watched, self.until, self.ranks = sslrun, watched, until, ranks
        self.launch = (*overrides(method), f"tasks_per_node={ranks}", f"runs={watched.runs}")
        self.random = random.Random(f"{method} {ranks}")  # seeded: which steps, and who is killed
        self.lost = self.lives = 0

    def logged(self) -> int:
        """The newest step of any life."""
        return max((row["step"] for row in self._rows()), default=0)

    def _rows(self) -> list[dict]:
        file = next(iter(self.watched.runs.glob("*/metrics.jsonl")), None)
        lines = file.read_text().splitlines(keepends=True) if file else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def killed_after(self, step: int, *, whom: str) -> tuple[int, int]:
        """(the last step of this life, the step of the checkpoint that stands), after a life that began at either the
        first step or that checkpoint and was killed as soon as it had done `step`."""
        before = len(self._rows())
        launcher = self.sslrun.start(*(("resume", self.watched.path) if self.lives else self.launch))
        self.lives += 1

        def reached() -> bool:
            assert launcher.poll() is None, f"it ended before step {step}: {launcher.communicate()}"
            return any(row["step"] >= step for row in self._rows()[before:])

        self.until(reached, seconds=300, poll=0.002)
        members = self.watched.processes()
        assert len(members) == self.ranks
        os.kill(launcher.pid if whom == "launcher" else self.random.choice(members), signal.SIGKILL)
        ended = self.sslrun.finish(launcher, timeout=120)
        assert self.watched.gone(seconds=60)
        if whom == "rank":  # the launcher lived to tell: of the death, not of what the other ranks met because of it
            assert ended.code == 4
            assert "killed by SIGKILL" in ended.complaint
        dead = self.sslrun.show(self.watched.path)
        assert dead["state"] == "failed"
        self.lost += max(0, self.watched.step() - dead["step"])
        return max(row["step"] for row in self._rows()[before:]), dead["step"]

    def resumed_to_the_end(self) -> dict:
        self.sslrun("resume", self.watched.path, timeout=600)
        done = self.sslrun.show(self.watched.path)
        assert done["state"] == "done"
        assert done["step"] == done["steps"]
        assert done["restarts"] == {"killed": self.lives}
        assert done["lost_steps"] == self.lost
        return done


@pytest.fixture
def victim(sslrun, watched, until):
    return lambda method, ranks: Victim(sslrun, watched, until, method, ranks)


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("method", names())
def test_killed_once_and_resumed_is_as_never_interrupted(sslrun, victim, undisturbed, method, ranks):
    whole = sslrun.show(undisturbed(ranks, overrides(method)))
    epoch = whole["steps"] // EPOCHS
    run = victim(method, ranks)
    whom = run.random.choice(["launcher", "rank"]) if ranks > 1 else "launcher"
    reached, stands = run.killed_after(epoch + run.random.randrange(1, 4), whom=whom)
    assert reached > epoch  # the second epoch had begun
    assert 0 < stands < reached  # and this is not where it was saved
    done = run.resumed_to_the_end()
    assert done["state_digest"] == whole["state_digest"]


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=slow), 2, pytest.param(4, marks=slow)])
@pytest.mark.parametrize("method", names())
def test_killed_three_times_in_one_epoch_is_as_never_interrupted(sslrun, victim, undisturbed, method, ranks):
    whole = sslrun.show(undisturbed(ranks, overrides(method)))
    epoch = whole["steps"] // EPOCHS
    run = victim(method, ranks)
    stands = epoch  # kills come a few steps into the second epoch, and then after each checkpoint that stood
    for whom in ("launcher", "rank", "launcher"):
        reached, stands = run.killed_after(stands + run.random.randrange(1, 5), whom=whom)
        assert epoch < reached < whole["steps"]
        assert 0 < stands < reached
    done = run.resumed_to_the_end()
    assert done["state_digest"] == whole["state_digest"]
