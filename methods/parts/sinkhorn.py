"""Sinkhorn-Knopp over the samples of all ranks (thesis 4.2.2, after Cuturi 2013)."""

from collections.abc import Callable, Iterable

import torch

from methods.parts.collectives import max_over_ranks, sum_over_ranks
from methods.parts.losses import at_least_float32


@torch.no_grad()
def sinkhorn(scores: torch.Tensor, *, epsilon: float, iterations: int = 3, rounded: bool = False) -> torch.Tensor:
    """Assignments Q* = Diag(u) exp(Z / epsilon) Diag(v), Eq. 4.5: each sample's sum to 1, and each of the K classes
    gets an equal share of the samples of all ranks, Eq. 4.3, the closer the more iterations. Collective.

    scores: Z, floating point [..., B, K], the samples of this rank; leading dimensions are problems of their own, which
    share their collectives. rounded: 1 for the largest entry of a sample and 0 elsewhere ("rounding procedure", 4.2.2).
    Returns float32 (float64 for float64) of the same shape. One iteration is the "softmax in the batch dimension" of
    4.2.2. K may be larger than the number of samples; the shares are then below one sample, and mean little (4.2.3).
    Raises ValueError unless epsilon > 0 and iterations >= 1.

    Only log u is kept; v is what makes a sample's entries sum to 1, a softmax. Any factor of a class cancels in its
    first normalisation, so exponentials are taken relative to the largest of each class over all ranks: none overflows,
    and no class or sample is left without mass, whatever the scores. [..., K] floats travel 1 + iterations times.

    >>> Q = sinkhorn(torch.tensor([[0.9, 0.1], [0.8, 0.1], [0.7, 0.1], [0.6, 0.1]]), epsilon=0.05, iterations=100)
    >>> Q.sum(0).round(decimals=4).tolist(), Q.argmax(1).tolist()
    ([2.0, 2.0], [0, 0, 1, 1])
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon={epsilon}: exp(Z / epsilon) needs it above 0; give a small one, as 0.05")
    if iterations < 1:
        raise ValueError(f"iterations={iterations}: at least one makes assignments; give 1 or more")
    logits = at_least_float32(scores) / epsilon
    like = logits.new_empty(logits.shape[:-2] + logits.shape[-1:])
    logits += class_factors(lambda: [logits], like, iterations=iterations).unsqueeze(-2)
    if rounded:
        return one_hot(logits)
    return logits.softmax(-1)


@torch.no_grad()
def class_factors(
    parts: Callable[[], Iterable[torch.Tensor]],
    like: torch.Tensor,
    *,
    iterations: int,
    between: Callable[[int], None] = lambda done: None,
) -> torch.Tensor:
    """log u of Eq. 4.5, [..., K], of the dtype and on the device of `like`: added to the logits Z / epsilon of a sample
    it gives those of its assignment. Collective.

    parts: gives the logits of this rank's samples, [..., b, K] at a time, any number of samples or none: where all of
    them need more than there is memory, they are computed anew, 1 + iterations times. between: called before each of
    these, with the number of those before; it may raise, on all ranks.
    """
    between(0)
    largest = torch.full_like(like, -torch.inf)
    for logits in parts():
        largest = torch.maximum(largest, logits.amax(-2))
    largest = max_over_ranks(largest)
    between(1)
    mass = sum_over_ranks(sum(((x - largest.unsqueeze(-2)).exp().sum(-2) for x in parts()), torch.zeros_like(like)))
    log_u = -largest - mass.log()
    for done in range(1, iterations):
        between(1 + done)
        # Never 0: of N samples one has 1/N or more of a class before their entries are divided by a sum of at most K.
        shares = ((logits + log_u.unsqueeze(-2)).softmax(-1).sum(-2) for logits in parts())
        log_u -= sum_over_ranks(sum(shares, torch.zeros_like(like))).log()
    return log_u


def one_hot(scores: torch.Tensor) -> torch.Tensor:
    """1 for the largest of each row [..., K] and 0 elsewhere, in the dtype of `scores`; the first one of equals."""
    return torch.zeros_like(scores).scatter_(-1, scores.argmax(-1, keepdim=True), 1)
