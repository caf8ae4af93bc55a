"""Labels made of a network's features: those of all images, whitened, then k-means (DeepCluster, thesis 3.2.1;
DeeperCluster, 3.3.1; ClusterFit, Yan et al. 2020). Features stay on their rank; labels leave it where somebody asks.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import normalize

from launcher.kmeans import fit, fit_whitening, hierarchical, where_they_fit
from launcher.runtime.dist import World
from launcher.runtime.store import Store
from methods.engine.features import digest_of, extract
from methods.engine.job import Job


@dataclass(frozen=True, eq=False)
class PseudoLabels:
    """Of some images, in host memory, each int64 [n]. ids: which images. super_labels: in 0..m-1; None where there is
    one level. labels: in 0..k-1, where there are two levels within the image's super-cluster."""

    ids: torch.Tensor
    labels: torch.Tensor
    super_labels: torch.Tensor | None = None


def cluster_labels(
    job: Job,
    backbone: nn.Module,
    epoch: int,
    *,
    step: int,
    clusters: tuple[int] | tuple[int, int],
    pca_dim: int | None,
    iterations: int,
    keep_work_s: float | None,
) -> PseudoLabels:
    """Labels of this rank's block of the job's images, without those that cannot be decoded; collective.

    backbone: uint8 [B, C, H, W] on the device -> [B, feature_dim], not distributed; left in eval mode. It sees centre
    crops. clusters: (k,), or (m, k): k within each of m super-clusters. pca_dim: components that are kept and whitened
    before each row is divided by its L2 norm; None: rows are divided by their norm alone (ClusterFit). iterations: of
    k-means, at each level. epoch: beside the job's seed all that k-means draws from. step: of the optimiser, before
    which this happens. keep_work_s: seconds of the work that a kill may cost; None keeps nothing (`Job.keeping`).

    The labels are the same for any number of ranks but for rounding, and the same bytes whether or not the work was
    stopped and went on. Raises Stopped between batches and within k-means, on all ranks, and ValueError as
    `launcher.kmeans.fit` and `fit_whitening` do where clusters or components are more than there can be.
    """
    backbone.eval()
    d = backbone.feature_dim
    centroids = sum(math.prod(clusters[:level]) for level in range(1, len(clusters) + 1)) * (pca_dim or d)
    needed = 4 * (len(job.dataset) + (pca_dim or 0)) * d + 4 * centroids
    weights = lambda: {"weights": digest_of(backbone.state_dict())}  # noqa: E731
    with job.keeping(step, weights, needed=needed, every_s=keep_work_s) as store:
        encode = backbone if pca_dim else lambda images: normalize(backbone(images).float(), dim=1)
        features, ids = extract(job, job.dataset, encode, stage="features", store=store)
        features = where_they_fit(features, job.world.device)
        if pca_dim:
            whitening = fit_whitening(features, pca_dim, safe_point=job.safe_point, resume=store.slot("whitening"))
            features = whitening.apply_(features, safe_point=job.safe_point)
        seed = job.seed_for("k-means", epoch) % 2**32
        labels, super_labels = _clustered(job, features, clusters, iterations, seed, store)
    return PseudoLabels(torch.from_numpy(ids), labels.cpu(), None if super_labels is None else super_labels.cpu())


def _clustered(
    job: Job, features: torch.Tensor, clusters: tuple[int] | tuple[int, int], iterations: int, seed: int, store: Store
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(labels, super-labels or None) of this rank's features."""
    given = {"iterations": iterations, "seed": seed, "safe_point": job.safe_point}
    if len(clusters) == 1:
        return fit(features, clusters[0], **given, resume=store.slot("k-means")).assignments, None
    found = hierarchical(features, clusters, **given, resume=store.slot)
    return found.sub_assignments, found.super_clusters.assignments


def labels_within(world: World, found: PseudoLabels, wanted: Sequence[Collection[int]]) -> PseudoLabels:
    """Of the images of all ranks, those in the super-clusters `wanted[rank]` of this rank (where there is one level: in
    its clusters), in order of the ranks that had them. Collective, with the same `wanted` on all ranks: one all-to-all,
    of 24 bytes for each image and rank that wants it."""
    outer = found.labels if found.super_labels is None else found.super_labels
    rows = torch.stack([found.ids, found.labels, outer], dim=1)
    mine = world.exchange([rows[torch.isin(outer, torch.tensor(sorted(few), dtype=torch.int64))] for few in wanted])
    ids, labels, outer = mine.unbind(dim=1)
    return PseudoLabels(ids, labels, None if found.super_labels is None else outer)


def labels_of_all(world: World, ids: torch.Tensor, labels: torch.Tensor, images: int) -> torch.Tensor:
    """int32 [images] on every rank: the label of each image by its id, -1 for those that no rank has one of; one
    all-reduce of 4 bytes an image, in host memory.

    ids, labels: int64 [n], of this rank, 0 or more. An image has one label: give a sample's to one rank.

    >>> alone = World(rank=0, size=1, device=torch.device("cpu"))
    >>> labels_of_all(alone, torch.tensor([3, 0]), torch.tensor([7, 9]), 5).tolist()
    [9, -1, -1, 7, -1]
    """
    whole = torch.full((images,), -1, dtype=torch.int32)
    whole[ids] = labels.int()
    if world.size > 1:
        dist.all_reduce(whole, op=dist.ReduceOp.MAX, group=world.control)
    return whole
