"""`resume` with what would make another run of it is refused, done or not; a place that is not needed is said."""

import pytest

REFUSED = {
    "method.epochs=4": ("method.epochs=4", "stays as it was made", "`sslrun method=deepercluster recipe=tiny "),
    "method.epochs=20": ("method.epochs=20", "to train it longer", "continue_from=deepercluster-tiny-"),
    "method.lr=9": ("method.lr=9", "stays as it was made", "method.epochs=10 runs=", " method.lr=9`"),
    "seed=7": ("seed=7", "stays as it was made", "as a run of its own", "seed=7"),
    "method.workers=3": ("method.workers=3", "stays as it was made; leave it out"),
    "eval_after=knn": ("eval_after=knn", "`sslrun eval deepercluster-tiny-"),
    "data=cifar10": ("data=cifar10", "start another run"),
    "nonsense.x=1": ("nonsense.x=1", "there is no such key", "cluster, data"),
    "nonsense=1": ("nonsense=1", "there is no such key", "did you mean nodes?"),
    "method.epoch=4": ("method.epoch=4", "did you mean method.epochs?"),
    "garbage": ("garbage", "not an override"),
    "nodes=0": ("nodes=0", "give a positive number"),
}


@pytest.mark.parametrize("word", REFUSED)
def test_of_a_run_that_is_done(sslrun, one_line, undisturbed, word):
    line = one_line(sslrun("resume", undisturbed(), word, code=2))
    assert all(part in line for part in REFUSED[word]), line


def test_of_a_run_that_is_not(sslrun, one_line, copied):
    line = one_line(sslrun("resume", copied, "method.epochs=4", code=2))
    assert all(part in line for part in REFUSED["method.epochs=4"]), line


def test_a_place_is_not_needed_any_more(sslrun, undisturbed):
    answer = sslrun("resume", undisturbed(), "tasks_per_node=2", "--code=current", "--json")
    assert answer.json["state"] == "done"
    assert f"tasks_per_node=2 --code=current: left aside, since {undisturbed().name} is done" in answer.err
