"""The E-step: every feature joins its nearest centroid, and the ranks add up what the M-step needs to know."""

from dataclasses import dataclass

import torch

from launcher.kmeans.resume import Pass
from launcher.kmeans.shards import Ranks, Shards


@dataclass(frozen=True, eq=False)
class Partition:
    """Features by their nearest centroid.

    assignments: int64 [n], this rank's features. Over all ranks, float64: counts [k], sums [k, d] of the features
    and squares [k] of their squared norms in each cluster; changed: features that were in another cluster before.
    """

    assignments: torch.Tensor
    counts: torch.Tensor
    sums: torch.Tensor
    squares: torch.Tensor
    changed: int

    def means(self) -> torch.Tensor:
        """Mean of each cluster, float64 [k, d]; zero where it is empty."""
        return self.sums / self.counts.clamp(min=1)[:, None]

    def variances(self) -> torch.Tensor:
        """Mean squared distance of each cluster's features to their mean, float64 [k]."""
        mean_squares = self.squares / self.counts.clamp(min=1)
        return (mean_squares - self.means().square().sum(dim=1)).clamp(min=0)

    def inertia(self, centroids: torch.Tensor) -> float:
        """Sum over all features of the squared distance to their centroid (N times thesis Eq. 3.2)."""
        centroids = centroids.double()
        crossed = (centroids * self.sums).sum()
        return max(0.0, float(self.squares.sum() - 2 * crossed + (self.counts * centroids.square().sum(dim=1)).sum()))


def mean_feature(features: torch.Tensor, ranks: Ranks, shards: Shards, over: Pass) -> torch.Tensor:
    """Mean of the features of all ranks, float32 [d]; one all-reduce."""
    total = torch.zeros(features.shape[1], dtype=torch.float64, device=features.device)
    for rows in over:
        total += features[rows].double().sum(dim=0)
    return (ranks.sum(total) / shards.total).float()


def assign(
    features: torch.Tensor,
    centroids: torch.Tensor,
    origin: torch.Tensor,
    ranks: Ranks,
    over: Pass,
    previous: torch.Tensor | None = None,
) -> Partition:
    """Assign features [n, d] to centroids [k, d], a chunk of `over` at a time; among equally near ones, the first wins.

    origin: float32 [d], where to measure from. Distances do not depend on it, but float32 scores tell more apart
    when the features lie around it, as they do around their mean.
    previous: int64 [n], the assignments to compare with; None counts every feature as changed. One all-reduce.
    """
    (n, d), k = features.shape, len(centroids)
    # One vector holds all that travels, so that an iteration costs one all-reduce. It is float64: counts stay exact
    # up to 2^53, and sums of float32 features come out the same to rounding whatever the number of ranks.
    packed = torch.zeros(k * (d + 2) + 1, dtype=torch.float64, device=features.device)
    sums, squares = packed[: k * d].view(k, d), packed[k * d : k * (d + 1)]
    assignments = torch.empty(n, dtype=torch.int64, device=features.device)

    shifted = centroids - origin
    bias = -0.5 * shifted.double().square().sum(dim=1).float()
    for rows in over:
        x = features[rows].float()
        # argmin |x - c|^2 = argmax x.c - |c|^2 / 2
        assignments[rows] = nearest = torch.addmm(bias, x - origin, shifted.T).argmax(dim=1)
        x = x.double()
        sums.index_add_(0, nearest, x)
        squares.index_add_(0, nearest, x.square().sum(dim=1))

    packed[k * (d + 1) : -1] = torch.bincount(assignments, minlength=k)
    packed[-1] = n if previous is None else (assignments != previous).sum()
    sums, squares, counts, changed = ranks.sum(packed).split([k * d, k, k, 1])
    return Partition(assignments, counts, sums.view(k, d), squares, int(changed))
