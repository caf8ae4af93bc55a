"""Of somebody else's run the checkpoint is judged; what its spec says of a cluster is not done in the caller's name."""

import os

import pytest

from launcher.compose import evaluation
from launcher.errors import InputError

THEIRS = ("cluster=generic", "cluster.setup=['touch stolen']", "cluster.python=/theirs", "cluster.account=theirs")


@pytest.fixture
def run(ledgers):
    run = ledgers.create("method=rotnet", "recipe=tiny", *THEIRS)
    ledgers.start(run)
    ledgers.save(run, 10)
    return ledgers.end(run)


@pytest.fixture
def theirs(run):
    if os.geteuid():
        pytest.skip("only root can give a folder to somebody else")
    os.chown(run.path, 65534, 65534)
    return run


def test_ones_own_run_is_judged_where_it_ran(run):
    cluster = evaluation.want(run, ["protocol=knn"]).spec.cluster
    assert (cluster.setup, cluster.python, cluster.account) == (("touch stolen",), "/theirs", "theirs")


@pytest.mark.parametrize("words", [[], ["cluster.partition=mine"], ["cluster.setup=[]", "nodes=1"]])
def test_its_cluster_is_not_the_callers(theirs, words):
    with pytest.raises(InputError, match="belongs to user 65534, not to you; say cluster=NAME"):
        evaluation.want(theirs, ["protocol=knn", *words])


def test_the_callers_own_has_nothing_of_it(theirs):
    cluster = evaluation.want(theirs, ["protocol=knn", "cluster=generic", "cluster.account=mine"]).spec.cluster
    assert (cluster.setup, cluster.python, cluster.account) == ((), None, "mine")
