"""Sums that do not depend on their order: numbers rounded to a grid so coarse that no partial sum is ever rounded.

Floating-point addition is exact, hence associative, while every partial sum is a multiple of the grid and below 2^53
of its steps. So the sums of features come out the same, bit by bit, however samples are dealt to chunks, threads, ranks
and GPU atomics; and the sums of the last iteration can be brought up to date by what has moved. The grid costs
2^-(52 - log2 N) of the largest value: 2^-34 for 200,000 samples, 2^-25 (float32 has 2^-24) for 96 million.

The same makes scores exact, where two centroids are so near to one another that rounding would choose between them.
"""

import math

import torch


def grid(bound: torch.Tensor | float, terms: int, device: torch.device | None = None) -> torch.Tensor:
    """What `snap` needs to sum up to `terms` values of magnitude `bound` (of any shape) exactly; float64.

    A power of two times 1.5: adding it makes the last bit of a float64 one step of the grid, and the 1.5 leaves room
    for both signs. One bit is to spare, so that sums may go up and down on the way.
    """
    bound = torch.as_tensor(bound, dtype=torch.float64, device=device)
    exponent = torch.frexp(bound.clamp(min=1e-200) * max(2, terms)).exponent.long() + 1
    # The bits of 1.5 * 2^exponent: a power function may be off by one.
    return (((exponent + 1023) << 52) | (1 << 51)).view(torch.float64)


def snap(values: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """float64 values rounded to the grid, in place."""
    return values.add_(grid).sub_(grid)


def row_squares(x: torch.Tensor, of_row: torch.Tensor) -> torch.Tensor:
    """Squared norms, float64 [n], of x [n, d]. of_row: a grid for the d squares of a row."""
    return snap(x.double().square(), of_row).sum(dim=1)


def nearest_of(
    x: torch.Tensor, centroids: torch.Tensor, row: torch.Tensor, candidate: torch.Tensor, spherical: bool
) -> torch.Tensor:
    """The candidate of highest exact score for each row; among equals, the first.

    x: float32 [n, d]; centroids: float32 [k, d], as they were compared; row, candidate: int64 [p], pairs to decide
    between, in any order. Returns int64 [n]; rows without a pair get k.
    The score is 2 x.c - |c|^2 (2 x.c if spherical), every term rounded to one grid: products of two float32 are exact
    in float64 and their sum is exact by construction, so it does not depend on where a row lies or who computes it.
    """
    k, d = centroids.shape
    scores = torch.empty(len(row), dtype=torch.float64, device=x.device)
    size = max(1, 2**22 // d)
    for start in range(0, len(row), size):
        part = slice(start, start + size)
        c = centroids[candidate[part]].double()
        a = x[row[part]].double()
        # Per pair, so that the grid depends on nothing but the pair's row and all centroids.
        scores[part] = _score(a, c, centroids, spherical)
    best = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)
    best.scatter_reduce_(0, row, scores, "amax")
    first = torch.full((len(x),), k, dtype=torch.int64, device=x.device)
    winners = scores == best[row]
    return first.scatter_reduce_(0, row[winners], candidate[winners], "amin")


def _score(a: torch.Tensor, c: torch.Tensor, centroids: torch.Tensor, spherical: bool) -> torch.Tensor:
    largest = centroids.abs().amax().double()
    reach = a.abs().amax(dim=1, keepdim=True)
    of_pair = grid(largest * (2 * reach + largest), a.shape[1])
    score = 2 * snap(a * c, of_pair).sum(dim=1)
    return score if spherical else score - snap(c * c, of_pair).sum(dim=1)
