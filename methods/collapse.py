"""Whether training collapses: figures of outputs and features, over all ranks, and what they say.

For metrics and evaluations, every so often; those that take a `group` are collective.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from methods.collectives import Group, sum_over_ranks
from methods.losses import entropy

USED, SPREAD, ALIKE, RANK = 0.1, 0.99, 0.01, 2.0  # ours; far from what a training that learns has


@dataclass(frozen=True)
class Watched:
    """Which of a trainer's scalars tell of a collapse over `classes` classes: the names of `entropy_of_use` and of
    `mean_entropy` among them."""

    classes: int
    use: str | None = None
    single: str | None = None

    def says(self, scalars: Mapping[str, float]) -> str | None:
        """`collapse` of the scalars of a step; those that are not there say nothing."""
        return collapse(self.classes, use=scalars.get(self.use), single=scalars.get(self.single))


@torch.no_grad()
def entropy_of_use(probabilities: torch.Tensor, *, group: Group = None) -> torch.Tensor:
    """Entropy of how often each of K classes is used, in nats: of the mean of `probabilities` [..., K] over all rows
    and ranks. ln K where all are used alike, 0 where every image falls to one. Returns a scalar.

    >>> round(entropy_of_use(torch.eye(4)).item() / math.log(4), 4)
    1.0
    """
    rows = probabilities.float().flatten(0, -2)
    total = sum_over_ranks(rows.sum(0), group)
    return entropy(total / total.sum())


@torch.no_grad()
def mean_entropy(probabilities: torch.Tensor, *, group: Group = None) -> torch.Tensor:
    """Entropy of single rows in nats, mean over all rows [..., K] and ranks: 0 where outputs are one-hot, ln K where
    they say nothing. Returns a scalar.

    >>> round(mean_entropy(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).item(), 4)
    0.3466
    """
    rows = entropy(probabilities.float()).flatten()
    total, count = sum_over_ranks(torch.stack([rows.sum(), rows.new_full((), len(rows))]), group)
    return total / count


@torch.no_grad()
def effective_rank(features: torch.Tensor, *, group: Group = None) -> torch.Tensor:
    """exp of the entropy of the singular values, as shares of their sum, of the features [N, d] of all ranks (Roy and
    Vetterli, "The effective rank", 2007): between 1 and d. Not centred: features that are one constant with a little
    noise have rank 1, not the noise's. Returns a float64 scalar, NaN where all features are 0 or one is not finite.

    >>> round(effective_rank(torch.eye(4)).item(), 4), round(effective_rank(torch.ones(9, 4)).item(), 4)
    (4.0, 1.0)
    """
    rows = features.double()
    return rank_of_moments(sum_over_ranks(rows.T @ rows, group))


def rank_of_moments(moments: torch.Tensor) -> torch.Tensor:
    """`effective_rank` of features F whose F^T F, or F F^T, is `moments`, float64 [d, d]."""
    if not torch.isfinite(moments).all():
        return moments.new_full((), math.nan)
    # Below this share of the largest, the square's rounding is all there is.
    squares = torch.linalg.eigvalsh(moments)
    squares = torch.where(squares > squares[-1] * len(squares) * torch.finfo(squares.dtype).eps, squares, 0)
    values = squares.sqrt()
    return entropy(values / values.sum()).exp()


def empty_share(counts: torch.Tensor) -> float:
    """Share of groups without members. counts: [k], members over all ranks (`launcher.kmeans.cluster_sizes`).

    >>> empty_share(torch.tensor([3, 0, 5, 0]))
    0.5
    """
    return float((counts == 0).double().mean())


def collapse(
    classes: int, *, use: float | None = None, single: float | None = None, rank: float | None = None
) -> str | None:
    """What the figures that are given say of a collapse, in a sentence; None where they say nothing of one.

    use: `entropy_of_use`; single: `mean_entropy`, both over `classes` classes; rank: `effective_rank` of features.

    >>> collapse(1000, use=0.2)
    'nearly all images fall to one of 1000 classes (entropy of use 0.20 of ln K = 6.91)'
    >>> collapse(1000, use=5.0, single=4.99)  # their difference is what an output tells of the image
    'outputs are alike for all images (entropy of use 5.00, of one 4.99, ln K = 6.91)'
    >>> collapse(1000, use=6.5, single=1.5, rank=90)
    """
    most = math.log(classes)
    if use is not None and use < USED * most:
        return f"nearly all images fall to one of {classes} classes (entropy of use {use:.2f} of ln K = {most:.2f})"
    if single is not None and single > SPREAD * most:
        return f"outputs are uniform over {classes} classes (entropy {single:.2f} of ln K = {most:.2f})"
    if use is not None and single is not None and use - single < ALIKE * most:
        return f"outputs are alike for all images (entropy of use {use:.2f}, of one {single:.2f}, ln K = {most:.2f})"
    if rank is not None and rank < RANK:
        return f"features differ in their length alone (effective rank {rank:.2f})"
    return None
