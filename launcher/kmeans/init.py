"""Where k-means starts."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from launcher.kmeans.assign import Group
from launcher.kmeans.shards import Ranks
from launcher.kmeans.space import Space

INITS = ("random", "k-means++")
SAMPLE = 16  # features a cluster that k-means++ chooses among


def complaint_about_init(init: str | torch.Tensor, k: int, d: int) -> str | None:
    """Why k-means cannot start there."""
    if isinstance(init, torch.Tensor):
        if tuple(init.shape) != (k, d):
            return f"init: centroids of shape {tuple(init.shape)} do not fit k and the features' d; give shape {(k, d)}"
        if not init.isfinite().all():
            return "init: a centroid is NaN or infinite; give finite centroids"
    elif not isinstance(init, str) or init not in INITS:
        return f'init={init!r}: no such start; give "random", "k-means++" or a tensor of centroids [k, d]'
    return None


def initial_centroids(
    space: Space,
    groups: Sequence[Group],
    order: torch.Tensor | None,
    init: str | torch.Tensor,
    ranks: Ranks,
    between: Callable[[], None] | None,
) -> torch.Tensor:
    """float32 [K, d] of all groups on the device of the features, the same on all ranks.

    init: "random", k distinct features drawn by each group's seed from all of the group, hence the same ones however
    it is sharded; "k-means++", the same for a sample of 16 k features, among which k are chosen; or a tensor [k, d] for
    the only group, of which rank 0's copy counts.
    """
    if isinstance(init, torch.Tensor):
        return ranks.first(init.to(space.features.device, torch.float32, copy=True))
    sizes = [group.k if init == "random" else min(group.total, SAMPLE * group.k) for group in groups]
    chosen = [
        np.random.default_rng([group.seed, 0]).choice(group.total, size=size, replace=False)
        for group, size in zip(groups, sizes, strict=True)
    ]
    if init == "random":
        return gathered(space, groups, order, chosen, ranks)
    centroids = []
    for group, index in zip(groups, chosen, strict=True):  # one after the other: one sample at a time travels
        sample = gathered(space, [group], order, [index], ranks, weighted=True)
        generator = np.random.default_rng([group.seed, 0, 1])
        sample, weights = sample[:, :-1], sample[:, -1].double()
        if space.spherical:
            sample = torch.nn.functional.normalize(sample, dim=1)
        picks = spread(sample, weights, group.k, generator, between)
        # Rank 0's for all: another kind of machine may round otherwise.
        centroids.append(sample[ranks.first(torch.from_numpy(picks)).to(sample.device)])
    return torch.cat(centroids)


def gathered(
    space: Space,
    groups: Sequence[Group],
    order: torch.Tensor | None,
    chosen: Sequence[np.ndarray],
    ranks: Ranks,
    weighted: bool = False,
) -> torch.Tensor:
    """Features of given indices within their group, float32 [sum of the lengths, d], on every rank; one all-reduce.

    weighted: with their weights as one more column. Every rank writes the rows it owns into zeros, so that the sum over
    ranks is the whole, exactly.
    """
    d, device = space.features.d, space.features.device
    rows = torch.zeros(sum(map(len, chosen)), d + weighted, device=device)
    first = 0
    for group, index in zip(groups, chosen, strict=True):
        local = torch.from_numpy(index - group.offset)
        mine = ((local >= 0) & (local < group.rows)).nonzero().flatten()
        where = (local[mine] + group.begin).to(device)
        where = where if order is None else order[where]
        place = (first + mine).to(device)
        rows[place, :d] = space.features[where].float()
        if weighted:
            rows[place, d] = 1.0 if space.weights is None else space.weights[where].float()
        first += len(index)
    return ranks.sum(rows)


def spread(
    sample: torch.Tensor,
    weights: torch.Tensor,
    k: int,
    generator: np.random.Generator,
    between: Callable[[], None] | None,
) -> np.ndarray:
    """k distinct rows of the sample [s, d], each drawn with probability in proportion to its weight [s] and its squared
    distance to the nearest one drawn before (k-means++, Arthur and Vassilvitskii 2007); int64 [k].

    Where no distance is left, the rest is drawn evenly from the others. Takes k passes over the sample.
    """
    picks = np.empty(k, np.int64)
    left = torch.full((len(sample),), torch.inf, dtype=torch.float64, device=sample.device)
    free = torch.ones(len(sample), dtype=torch.bool, device=sample.device)
    for number in range(k):
        if between and number and number % 1000 == 0:
            between()
        odds = (weights if number == 0 else left * weights).masked_fill(~free, 0.0)
        total = odds.cumsum(0)
        if float(total[-1]) > 0:
            # Below the total: a draw at the very end must not meet a row without odds.
            place = torch.searchsorted(total, total[-1] * generator.random(), right=True)
            pick = int(place.clamp(max=len(sample) - 1))
            pick = pick if free[pick] and float(odds[pick]) > 0 else int(odds.argmax())
        else:
            others = free.nonzero().flatten()
            pick = int(others[int(generator.integers(len(others)))])
        picks[number], free[pick] = pick, False
        left = torch.minimum(left, (sample - sample[pick]).square().sum(dim=1).double())
    return picks
