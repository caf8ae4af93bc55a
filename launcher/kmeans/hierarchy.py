"""Two levels of k-means: DeeperCluster's super-clusters and the sub-clusters within each (thesis 3.3.1)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from launcher.kmeans.lloyd import Clusters, fit
from launcher.kmeans.resume import SafePoint, Slot
from launcher.kmeans.shards import Ranks, check_count, survey


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """m super-clusters, each with up to k sub-clusters.

    super_clusters: the first level. sub_assignments: int64 [n], of this rank's features, in 0..k-1 and meaningful
    within a feature's super-cluster. The same on all ranks: sub_centroids: float32 [m, k, d] and
    sub_counts: int64 [m, k], where a centroid of count 0 is void; sub_inertia: a list per super-cluster.
    """

    super_clusters: Clusters
    sub_assignments: torch.Tensor
    sub_centroids: torch.Tensor
    sub_counts: torch.Tensor
    sub_inertia: list[list[float]]


@torch.no_grad()
def hierarchical(
    features: torch.Tensor,
    sizes: tuple[int, int],
    *,
    iterations: int = 10,
    seed: int = 0,
    group: torch.distributed.ProcessGroup | None = None,
    safe_point: SafePoint | None = None,
    resume: Callable[[str], Slot] | None = None,
) -> Hierarchy:
    """k-means into m clusters, then into k within each of these; sizes: (m, k); collective.

    features: this rank's shard [n, d]. It stays where it is: every rank holds its members of all m clusters, and all
    ranks work on one of them after the other, which costs the same and balances the load whatever the sizes of the
    super-clusters. (The thesis gives each super-cluster to a group of its own and moves the features there.)
    A super-cluster of fewer than k members gets as many sub-clusters as members; the counts beyond are 0.
    iterations, seed, group, safe_point: as for `fit`, iterations at each level; the stage that safe_point is told
    names the level. resume: name of a fit -> where its state is kept; a fit that had ended costs one assignment.

    Raises ValueError, the same on all ranks, as `fit` does for m, and if k < 1.
    """
    m, k = sizes
    ranks = Ranks.of(group)
    check_count("m", m, survey(features, ranks).total)
    check_count("k", k, k)
    super_clusters = fit(
        features,
        m,
        iterations=iterations,
        seed=seed,
        group=group,
        safe_point=named(safe_point, "super-clusters"),
        resume=resume and resume("super-clusters"),
    )

    sub_assignments = torch.zeros_like(super_clusters.assignments)
    sub_centroids = torch.zeros(m, k, features.shape[1], device=features.device)
    sub_counts = torch.zeros(m, k, dtype=torch.int64, device=features.device)
    sub_inertia: list[list[float]] = [[] for _ in range(m)]
    for s, members in enumerate(super_clusters.counts.tolist()):
        if members == 0:
            continue
        here = super_clusters.assignments == s
        sub = fit(
            features[here],
            min(k, members),
            iterations=iterations,
            seed=int(np.random.SeedSequence([seed, s + 1]).generate_state(1)[0]),
            group=group,
            safe_point=named(safe_point, f"sub-clusters {s + 1}/{m}"),
            resume=resume and resume(f"sub-clusters-{s + 1}"),
        )
        sub_assignments[here] = sub.assignments
        sub_centroids[s, : len(sub.centroids)] = sub.centroids
        sub_counts[s, : len(sub.counts)] = sub.counts
        sub_inertia[s] = sub.inertia
    return Hierarchy(super_clusters, sub_assignments, sub_centroids, sub_counts, sub_inertia)


def named(safe_point: SafePoint | None, stage: str) -> SafePoint | None:
    """The safe point, told `stage` instead of the stage that `fit` knows of."""
    return safe_point and (lambda _, done, total: safe_point(stage, done, total))
