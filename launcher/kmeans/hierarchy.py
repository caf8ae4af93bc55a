"""Two levels of k-means: DeeperCluster's super-clusters and the sub-clusters within each (thesis 3.3.1)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from launcher.kmeans.assign import Group
from launcher.kmeans.clusters import Clusters, check_iterations, clusters_of, complaint_about, space_of
from launcher.kmeans.features import Features
from launcher.kmeans.init import INITS
from launcher.kmeans.lloyd import Options, Progress, lloyd
from launcher.kmeans.nearest import chunk_rows
from launcher.kmeans.resume import SafePoint, StateSlot
from launcher.kmeans.shards import Ranks, check_count, survey


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """m super-clusters, each with up to k sub-clusters.

    super_clusters: the first level. sub_assignments: int64 [n], of this rank's features, in 0..k-1 and meaningful
    within a feature's super-cluster. The same on all ranks: sub_centroids: float32 [m, k, d] and
    sub_counts: int64 [m, k], where a centroid of count 0 is void; sub_inertia: a list per super-cluster;
    bytes_per_iteration: as in `Clusters`, of the second level while no super-cluster has ended.
    """

    super_clusters: Clusters
    sub_assignments: torch.Tensor
    sub_centroids: torch.Tensor
    sub_counts: torch.Tensor
    sub_inertia: list[list[float]]
    bytes_per_iteration: int


@torch.no_grad()
def hierarchical(
    features: torch.Tensor | np.ndarray,
    sizes: tuple[int, int],
    *,
    iterations: int = 10,
    init: str = "random",
    metric: str = "l2",
    empty: str = "split",
    tolerance: float = 0.0,
    seed: int = 0,
    group: torch.distributed.ProcessGroup | None = None,
    deterministic: bool = False,
    device: torch.device | str | None = None,
    safe_point: SafePoint | None = None,
    progress: Progress | None = None,
    chunk: int | None = None,
    resume: Callable[[str], StateSlot] | None = None,
    skip: bool = True,
) -> Hierarchy:
    """k-means into m clusters, then into k within each of these; sizes: (m, k); collective.

    features: this rank's shard [n, d]. It stays where it is: every rank holds its members of all m clusters, and the
    m clusterings move forward together on all ranks, one iteration of all of them at a time with one all-reduce of
    8 (K (d + 2) + 2 m) bytes, K = m k. That balances the load whatever the sizes of the super-clusters. (The thesis
    gives each super-cluster to a group of its own and moves the features there.) One that has converged is left alone.
    A super-cluster of fewer than k members gets as many sub-clusters as members; the counts beyond are 0.
    The other arguments: as for `fit`, iterations at each level; the stage that safe_point is told names the level.
    resume: name of a level, "super-clusters" or "sub-clusters" -> where its state is kept; a level that had ended costs
    one assignment.

    Raises ValueError, the same on all ranks, as `fit` does for m, and if k < 1.
    """
    m, k = sizes
    ranks, rows = Ranks.of(group), Features(features, device)

    def complaint() -> str | None:
        no_start = f'init={init!r}: no such start; give "random" or "k-means++"'
        return complaint_about(metric, empty, tolerance) or (None if init in INITS else no_start)

    shards = survey(rows, ranks, complaint)
    check_count("m", m, shards.total)
    check_count("k", k, k)
    check_iterations(iterations)
    chunk = chunk or chunk_rows(rows.device, k)
    first, second = (named(safe_point, stage) for stage in ("super-clusters", "sub-clusters"))
    space = space_of(rows, None, metric, ranks, shards, chunk, first and (lambda: first("", 0, iterations)))
    options = Options(iterations, init, empty, tolerance, deterministic, chunk, shards.workers, skip)

    whole = Group(m, 0, rows.n, 0, shards.total, shards.offset, shards.longest, seed)
    upper = lloyd(space, [whole], None, options, ranks, first, resume and resume("super-clusters"), progress)
    groups, order = members(upper.labels, m, k, seed, ranks)
    lower = lloyd(space, groups, order, options, ranks, second, resume and resume("sub-clusters"), progress)

    starts = torch.zeros(m, dtype=torch.int64, device=rows.device)
    sub_centroids = torch.zeros(m, k, rows.d, device=rows.device)
    sub_counts = torch.zeros(m, k, dtype=torch.int64, device=rows.device)
    sub_inertia: list[list[float]] = [[] for _ in range(m)]
    present = [s for s, count in enumerate(upper.counts[0].tolist()) if count]
    for s, part, counts, course in zip(present, groups, lower.counts, lower.courses, strict=True):
        starts[s] = part.first
        sub_centroids[s, : part.k] = lower.centroids[part.centroids]
        sub_counts[s, : part.k] = counts
        sub_inertia[s] = course.inertia
    sub_assignments, travelled = lower.labels - starts[upper.labels], lower.bytes_per_iteration
    return Hierarchy(clusters_of(upper), sub_assignments, sub_centroids, sub_counts, sub_inertia, travelled)


def members(labels: torch.Tensor, m: int, k: int, seed: int, ranks: Ranks) -> tuple[list[Group], torch.Tensor]:
    """The super-clusters that have members, as groups, and this rank's rows group after group. One all-reduce.

    labels: int64 [n], the super-cluster of each row.
    """
    order = torch.argsort(labels, stable=True)
    here = torch.bincount(labels, minlength=m).tolist()
    table = np.array(ranks.table(here))  # [rank, super-cluster]
    totals, longest = table.sum(axis=0).tolist(), table.max(axis=0).tolist()
    offsets = table[: ranks.rank].sum(axis=0).tolist()
    begins = np.concatenate([[0], np.cumsum(here)]).tolist()
    groups: list[Group] = []
    first = 0
    for s in range(m):
        if totals[s]:
            own = int(np.random.SeedSequence([seed, s + 1]).generate_state(1)[0])
            size = min(k, totals[s])
            groups.append(Group(size, first, here[s], begins[s], totals[s], offsets[s], longest[s], own))
            first += size
    return groups, order


def named(safe_point: SafePoint | None, stage: str) -> SafePoint | None:
    """The safe point, told `stage` instead of the stage that `lloyd` knows of."""
    return safe_point and (lambda _, done, total: safe_point(stage, done, total))
