"""What becomes of an empty cluster: it takes half of another one (thesis 3.2.1, "Avoiding trivial solutions")."""

import numpy as np
import torch

from launcher.kmeans.assign import FeaturePartition

# Distance from a donor's mean to its two halves, over the root mean square distance of its features. Moving the
# centroid by e costs e^2 of the cluster's inertia and splitting it along a random direction gains about
# 1.6 e / sqrt(d): the gain prevails in every dimension met here, and float32 scores still resolve the two halves.
PERTURBATION = 0.01

# Below this share of their mean squared norm, the variance of a cluster's features says that they are duplicates.
DUPLICATES = 1e-10
# The same for what the grid of the sums (exact.py) leaves, a feature: of the largest cluster's mean squared norm.
GRID = 2.0**-48


def empty_and_donors(partition: FeaturePartition) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the empty clusters, and of those that can be split: two features or more, not all the same.

    A cluster whose features all weigh nothing has no mean, and counts as empty. Decided from reduced statistics alone,
    hence the same on all ranks.
    """
    scales = partition.scales()
    noise = GRID * partition.counts.sum() * scales.max()
    splittable = (partition.counts > 1) & (partition.variances() > DUPLICATES * scales + noise)
    return indices(partition.mass == 0), indices(splittable)


def split_donors(centroids: torch.Tensor, partition: FeaturePartition, generator: np.random.Generator) -> int:
    """Give empty clusters half of a random donor's features each, in place; returns the number of splits.

    centroids: float32 or float64 [k, d], the means of the partition. A donor gives once: when the empty clusters
    outnumber the donors, the rest of them keep their centroids until the next iteration. (Were the donors drawn
    independently, two empty clusters could become the same cluster.)
    """
    empty, donors = empty_and_donors(partition)
    splits = min(len(empty), len(donors))
    if splits == 0:
        return 0
    donors = torch.from_numpy(generator.permutation(donors)[:splits]).to(centroids.device)
    empty = torch.from_numpy(empty[:splits]).to(centroids.device)

    # A dense random direction: a perturbation of a few coordinates splits nothing where the features agree in those.
    directions = torch.from_numpy(generator.standard_normal((splits, centroids.shape[1]))).to(centroids.device)
    directions /= directions.norm(dim=1, keepdim=True)
    steps = PERTURBATION * partition.variances()[donors].sqrt()[:, None] * directions
    means = centroids[donors].double()
    centroids[empty] = (means + steps).to(centroids.dtype)
    centroids[donors] = (means - steps).to(centroids.dtype)
    return splits


def indices(mask: torch.Tensor) -> np.ndarray:
    """Positions of the True entries, on the CPU, where the random numbers are."""
    return mask.nonzero().flatten().cpu().numpy()
