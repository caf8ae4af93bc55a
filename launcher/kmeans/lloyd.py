"""Lloyd's k-means over sharded features (thesis 3.3.1, "Distributed k-means")."""

from dataclasses import dataclass

import numpy as np
import torch

from launcher.kmeans.assign import Partition, assign, mean_feature
from launcher.kmeans.empty import empty_and_donors, split_donors
from launcher.kmeans.init import initial_centroids
from launcher.kmeans.resume import SafePoint, Slot, loaded, passes
from launcher.kmeans.shards import Ranks, check_count, survey

# Iterations added at the end while a cluster is empty and another can be split: each may double the non-empty ones.
REPAIRS = 10


@dataclass(frozen=True, eq=False)
class Clusters:
    """A clustering of N features on all ranks; every assignment is to the nearest of the `centroids`.

    centroids: float32 [k, d] and counts: int64 [k], features per cluster, are the same on all ranks.
    assignments: int64 [n], of this rank's features. inertia: after each iteration, the sum over all features of the
    squared distance to their centroid. iterations: how many were done. converged: the last one changed nothing.
    """

    centroids: torch.Tensor
    assignments: torch.Tensor
    counts: torch.Tensor
    inertia: list[float]
    iterations: int
    converged: bool


@torch.no_grad()
def fit(
    features: torch.Tensor,
    k: int,
    *,
    iterations: int = 10,
    init: str | torch.Tensor = "random",
    seed: int = 0,
    group: torch.distributed.ProcessGroup | None = None,
    safe_point: SafePoint | None = None,
    chunk: int | None = None,
    resume: Slot | None = None,
) -> Clusters:
    """Cluster the features of all ranks into k clusters (thesis Eq. 3.2); collective.

    features: this rank's shard [n, d], floating point, any device; n may be 0. Features are compared in float32 and
    added up in float64, so that the result depends on the number of ranks by no more than rounding. An iteration
    sends one all-reduce of k (d + 2) + 1 numbers; before the first one, the initial centroids and the mean travel.
    iterations: at most so many, fewer when one changes nothing; up to 10 more while a cluster is empty although
    another could be split. A cluster stays empty only if there are fewer than k distinct features, or nearly so.
    init: "random" (k distinct features, drawn by `seed`) or centroids [k, d].
    group: None means all ranks, or this process alone where torch.distributed is not initialised.
    safe_point: called as safe_point(stage, done, total) after each iteration, and within one about every second,
    equally often on all ranks; a caller that has to stop raises from it, on all ranks.
    chunk: rows compared with the centroids at a time; None chooses for the device.
    resume: where the state is kept whenever the centroids have moved; with what an interrupted call of the same
    arguments left there, the result is the same, byte for byte on the same ranks, and no iteration is done twice (the
    one that was interrupted begins anew). `inertia` may then tell of one iteration more, which changed nothing.

    Raises ValueError, the same on all ranks, if k < 1, k > N, iterations < 1, a feature is NaN or infinite, the
    ranks differ in d, or `init` does not fit.
    """
    ranks = Ranks.of(group)
    shards = survey(features, ranks)
    check_count("k", k, shards.total)
    if iterations < 1:
        raise ValueError(f"iterations={iterations}: k-means needs one to move its centroids; set it to 1 or more")

    chunk = chunk or chunk_rows(k, features.device)
    d = features.shape[1]
    inertia: list[float] = []

    def point() -> None:
        if safe_point:
            safe_point("k-means", len(inertia), max(iterations, len(inertia)))

    found = loaded(resume, {"centroids": (k, d)}, ("splits", "ended", "converged"), ranks, features.device)
    if found:
        centroids, inertia = found.tensors["centroids"], found.inertia
    else:
        centroids = initial_centroids(features, k, init, seed, ranks, shards)
    splits = found and found.numbers["splits"]  # of the M-step that made the centroids; None before the first
    origin = mean_feature(features, ranks, shards, passes(features, shards, chunk, d, point))
    over = passes(features, shards, chunk, 2.0 * k * d, point)
    previous, converged = None, False
    while True:
        partition = assign(features, centroids, origin, ranks, over, previous)
        if found and found.numbers["ended"]:  # all that was missing are the assignments
            converged = bool(found.numbers["converged"])
            break
        if splits is not None:
            inertia.append(partition.inertia(centroids))
            converged = partition.changed == 0 and splits == 0
        ended = converged or not (len(inertia) < iterations or needs_repair(partition, len(inertia) - iterations))
        if not ended:
            centroids, splits = update(centroids, partition, np.random.default_rng([seed, len(inertia) + 1]))
            previous = partition.assignments
        if resume and ranks.rank == 0:
            values = {"inertia": list(inertia), "splits": splits, "ended": ended, "converged": converged}
            resume.note(len(inertia) + 1, {"centroids": centroids}, values)
        if inertia:
            point()
        if ended:
            break
    return Clusters(centroids, partition.assignments, partition.counts.long(), inertia, len(inertia), converged)


def update(centroids: torch.Tensor, partition: Partition, generator: np.random.Generator) -> tuple[torch.Tensor, int]:
    """The M-step: centroids [k, d] move to the means of their clusters, and empty clusters split others.

    Returns the new centroids, float32, and the number of splits.
    """
    means = torch.where((partition.counts > 0)[:, None], partition.means(), centroids.double())
    splits = split_donors(means, partition, generator)
    return means.float(), splits


def needs_repair(partition: Partition, repairs: int) -> bool:
    """Whether to go on after the last iteration, and `repairs` more, because a cluster is empty without need."""
    empty, donors = empty_and_donors(partition)
    return repairs < REPAIRS and len(empty) > 0 and len(donors) > 0


def chunk_rows(k: int, device: torch.device) -> int:
    """Rows per chunk: on a CPU their scores should stay in its cache; on a GPU they should keep it busy."""
    return 512 if device.type == "cpu" else max(512, 2**27 // k)
