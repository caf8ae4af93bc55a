"""Ranks tell one another JSON and rows of tensors. What comes from another process is data, and is never executed."""

import math
import pickle
from pathlib import Path

import pytest
import torch

from launcher.runtime import dist
from launcher.runtime.dist import World

SAID = {"a": [1, 2.5, None, True], "far": math.inf, "path": "a\udcff/ü\n", "empty": {}, "exact": 0.1 + 0.2}


class Planted:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def told(world):
    """What this rank hears."""
    rows = torch.arange(float(world.rank)).repeat(2, 1).T + 10 * world.rank  # rank 0 has none
    mine = torch.full((2, 3), float(world.rank)).T  # not contiguous
    world.overwrite(mine)
    collected = world.collect(rows)
    parts = [torch.full((to + world.rank,), 10 * world.rank + to) for to in range(world.size)]
    return {
        "broadcast": world.broadcast(SAID if world.is_main else None),
        "gather": world.gather((world.rank, "x" * 1000 * world.rank)),
        "nothing": world.gather(None),
        "overwritten": mine.tolist(),
        "collected": None if collected is None else collected.tolist(),
        "exchanged": world.exchange(parts).tolist(),
    }


@pytest.fixture(scope="module")
def three(ranks):
    return ranks(3, told)


def test_all_hear_the_same_of_rank_0_and_of_each(three):
    for rank, heard in enumerate(three):
        assert heard["broadcast"] == SAID
        assert heard["gather"] == [[0, ""], [1, "x" * 1000], [2, "x" * 2000]]
        assert heard["nothing"] == [None] * 3
        assert heard["overwritten"] == [[0.0, 0.0]] * 3
        assert heard["exchanged"] == [10 * sender + rank for sender in range(3) for _ in range(sender + rank)]
    assert [heard["collected"] for heard in three] == [[[10.0] * 2, [20.0] * 2, [21.0] * 2], None, None]


def test_a_rank_by_itself_hears_what_several_would():
    world = World(0, 1, torch.device("cpu"))
    assert world.broadcast((1, {2: "a"})) == [1, {"2": "a"}]
    assert world.gather((1, {2: "a"})) == [[1, {"2": "a"}]]


@pytest.mark.parametrize("value", [{1}, Path("a"), torch.ones(1)])
def test_what_json_has_no_words_for_is_no_message(value):
    world = World(0, 1, torch.device("cpu"))
    for tell in (world.broadcast, world.gather):
        with pytest.raises(TypeError):
            tell(value)


def hear_a_pickle(world, path):
    """Rank 0 sends one in place of JSON; what the others make of it."""
    if world.is_main:
        dist._text = lambda value: torch.frombuffer(bytearray(pickle.dumps(Planted(path))), dtype=torch.uint8)
        dist._value = lambda text: None
    said = []
    for tell in (world.broadcast, world.gather):
        try:
            said.append(tell("hello"))
        except ValueError as error:
            said.append(type(error).__name__)
    return said


def test_the_pickle_of_another_rank_is_not_executed(ranks, tmp_path):
    pickle.loads(pickle.dumps(Planted(tmp_path / "can")))
    assert (tmp_path / "can").exists()
    _, heard = ranks(2, hear_a_pickle, tmp_path / "pickled")
    assert heard == ["UnicodeDecodeError"] * 2
    assert not (tmp_path / "pickled").exists()
