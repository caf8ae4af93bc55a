"""Clustering of features that are spread over ranks and never leave them; only counts and sums travel.

    clusters = fit(features, k=10_000)                     # every rank passes its own shard [n, d]
    clusters.assignments                                   # int64 [n], of this rank's features
    hierarchy = hierarchical(features, (4, 80_000))        # DeeperCluster: k-means inside each cluster of a k-means
    features = fit_whitening(features, 256).apply(features)
    nmi(clusters.assignments, labels)                      # of whole labellings; sharded_nmi: of the ranks' parts
    cluster_entropy(clusters.assignments, labels, k)       # of the labels within each cluster
    size_histogram(clusters.counts)

`fit`, `hierarchical`, `fit_whitening`, `cluster_sizes`, `cluster_entropy` and `sharded_nmi` are collective: every rank
calls them, with the same arguments but for its shard; the first three may be given a `group` of ranks.
"""

from launcher.kmeans.clusters import Clusters, fit
from launcher.kmeans.features import where_they_fit
from launcher.kmeans.hierarchy import Hierarchy, hierarchical
from launcher.kmeans.nmi import nmi
from launcher.kmeans.quality import SizeRange, cluster_entropy, cluster_sizes, sharded_nmi, size_histogram
from launcher.kmeans.whiten import Whitening, fit_whitening

__all__ = [
    "Clusters",
    "Hierarchy",
    "SizeRange",
    "Whitening",
    "cluster_entropy",
    "cluster_sizes",
    "fit",
    "fit_whitening",
    "hierarchical",
    "nmi",
    "sharded_nmi",
    "size_histogram",
    "where_they_fit",
]
