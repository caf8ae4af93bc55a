"""Orders of samples that are computed where they are asked for."""

import tracemalloc
from collections import Counter

import numpy as np
import pytest

from methods.data.sampler import Permutation, in_turns, shares, uniform_over_clusters


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 16, 17, 97, 304, 1000, 65_537, 100_003])
def test_every_sample_comes_exactly_once(size):
    for seed in (0, 2**63 - 1):
        assert np.array_equal(np.sort(Permutation(size, seed)(np.arange(size))), np.arange(size))


def test_orders_are_pinned_so_that_old_runs_resume_on_new_code():
    assert Permutation(1000, 7)(np.arange(8)).tolist() == [730, 778, 208, 994, 738, 101, 585, 622]
    labels = np.array([0, 0, 0, 1, 2, 2])
    assert uniform_over_clusters(labels, 8, np.random.default_rng(0)).tolist() == [2, 4, 3, 1, 5, 3, 4, 3]


def test_it_is_a_function_of_the_seed_alone_and_another_seed_gives_another():
    order = Permutation(10_000, 1)
    whole = order(np.arange(10_000))
    assert np.array_equal(Permutation(10_000, 1)(np.arange(10_000)), whole)
    assert np.array_equal(order(np.array([9_999, 3, 3])), whole[[9_999, 3, 3]])
    other = Permutation(10_000, 2)(np.arange(10_000))
    assert (whole == other).mean() < 0.01  # two permutations meet in one place on average


@pytest.mark.parametrize("size", [5, 12, 40])
def test_every_sample_comes_at_every_position_about_equally_often(size):
    """Chi-squared of sample x position over 3000 seeds, within five standard deviations of its mean."""
    seeds = 3000
    counts = np.zeros((size, size))
    for seed in range(seeds):
        counts[np.arange(size), Permutation(size, seed)(np.arange(size))] += 1
    expected, free = seeds / size, (size - 1) ** 2
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_squared - free) < 5 * np.sqrt(2 * free)


def test_neighbours_are_scattered():
    """What follows a sample says nothing of it, though a folder lies class after class."""
    size = 20_000
    order = Permutation(size, 3)(np.arange(size)).astype(float)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 5 / np.sqrt(size)
    assert abs(np.corrcoef(order, np.arange(size))[0, 1]) < 5 / np.sqrt(size)
    assert abs(np.mean(order[:64]) / size - 0.5) < 5 / np.sqrt(12 * 64)


def test_a_hundred_million_images_take_no_memory():
    tracemalloc.start()
    ids = Permutation(10**8, 0)(np.arange(10**8 - 256, 10**8))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(set(ids.tolist())) == 256 and ids.dtype == np.int64 and ids.max() < 10**8
    assert peak < 10**6


def test_a_position_outside_and_an_empty_permutation_are_refused():
    for position in (-1, 10):
        with pytest.raises(IndexError, match="outside 0 to 9"):
            Permutation(10, 0)(np.array([position]))
    with pytest.raises(ValueError, match="size=0: there is nothing to order"):
        Permutation(0, 0)


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 1), (2, 1), (4, 1), (1, 4), (2, 2)])
def test_the_global_batches_do_not_depend_on_the_world(world_size, accumulation):
    order, steps, batch = Permutation(100, 5), 6, 16
    per_rank = batch // world_size // accumulation
    layout = {"world_size": world_size, "accumulation": accumulation, "per_rank": per_rank}
    ranks = [list(shares(order, range(steps), rank=rank, **layout)) for rank in range(world_size)]
    assert all(len(passes) == steps * accumulation for passes in ranks)
    for step in range(steps):
        part = slice(step * accumulation, (step + 1) * accumulation)
        seen = np.concatenate([ids for passes in ranks for ids in passes[part]])
        assert np.array_equal(seen, order(np.arange(step * batch, (step + 1) * batch)))
    late = list(shares(order, range(4, steps), rank=world_size - 1, **layout))  # as after a resume
    assert all(map(np.array_equal, late, ranks[-1][4 * accumulation :]))


def test_in_turns_takes_all_before_any_comes_again():
    drawn = in_turns(7, 17, np.random.default_rng(0))
    assert sorted(drawn[:7]) == sorted(drawn[7:14]) == list(range(7)) and len(set(drawn[14:])) == 3


def test_uniform_over_clusters_gives_every_cluster_as_often():
    labels = np.repeat([2, 5, 9], [1, 40, 3])
    drawn = uniform_over_clusters(labels, 60, np.random.default_rng(0))
    assert Counter(labels[drawn].tolist()) == {2: 20, 5: 20, 9: 20}
    assert Counter(drawn[labels[drawn] == 5].tolist()).most_common(1)[0][1] == 1
