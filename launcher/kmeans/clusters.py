"""k-means of features that lie on several ranks: the call, its checks, and what comes back."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from launcher.kmeans.assign import Group
from launcher.kmeans.features import Features
from launcher.kmeans.init import complaint_about_init
from launcher.kmeans.lloyd import EMPTY, LloydResult, Options, Progress, lloyd
from launcher.kmeans.nearest import chunk_rows
from launcher.kmeans.resume import SafePoint, StateSlot
from launcher.kmeans.shards import FeatureShards, Ranks, check_count, survey
from launcher.kmeans.space import Space, survey_space

METRICS = ("l2", "cosine")


@dataclass(frozen=True, eq=False)
class Clusters:
    """A clustering of N features on all ranks; every assignment is to the nearest of the `centroids`.

    The same on all ranks: centroids: float32 [k, d]; counts: int64 [k], features per cluster; after each iteration,
    inertia: the sum over all features of the (weighted) squared distance to their centroid, reassigned: the share of
    features that it moved to another cluster, empty: how many clusters are without features, skipped: the share of the
    comparisons of features with centroids that bounds spared; iterations: how many were done; converged: the last one
    changed nothing, or less than the tolerance; bytes_per_iteration: what a rank gives to the all-reduce of an
    iteration, 0 where it is alone. assignments: int64 [n], of this rank's features.
    """

    centroids: torch.Tensor
    assignments: torch.Tensor
    counts: torch.Tensor
    inertia: list[float]
    iterations: int
    converged: bool
    reassigned: list[float]
    empty: list[int]
    skipped: list[float]
    bytes_per_iteration: int


@torch.no_grad()
def fit(
    features: torch.Tensor | np.ndarray,
    k: int,
    *,
    iterations: int = 10,
    init: str | torch.Tensor = "random",
    metric: str = "l2",
    empty: str = "split",
    weights: torch.Tensor | np.ndarray | None = None,
    tolerance: float = 0.0,
    seed: int = 0,
    group: torch.distributed.ProcessGroup | None = None,
    deterministic: bool = False,
    device: torch.device | str | None = None,
    safe_point: SafePoint | None = None,
    progress: Progress | None = None,
    chunk: int | None = None,
    resume: StateSlot | None = None,
    skip: bool = True,
) -> Clusters:
    """Cluster the features of all ranks into k clusters (thesis Eq. 3.2); collective.

    features: this rank's shard [n, d], floating point: a tensor on any device, or a numpy array or memory-mapped file
    of any size, of which a chunk at a time is read; n may be 0. The arithmetic happens on their device, or on `device`,
    where chunks are sent. bfloat16 features are multiplied in bfloat16 and added up in float32 where the hardware does
    that faster, with the norms of the rounded centroids; everything else is float32. Sums over features are exact
    (exact.py): the result depends on the number of ranks only where two centroids are equally near to a feature, up to
    the rounding of float32 scores, and with `deterministic` not even there: the centroids are the same bits on any
    number of ranks, threads and chunks.
    iterations: at most so many, fewer when one changes nothing or lowers the inertia by less than the share
    `tolerance`; up to 10 more while a cluster is empty although another could be split.
    init: "random" (k distinct features, drawn by `seed` and global index), "k-means++" (chosen among 16 k such; takes k
    steps one after the other: not for k above some thousands), or centroids [k, d].
    metric: "l2"; or "cosine", spherical k-means: features count by direction alone, centroids are unit vectors, and
    inertia is in squared distances of unit vectors, 2 - 2 cos. A zero vector has no direction: it moves no centroid.
    empty: what becomes of a cluster without features: "split" gives it half of another one (thesis 3.2.1), "resample"
    a random feature, "keep" leaves its centroid where it is. Except for "keep", a cluster stays empty only if there
    are fewer than k distinct features, or nearly so.
    weights: [n], not negative: how many times each feature counts in means and inertia (counts stay of features).
    group: None means all ranks, or this process alone where torch.distributed is not initialised.
    safe_point: called as safe_point(stage, done, total) after each iteration, and within one about every second,
    equally often on all ranks; a caller that has to stop raises from it, on all ranks.
    progress: called with an `Iteration` after each one, on all ranks.
    chunk: rows compared with the centroids at a time; None chooses for the device.
    resume: where the state is kept whenever the centroids have moved; with what an interrupted call of the same
    arguments left there, the result is the same, byte for byte on the same ranks, and no iteration is done twice (the
    one that was interrupted begins anew). `inertia` may then tell of one iteration more, which changed nothing.
    skip: leave out comparisons that the triangle inequality says cannot win (bounds.py), where that pays; with
    `deterministic` no assignment changes by it. Bounds take 4 bytes for every 256 features (on a GPU 128) and centroid,
    and never more than about a quarter of the features' memory; they are not kept for `resume`, so that `skipped` may
    differ after one.

    An iteration sends one all-reduce of 8 (k (d + 2) + 2) bytes, 8 k more with weights: float64 sums, squared norms and
    counts of the clusters, how many features moved, and how many pairs were compared; `empty="resample"` also 4 d for
    each empty cluster. Before the first one travel the range of the features (16 d), their mean (16 d, not for cosine)
    and the initial centroids (4 k d; k-means++: 64 k (d + 1) and 8 k). No feature leaves its shard but those that
    centroids start from.

    Raises ValueError, the same on all ranks, if k < 1, k > N, iterations < 1, a feature is NaN, infinite or too large
    to be squared, the ranks differ in d, or init, metric, empty, weights or tolerance do not fit; and on a rank that is
    not in `group`.
    """
    ranks, rows = Ranks.of(group), Features(features, device)

    def complaint() -> str | None:
        about_init = complaint_about_init(init, k, rows.d) if ranks.rank == 0 and k > 0 else None
        return complaint_about(metric, empty, tolerance) or complaint_about_weights(weights, rows.n) or about_init

    shards = survey(rows, ranks, complaint)
    check_count("k", k, shards.total)
    check_iterations(iterations)
    chunk = chunk or chunk_rows(rows.device, k)

    def point() -> None:
        if safe_point:
            safe_point("k-means", 0, iterations)

    space = space_of(rows, weights, metric, ranks, shards, chunk, point)
    whole = Group(k, 0, rows.n, 0, shards.total, shards.offset, shards.longest, seed)
    options = Options(iterations, init, empty, tolerance, deterministic, chunk, shards.workers, skip)
    return clusters_of(lloyd(space, [whole], None, options, ranks, safe_point, resume, progress))


def clusters_of(outcome: LloydResult) -> Clusters:
    """What the course of the only group came to."""
    course = outcome.courses[0]
    return Clusters(
        outcome.centroids,
        outcome.labels,
        outcome.counts[0],
        course.inertia,
        len(course.inertia),
        course.converged,
        course.reassigned,
        course.empty,
        course.skipped,
        outcome.bytes_per_iteration,
    )


def space_of(
    rows: Features,
    weights: torch.Tensor | np.ndarray | None,
    metric: str,
    ranks: Ranks,
    shards: FeatureShards,
    chunk: int,
    between,
) -> Space:
    """How these features are measured; two passes over them."""
    if weights is not None:
        weights = torch.as_tensor(weights).to(device=rows.device, dtype=torch.float64)
    return survey_space(rows, weights, metric == "cosine", ranks, shards, chunk, between)


def complaint_about(metric: str, empty: str, tolerance: float) -> str | None:
    """Which of the choices is none."""
    if metric not in METRICS:
        return f'metric={metric!r}: no such metric; give "l2" or "cosine"'
    if empty not in EMPTY:
        return f'empty={empty!r}: nothing that can be done with empty clusters; give "split", "keep" or "resample"'
    if not 0 <= tolerance < math.inf:
        return f"tolerance={tolerance}: give the share of the inertia, 0 or more, that an iteration has to gain"
    return None


def complaint_about_weights(weights: torch.Tensor | np.ndarray | None, n: int) -> str | None:
    """Why these cannot weigh n features."""
    if weights is None:
        return None
    weights = torch.as_tensor(weights)
    if tuple(weights.shape) != (n,):
        return f"weights: shape {tuple(weights.shape)} for {n} features; give one weight a feature"
    bad = (~((weights >= 0) & weights.isfinite())).nonzero()
    if len(bad):
        row = int(bad[0])
        return f"weights: {float(weights[row])} in row {row}; give finite weights, 0 or more"
    return None


def check_iterations(iterations: int) -> None:
    """Raise ValueError unless there is one."""
    if iterations < 1:
        raise ValueError(f"iterations={iterations}: k-means needs one to move its centroids; set it to 1 or more")
