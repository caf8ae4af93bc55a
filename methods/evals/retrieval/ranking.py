"""Mean average precision of rankings in which some of what is found counts neither for nor against."""

from typing import NamedTuple

import numpy as np


class Ranked(NamedTuple):
    """Of one query: average precision, and precision among the first 10."""

    ap: float
    p10: float


def judged(order: np.ndarray, relevant: np.ndarray, junk: np.ndarray) -> Ranked | None:
    """order: [n], positions, best first; relevant, junk: positions, all of them somewhere in `order`. From 0 to 1;
    None where nothing is relevant.

    Junk is taken out of the ranking. Precision is averaged by trapezoids over recall, and where the last relevant one
    comes within the first 10 the precision there is that at its rank, as published (Radenovic et al. 2018).
    """
    if not len(relevant):
        return None
    counted = order[~np.isin(order, junk) | np.isin(order, relevant)]
    ranks = np.flatnonzero(np.isin(counted, relevant))  # from 0
    looked_at = min(int(ranks[-1]) + 1, 10)
    return Ranked(trapezoids(ranks, len(relevant)), int((ranks < looked_at).sum()) / looked_at)


def trapezoids(ranks: np.ndarray, relevant: int) -> float:
    """Average precision of relevant ones that come at `ranks`, from 0, rising; those of `relevant` that do not come at
    all count as never found. From 0 to 1."""
    before = np.arange(len(ranks))
    left = np.where(ranks == 0, 1.0, before / np.maximum(ranks, 1))
    right = (before + 1) / (ranks + 1)
    return float((left + right).sum() / 2 / relevant)
