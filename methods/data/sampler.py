"""The order in which samples are seen: functions of a seed, computed where they are asked for.

An epoch's permutation of 10^8 images is never in memory, on any rank, and has no state to save: what a rank sees in a
step follows from the seed of the epoch and the number of the step.
"""

from collections.abc import Iterator

import numpy as np

_ROUNDS = 8
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


class Permutation:
    """A permutation of 0 to size - 1 that `seed` chooses; element i costs the same wherever it lies, some 0.5 us.

    A Feistel network whose halves are numbers below a and b instead of bits, a b >= size, with additions modulo a and b
    in turn (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, Section 5); elements that fall
    outside are sent through again until they do not (their Section 4, cycle walking), which few are, since
    a b - size < a. The round function is the finaliser of SplitMix64 (Steele et al., OOPSLA 2014).
    """

    def __init__(self, size: int, seed: int):
        if size < 1:
            raise ValueError(f"size={size}: there is nothing to order; give 1 or more")
        self._size = size
        self._a = int(np.ceil(np.sqrt(size)))
        self._b = -(-size // self._a)
        self._keys = np.random.SeedSequence(seed).generate_state(_ROUNDS, np.uint64)

    def __len__(self) -> int:
        return self._size

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The elements at `positions`, int64 [n], each from 0 to size - 1. Raises IndexError outside."""
        positions = np.asarray(positions, np.int64)
        if len(positions) and not 0 <= positions.min() <= positions.max() < self._size:
            raise IndexError(f"a position outside 0 to {self._size - 1}")
        elements = self._shuffle(positions)
        while (outside := np.flatnonzero(elements >= self._size)).size:
            elements[outside] = self._shuffle(elements[outside])
        return elements

    def _shuffle(self, elements: np.ndarray) -> np.ndarray:
        """A permutation of 0 to a b - 1."""
        here, there = self._a, self._b
        left, right = elements % here, elements // here
        for key in self._keys:
            left, right = right, (left + _below(right, key, here)) % here
            here, there = there, here
        return left + here * right  # after an even number of rounds both are where they began


def _below(values: np.ndarray, key: np.uint64, bound: int) -> np.ndarray:
    """A hash of each value, int64 from 0 to bound - 1."""
    mixed = (values.astype(np.uint64) + key) * _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    mixed ^= mixed >> np.uint64(31)
    return (mixed % np.uint64(bound)).astype(np.int64)


def shares(
    order: Permutation, steps: range, *, rank: int, world_size: int, accumulation: int, per_rank: int
) -> Iterator[np.ndarray]:
    """The sample ids int64 [per_rank] of each pass of a rank in `steps`, `accumulation` of them a step.

    The ranks, and the passes of each, take a step's global batch in turn, so that the same images are together in a
    pass whatever the world is laid out like. Raises IndexError past the end of `order`.
    """
    for step in steps:
        for number in range(accumulation):
            first = ((step * world_size + rank) * accumulation + number) * per_rank
            yield order(np.arange(first, first + per_rank))


def in_turns(size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` positions in 0 to size - 1, int64: all of them in a random order, then all in another, ..."""
    return np.concatenate([rng.permutation(size) for _ in range(-(-count // size))])[:count]


def uniform_over_clusters(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` positions in `labels`, int64: every cluster equally often, its samples in turn (DeepCluster;
    thesis 3.2.1).

    labels: int64 [n], sorted. A shuffled round of all clusters follows another; in round j each gives its j-th sample,
    modulo its size.
    """
    _, starts, sizes = np.unique(labels, return_index=True, return_counts=True)
    shuffled = np.lexsort((rng.random(len(labels)), labels))  # within each cluster
    rounds = -(-count // len(starts))
    order = in_turns(len(starts), count, rng)
    turn = np.repeat(np.arange(rounds), len(starts))[:count]
    return shuffled[starts[order] + turn % sizes[order]]
