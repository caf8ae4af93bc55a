"""What one rank was told all ranks know, of the same step: the largest code wins, and is read one vote later."""

import pytest
import torch

from launcher.runtime.dist import Vote, World

# By rank, then by step: nobody, one rank alone, several at once, another one alone.
CODES = [[0, 0, 2, 0, 0, 1], [0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 3, 0]]
LARGEST = [max(codes) for codes in zip(*CODES, strict=True)]


def vote(world, codes):
    """(the outcomes of votes that nobody waits for, those of votes that all wait for) as this rank sees them."""
    mine = codes[world.rank]
    voting = Vote(world)
    read_later = [voting.cast(code) for code in mine]
    read_later.append(voting.settle())
    return read_later, [voting.now(code) for code in mine]


@pytest.fixture(scope="module")
def outcomes(ranks):
    return ranks(3, vote, CODES)


def test_each_rank_reads_the_largest_code_of_a_step_with_the_next_one(outcomes):
    assert [read_later for read_later, _ in outcomes] == [[0, *LARGEST]] * 3


def test_a_vote_that_is_waited_for_tells_at_once(outcomes):
    assert [at_once for _, at_once in outcomes] == [LARGEST] * 3


def test_a_rank_by_itself_hears_itself_as_late():
    world = World(0, 1, torch.device("cpu"))
    assert vote(world, [CODES[0]]) == ([0, *CODES[0]], CODES[0])


@pytest.mark.parametrize("earlier, now", [(0, 0), (0, 1), (2, 1), (2, 0), (1, 3)])
def test_a_vote_that_was_under_way_is_not_lost(earlier, now):
    voting = Vote(World(0, 1, torch.device("cpu")))
    voting.cast(earlier)
    assert voting.now(now) == max(earlier, now)
    assert voting.settle() == 0
