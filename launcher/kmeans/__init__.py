"""Clustering of features that are spread over ranks and never leave them; only counts and sums travel.

    clusters = fit(features, k=10_000)                     # every rank passes its own shard [n, d]
    clusters.assignments                                   # int64 [n], of this rank's features
    hierarchy = hierarchical(features, (4, 80_000))        # DeeperCluster: k-means inside each cluster of a k-means
    features = fit_whitening(features, 256).apply(features)
    nmi(clusters.assignments, labels)

`fit`, `hierarchical` and `fit_whitening` are collective: every rank of `group` calls them, with the same arguments but
for its shard.
"""

from launcher.kmeans.clusters import Clusters, fit
from launcher.kmeans.hierarchy import Hierarchy, hierarchical
from launcher.kmeans.nmi import nmi
from launcher.kmeans.whiten import Whitening, fit_whitening

__all__ = ["Clusters", "Hierarchy", "Whitening", "fit", "fit_whitening", "hierarchical", "nmi"]
