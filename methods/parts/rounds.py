"""What it takes to make pseudo-labels anew between epochs (engine/pseudo_labels.py), for plans. No torch."""

from launcher.spec.contract import Clustering, Rounds
from launcher.spec.schema import TrainConfig
from methods.backbones.spec import BACKBONES


def rounds_of(
    config: TrainConfig,
    clusters: tuple[int] | tuple[int, int],
    *,
    pca_dim: int | None,
    iterations: int,
    every: int | None,
    first: int = 0,
    backbone: str | None = None,
) -> Rounds:
    """clusters, pca_dim and iterations: as of `cluster_labels`. every: epochs from one round to the next, the first one
    before the epoch `first`; None: there is one round. backbone: whose features are clustered; None: the one that
    trains."""
    size = BACKBONES[backbone or config.backbone]
    d, within = pca_dim or size.feature_dim, (1, *clusters)
    levels = zip(clusters, within[:-1], strict=True)
    return Rounds(
        count=len(range(first, config.epochs, every or config.epochs)),
        forward_flops=2 * size.macs_at(config.image_size),  # a multiply-add is 2
        clusterings=tuple(Clustering(k, d, iterations, m=m) for k, m in levels),
        host_bytes=4 * size.feature_dim,
    )
