"""Killed without a word and resumed, a run of any method ends in the state of one that nobody touched, byte for byte.

Every registered method on 1, 2 and 4 ranks. Three kills in one epoch run in `make test-full` only, as do four ranks of
methods without groups of ranks.
"""

import json
import os
import random
import signal
from pathlib import Path

import pytest

from launcher.registry import names
from launcher.rundir import RunDir

# Four ranks are no other promise than two where a method has no groups of ranks; they take long.
MINUTES = [(method, 4) for method in names() if method != "deepercluster"]
CASES = [
    pytest.param(method, ranks, marks=pytest.mark.slow if (method, ranks) in MINUTES else (), id=f"{method}-{ranks}")
    for method in names()
    for ranks in (1, 2, 4)
]


class Victim:
    """One run that is killed again and again, and resumed."""

    def __init__(self, sslrun, watched, until, overrides: tuple[str, ...], ranks: int):
        self.sslrun, self.watched, self.until, self.ranks = sslrun, watched, until, ranks
        self.launch = (*overrides, f"tasks_per_node={ranks}", f"runs={watched.runs}")
        self.random = random.Random(f"{overrides[0]} {ranks}")  # seeded: which steps, and who is killed
        self.lost = self.lives = 0

    def killed_after(self, step: int, *, whom: str) -> tuple[int, int]:
        """(the last step of this life, the step of the checkpoint that stands), after a life that began at either the
        first step or that checkpoint and was killed as soon as it had done `step`."""
        before = len(self.watched.rows())
        launcher = self.sslrun.start(*(("resume", self.watched.path) if self.lives else self.launch))
        self.lives += 1

        def reached() -> bool:
            assert launcher.poll() is None, f"it ended before step {step}: {launcher.communicate()}"
            return any(row["step"] >= step for row in self.watched.rows()[before:])

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
        return max(row["step"] for row in self.watched.rows()[before:]), dead["step"]

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
    return lambda overrides, ranks: Victim(sslrun, watched, until, overrides, ranks)


@pytest.mark.parametrize(("method", "ranks"), CASES)
def test_killed_once_and_resumed_is_as_never_interrupted(sslrun, victim, undisturbed, two_epochs, method, ranks):
    whole = sslrun.show(undisturbed(ranks, two_epochs(method, ranks)))
    epoch = whole["steps"] // 2
    run = victim(two_epochs(method, ranks), ranks)
    whom = run.random.choice(["launcher", "rank"]) if ranks > 1 else "launcher"
    reached, stands = run.killed_after(epoch + run.random.randrange(1, 4), whom=whom)
    assert reached > epoch  # the second epoch had begun
    assert 0 < stands < reached  # and this is not where it was saved
    done = run.resumed_to_the_end()
    assert done["state_digest"] == whole["state_digest"]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "ranks"), CASES)
def test_killed_three_times_in_one_epoch_is_as_never_interrupted(
    sslrun, victim, undisturbed, two_epochs, method, ranks
):
    whole = sslrun.show(undisturbed(ranks, two_epochs(method, ranks)))
    epoch = whole["steps"] // 2
    run = victim(two_epochs(method, ranks), ranks)
    # Another checkpoint on; the third life begins there, and gets no further than the second.
    later = epoch + RunDir(Path(whole["path"])).plan()["checkpoint_every"]
    for begin, whom in ((epoch, "launcher"), (later, "rank"), (later, "launcher")):
        reached, stands = run.killed_after(begin + run.random.randrange(1, 5), whom=whom)
        assert epoch < reached < whole["steps"]
        assert 0 < stands < reached
    done = run.resumed_to_the_end()
    assert done["state_digest"] == whole["state_digest"]


@pytest.mark.parametrize("method", names())
def test_two_ranks_have_the_losses_of_one(undisturbed, two_epochs, method):
    """Until rounding, of sums in another order, has grown: the first ten steps."""
    losses = []
    for ranks in (1, 2):
        rows = (undisturbed(ranks, two_epochs(method, ranks)) / "metrics.jsonl").read_text().splitlines()
        losses.append([row["loss"] for row in map(json.loads, rows) if row.get("step", 99) <= 10 and "loss" in row])
    assert len(losses[0]) == 10 and losses[1] == pytest.approx(losses[0], rel=1e-4)
