"""How features are measured: from where, with what weight, and in which steps they are added up."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from launcher.kmeans.exact import grid, row_squares, snap
from launcher.kmeans.features import Features
from launcher.kmeans.resume import Pass
from launcher.kmeans.shards import FeatureShards, Ranks

# Scores are measured from the mean where it is further out than this many standard deviations: float32 scores then tell
# more apart. Nearer, it gains less than two bits and costs a pass.
FAR = 4.0
LARGEST = 1e17  # a feature whose square, times d, float32 still holds


@dataclass(frozen=True, eq=False)
class Space:
    """The same on all ranks but for features and weights.

    origin: float32 [d], or None for zero. weights: float64 [n] or None for ones. vectors, squares, weighing: the grids
    for what is added up (exact.py): weighted features, float64 [d], their squares, and the weights.
    """

    features: Features
    spherical: bool
    origin: torch.Tensor | None
    weights: torch.Tensor | None
    vectors: torch.Tensor
    of_row: torch.Tensor
    squares: torch.Tensor
    weighing: torch.Tensor

    def read(self, rows: slice | torch.Tensor) -> torch.Tensor:
        """These features [m, d] as they are compared: in their own dtype, or float32 if measured from an origin."""
        x = self.features[rows]
        return x if self.origin is None else x.float() - self.origin

    def place(self, centroids: torch.Tensor) -> torch.Tensor:
        """Centroids [k, d] as they are compared, float32."""
        return centroids if self.origin is None else centroids - self.origin

    def offset(self) -> torch.Tensor | float:
        """What to add to a mean of what `read` gives, in float64."""
        return 0.0 if self.origin is None else self.origin.double()

    def measure(self, x: torch.Tensor, weights: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Of features that `read` gave and their weights: the weighted squared norms, on the sphere or off it, and the
        factors that make `addends` of them; float64 [m], the factors None where they are 1."""
        of_row = row_squares(x, self.of_row)
        if self.spherical:
            inverse = 1 / of_row.sqrt()  # IEEE says how these round, unlike rsqrt
            inverse[of_row == 0] = 0
            present = (of_row > 0).double()
            factors = inverse if weights is None else inverse * weights
            return snap(present if weights is None else present * weights, self.squares), factors
        return snap(of_row if weights is None else of_row * weights, self.squares), weights

    def addends(self, x: torch.Tensor, factors: torch.Tensor | None) -> torch.Tensor:
        """Features x [m, d] that `read` gave, times their factors, float64, ready to be added up exactly."""
        x = x.to(torch.float64, copy=True)
        return snap(x if factors is None else x.mul_(factors[:, None]), self.vectors)


def survey_space(
    features: Features,
    weights: torch.Tensor | None,
    spherical: bool,
    ranks: Ranks,
    shards: FeatureShards,
    chunk: int,
    between: Callable[[], None] | None,
) -> Space:
    """Two passes over the features: their range, then their mean. Three small all-reduces.

    Raises ValueError, the same on all ranks, if a feature is too large for float32 scores, or all weights are 0.
    """
    d, device = features.d, features.device
    over = Pass(features.n, shards.longest, chunk, float(d), device, between)
    ends = torch.full((2, d), -torch.inf, dtype=torch.float64, device=device)
    for rows in over:
        x = features[rows]
        ends[0] = torch.maximum(ends[0], x.amax(dim=0).double())
        ends[1] = torch.maximum(ends[1], -x.amin(dim=0).double())
    highest, lowest = ranks.max(ends)
    lowest = -lowest
    reach = torch.maximum(highest.abs(), lowest.abs())
    if float(reach.max()) > LARGEST:
        raise ValueError(
            f"features: a value of {float(reach.max()):.3g} is too large to be squared in float32; "
            f"scale them to below {LARGEST:g}"
        )
    heaviest = 1.0
    if weights is not None:
        heaviest = float(ranks.max(weights.max().reshape(1) if len(weights) else weights.new_zeros(1)))
        if heaviest == 0:
            raise ValueError("weights: all are 0; give some sample a positive weight")

    origin = None
    if not spherical:
        sums = torch.zeros(2, d, dtype=torch.float64, device=device)
        steps = grid(reach, shards.total), grid(reach.square(), shards.total)
        for rows in over:
            x = features[rows].double()
            sums[0] += snap(x.clone(), steps[0]).sum(dim=0)  # copies: of float64 features x is what the caller has
            sums[1] += snap(x.square(), steps[1]).sum(dim=0)
        mean, mean_square = ranks.sum(sums) / shards.total
        square = float(_ordered_sum(mean.square()))
        if square > FAR**2 * max(0.0, _ordered_sum(mean_square) - square):
            origin = mean.float()
            reach = torch.maximum((highest - origin).abs(), (lowest - origin).abs()) * (1 + 1e-6)
    norm = _ordered_sum(reach.square())
    return Space(
        features,
        spherical,
        origin,
        weights,
        vectors=grid((torch.ones_like(reach) if spherical else reach) * heaviest * (1 + 1e-6), shards.total),
        of_row=grid(norm / d, 4 * d, device),
        squares=grid((1.0 if spherical else norm) * heaviest, 2 * shards.total, device),
        weighing=grid(heaviest, shards.total, device),
    )


def _ordered_sum(values: torch.Tensor) -> float:
    """The sum in one order, whatever the number of threads."""
    return float(np.add.reduce(values.cpu().numpy()))
