"""Which of a job's nodes a start takes, which wait in reserve, and which are given back."""

import pytest

from launcher.errors import NotStarted
from launcher.start.allocation import Allocation
from launcher.start.job import standing


@pytest.fixture
def granted(job):
    """`granted("n[1-4]")`: the nodes of a job whose batch script is on `first`."""

    def grant(nodes: str, first: str = "n1") -> Allocation:
        job.began_on(nodes, first)
        return Allocation()

    return grant


def test_the_first_start_takes_what_it_needs_and_the_spares_are_kept(granted):
    nodes = granted("n[1-4]")
    assert nodes.take([3]) == ["n1", "n2", "n3"]
    assert nodes.to_keep(spares=1) == ["n1", "n2", "n3", "n4"]


def test_a_later_start_keeps_its_nodes_and_takes_the_spare(granted):
    nodes = granted("n[1-4]")
    nodes.take([3])
    nodes.left_out["n2"] = "is lost"
    assert nodes.take([3]) == ["n1", "n3", "n4"]
    assert nodes.take([3]) == ["n1", "n3", "n4"]


def test_it_keeps_them_where_one_in_reserve_comes_before_them(granted):
    nodes = granted("n[1-4]")
    nodes.left_out["n1"] = "does not see the run"
    assert nodes.take([2]) == ["n2", "n3"]
    del nodes.left_out["n1"]
    assert nodes.take([2]) == ["n2", "n3"]


@pytest.mark.parametrize(
    ("nodes", "taken", "kept"),
    [("n[1-9]", 8, 9), ("n[1-8]", 8, 8), ("n[1-7]", 4, 5), ("n[1-5]", 4, 5), ("n[1-4]", 4, 4)],
)
def test_of_a_range_the_largest_count_is_taken_and_what_remains_are_the_spares(granted, nodes, taken, kept):
    granted = granted(nodes)
    assert len(granted.take([8, 4])) == taken
    assert len(granted.to_keep(spares=1)) == kept


def test_a_node_less_is_the_next_count_and_no_start_takes_more_than_the_one_before(granted):
    nodes = granted("n[1-8]")
    nodes.take([8, 4])
    nodes.left_out["n3"] = "is lost"
    assert nodes.take([8, 4]) == ["n1", "n2", "n4", "n5"]
    nodes.left_out.clear()  # what has been given back by then
    assert nodes.take([8, 4]) == ["n1", "n2", "n4", "n5"]


def test_where_they_are_too_few_it_is_said_which_are_left_out_and_why(granted):
    nodes = granted("n[1-3]")
    nodes.left_out |= {"n2": "is lost", "n3": "has no python"}
    with pytest.raises(NotStarted, match=r"^1 of the job's nodes are left, and the run takes 2: n2 is lost; n3 has no"):
        nodes.take([4, 2])
    with pytest.raises(NotStarted, match=r"^1 of the job's nodes are left, and the run takes 2$"):
        granted("n7", first="n7").take([2])


def test_the_first_node_is_never_given_back(granted):
    nodes = granted("n[1-5]")
    nodes.left_out["n1"] = "has no python"
    assert nodes.take([2]) == ["n2", "n3"]
    assert nodes.to_keep(spares=1) == ["n1", "n2", "n3", "n4"]


def test_nodes_that_are_left_out_are_given_back_with_others_and_not_counted_as_spares(granted):
    nodes = granted("n[1-5]")
    nodes.left_out["n4"] = "has no python"
    nodes.take([3])
    assert nodes.to_keep(spares=1) == ["n1", "n2", "n3", "n4", "n5"]
    assert nodes.to_keep(spares=0) == ["n1", "n2", "n3"]


def test_slurms_word_for_the_nodes_is_taken_where_it_has_one(granted, job):
    nodes = granted("n[1-3]")
    nodes.ask(None)
    assert nodes.names == ["n1", "n2", "n3"]
    job.is_now("n[1,3]")
    nodes.ask(standing())
    assert nodes.names == ["n1", "n3"]
    job.is_now("(null)")
    nodes.ask(standing())
    assert nodes.names == ["n1", "n3"]


def test_they_are_shown_as_slurm_writes_them_where_they_are_all(granted):
    nodes = granted("n[1-3]")
    assert nodes.shown(["n1", "n2", "n3"]) == "n[1-3]" and nodes.shown(["n1", "n3"]) == "n1,n3"
