"""What becomes of an empty cluster: it takes half of another one (thesis 3.2.1, "Avoiding trivial solutions")."""

import numpy as np
import torch

from launcher.kmeans.assign import Partition

# Distance from a donor's mean to its two halves, over the root mean square distance of its features. Moving the
# centroid by e costs e^2 of the cluster's inertia and splitting it along a random direction gains about
# 1.6 e / sqrt(d): the gain prevails in every dimension met here, and float32 scores still resolve the two halves.
PERTURBATION = 0.01

# Below this share of their mean squared norm, the variance of a cluster's features says that they are duplicates.
DUPLICATES = 1e-10


def empty_and_donors(partition: Partition) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the empty clusters, and of those that can be split: two features or more, not all the same.

    Decided from reduced statistics alone, hence the same on all ranks.
    """
    scale = partition.squares / partition.counts.clamp(min=1)
    splittable = (partition.counts > 1) & (partition.variances() > DUPLICATES * scale)
    return indices(partition.counts == 0), indices(splittable)


def split_donors(centroids: torch.Tensor, partition: Partition, generator: np.random.Generator) -> int:
    """Give empty clusters half of a random donor's features each, in place; returns the number of splits.

    centroids: float64 [k, d], the means of the partition. A donor gives once: when the empty clusters outnumber the
    donors, the rest of them keep their centroids until the next iteration. (Were the donors drawn independently, two
    empty clusters could become the same cluster.)
    """
    empty, donors = empty_and_donors(partition)
    splits = min(len(empty), len(donors))
    if splits == 0:
        return 0
    donors = torch.from_numpy(generator.permutation(donors)[:splits]).to(centroids.device)
    empty = torch.from_numpy(empty[:splits]).to(centroids.device)

    # A dense random direction: a perturbation of a few coordinates splits nothing where the features agree in those.
    directions = torch.from_numpy(generator.standard_normal((splits, centroids.shape[1]))).to(centroids)
    directions /= directions.norm(dim=1, keepdim=True)
    steps = PERTURBATION * partition.variances()[donors].sqrt()[:, None] * directions
    centroids[empty] = centroids[donors] + steps
    centroids[donors] -= steps
    return splits


def indices(mask: torch.Tensor) -> np.ndarray:
    """Positions of the True entries, on the CPU, where the random numbers are."""
    return mask.nonzero().flatten().cpu().numpy()
