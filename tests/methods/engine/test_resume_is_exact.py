"""Killed without a word and resumed, a run of any method ends in the state of one that nobody touched, byte for byte.

Every registered method on 1, 2 and 4 ranks, killed once, and three times in one epoch: in `make test-full`. One kill
of each method, on the ranks that its groups ask for, is part of its contract (tests/methods/test_contract.py).
"""

import os
import random
import signal
from pathlib import Path

import pytest

from launcher.run.folder import RunDir
from launcher.spec.registry import names

pytestmark = pytest.mark.slow
CASES = [pytest.param(method, ranks, id=f"{method}-{ranks}") for method in names() for ranks in (1, 2, 4)]


@pytest.mark.parametrize(("method", "ranks"), CASES)
def test_killed_once_and_resumed_is_as_never_interrupted(sslrun, victim, undisturbed, two_epochs, method, ranks):
    whole = sslrun.show(undisturbed(ranks, two_epochs(method, ranks)))
    epoch, draws = whole["steps"] // 2, random.Random(f"{method} {ranks}")
    whom = draws.choice(["launcher", draws.randrange(ranks)]) if ranks > 1 else "launcher"
    run = victim(two_epochs(method, ranks), ranks)
    step = epoch + draws.randrange(1, 4)
    assert 0 < run.killed_after(step, whom=whom) < step  # it is not where it was saved
    assert run.resumed_to_the_end()["state_digest"] == whole["state_digest"]


@pytest.mark.parametrize(("method", "ranks"), CASES)
def test_killed_three_times_in_one_epoch_is_as_never_interrupted(
    sslrun, victim, undisturbed, two_epochs, method, ranks
):
    whole = sslrun.show(undisturbed(ranks, two_epochs(method, ranks)))
    epoch, draws = whole["steps"] // 2, random.Random(f"{method} {ranks}, three times")
    run = victim(two_epochs(method, ranks), ranks)
    # Another checkpoint on; the third life begins there, and gets no further than the second.
    later = epoch + RunDir(Path(whole["path"])).plan()["checkpoint_every"]
    for begin, whom in ((epoch, "launcher"), (later, draws.randrange(ranks)), (later, "launcher")):
        step = begin + draws.randrange(1, 5)
        assert epoch < step < whole["steps"]
        assert 0 < run.killed_after(step, whom=whom) < step
    assert run.resumed_to_the_end()["state_digest"] == whole["state_digest"]


def test_with_two_threads_it_is_as_never_interrupted(sslrun, watched, small):
    """The number of threads is part of what exactness is promised for: it must be the same in every life."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core has one thread")
    two, launch = sslrun.where(SSLRUN_THREADS="2"), (*small("swav"), "tasks_per_node=1")
    whole = two.show(two(*launch, f"runs={watched.runs.parent / 'whole'}", "--json").json["path"])
    stopped = two.signalling(number=signal.SIGINT, after=6)(*launch, f"runs={watched.runs}", code=130)
    assert stopped.code == 130
    two("resume", watched.path)
    assert two.show(watched.path)["state_digest"] == whole["state_digest"]
