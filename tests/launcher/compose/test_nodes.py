"""`nodes=4-8` is a range, `nodes=8` one count, and whatever else is typed is one line."""

import json

import pytest

from launcher.compose import training
from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.spec.runspec import checksum
from launcher.spec.stored import read as read_spec

SWAV = ("method=swav", "cluster=generic")


def spec_of(*overrides):
    return resolve([*SWAV, *overrides], planning=True)[0]


def stored(spec):
    return json.loads(json.dumps(spec.to_json()))


@pytest.mark.parametrize(("typed", "most", "least"), [("8", 8, None), ("4-8", 8, 4), ("4-4", 4, None)])
def test_what_is_typed_is_the_largest_count_and_the_smallest_of_a_range(typed, most, least):
    spec = spec_of(f"nodes={typed}")
    assert (spec.nodes, spec.least_nodes) == (most, least)
    assert spec_of(f"nodes={spec.asked_nodes}").differences(spec) == []


@pytest.mark.parametrize(
    ("typed", "said"),
    {
        "8-4": "use nodes=4-8", "0-3": "use nodes=1-3", "0": "give a positive number", "a-b": "such as 8, or 4-8",
        "4-": "such as 8, or 4-8", "4--8": "such as 8, or 4-8", "2.5": "such as 8, or 4-8", "null": "nodes=null",
        "1-99999": "at most 65536", "4-99999999999999999999": "at most 65536", f"{10**30}-4": "at most 65536",
    }.items(),
)  # fmt: skip
def test_what_is_no_range_is_refused_with_what_would_be_one(typed, said):
    with pytest.raises(InputError, match=r"^nodes=") as refused:
        spec_of(f"nodes={typed}")
    assert said in str(refused.value)


def test_spares_are_nodes_of_which_no_cluster_has_more():
    assert spec_of("nodes=65535", "cluster.spare_nodes=1").cluster.spare_nodes == 1
    with pytest.raises(InputError, match=r"^cluster.spare_nodes=2: .* use at most 1$"):
        spec_of("nodes=4-65535", "cluster.spare_nodes=2")


@pytest.mark.parametrize("words", [["nodes=4-8"], ["cluster.spare_nodes=1"]])
def test_one_machine_has_no_others(words):
    with pytest.raises(InputError, match="this one machine"):
        resolve(["method=swav", "recipe=demo", *words])


def test_where_it_runs_is_not_what_it_is():
    spec, ranged = spec_of("nodes=8"), spec_of("nodes=4-8", "cluster.spare_nodes=1")
    assert ranged.identity == spec.identity
    assert set(ranged.moves(spec)) == {"nodes: 4-8 -> 8", "cluster.spare_nodes: 1 -> 0"}
    assert set(spec.moves(ranged)) == {"nodes: 8 -> 4-8", "cluster.spare_nodes: 0 -> 1"}
    assert ranged.on(5).moves(ranged) == ["nodes: 5 -> 4-8"]


def test_json_and_back_is_the_same_range():
    ranged = spec_of("nodes=4-8", "cluster.spare_nodes=1")
    back = read_spec(stored(ranged))
    assert (back.asked_nodes, back.cluster.spare_nodes, back.differences(ranged)) == ("4-8", 1, [])
    placed = spec_of("nodes=2").placed(json.loads(json.dumps(ranged.placement({"steps": 1, "signal_delay_s": 1}))))
    assert (placed.asked_nodes, placed.cluster.spare_nodes) == ("4-8", 1)


def test_code_of_before_can_read_what_asks_for_neither():
    """It would refuse a field of clusters that it does not know; and files of before read as they always did."""
    for file in (stored(spec_of("nodes=8")), spec_of("nodes=8").placement({"steps": 1, "signal_delay_s": 1})):
        assert "least_nodes" not in file and "spare_nodes" not in file["cluster"]
    assert stored(read_spec(stored(spec_of("nodes=8")))) == stored(spec_of("nodes=8"))


def test_moved_it_keeps_what_is_not_said_and_its_evaluations_have_no_spare():
    ranged = spec_of("nodes=4-8", "cluster.spare_nodes=1")
    assert training.placed(ranged, ["cluster.timeout_min=60"]).moves(ranged) == ["cluster.timeout_min: 60 -> 1440"]
    assert training.placed(ranged, ["nodes=2-3"]).moves(ranged) == ["nodes: 2-3 -> 4-8"]
    judged = training.for_evaluation(ranged, [])
    assert (judged.asked_nodes, judged.cluster.spare_nodes) == ("1", 0)
    judged = training.for_evaluation(ranged, ["nodes=1-2", "cluster.spare_nodes=1"])
    assert (judged.asked_nodes, judged.cluster.spare_nodes) == ("1-2", 1)


@pytest.mark.parametrize("least", [0, 8, 9, "4", True])
def test_a_range_that_somebody_wrote_by_hand_is_looked_at(least):
    edited = {**stored(spec_of("nodes=4-8")), "least_nodes": least}
    edited["checksum"] = checksum({key: part for key, part in edited.items() if key != "checksum"})
    with pytest.raises(ValueError, match=r"range|type"):
        read_spec(edited)
