"""DeepCluster-v2 (Caron et al., NeurIPS 2020; thesis 4.4): predict the cluster that an image had an epoch ago.

sslrun method=deepclusterv2 nodes=8 data.path=/data/imagenet   # 64 GPUs; 75.2 linear (thesis 4.4)
sslrun method=deepclusterv2 recipe=demo                        # minutes on 2 CPU cores
"""

from dataclasses import dataclass, replace

from launcher.spec.contract import Clustering, Rate, Recipe, Rounds, Sizes
from launcher.spec.fields import at_least, not_negative, ops
from methods.engine import banked_spec as banked
from methods.engine.outline import method
from methods.parts.recipes import in_seconds

# The clustering is part of the time, and plans add theirs to it: some 0.1 s of 193.
TIMED = "SwAV's page: 3 min 13 s an epoch with its clustering on 64 GPUs, V100 assumed: 104 images/s of 2x160 + 4x96"


@dataclass
class DeepClusterV2Config(banked.BankedConfig):
    """Labels are clusters of the global crops' embeddings in a bank."""

    name: str = "deepclusterv2"
    kmeans_iterations: int = at_least(1, 10)  # of each head between two epochs (released code)
    # Seconds of a clustering that a kill may cost: centroids go to disk that often. 0: after every iteration; null:
    # never, and a clustering that was interrupted begins anew.
    keep_work_s: float | None = ops(not_negative(10.0, fix="give seconds, 0 or more, or null"))


def paper() -> Recipe:
    """Thesis 4.4, in SwAV's best setting."""
    return banked.banked_paper(
        DeepClusterV2Config,
        epochs=800,
        source="thesis 4.4 and 4.2.5; heads, iterations, both ends of the schedule, normalisation: released code",
        expect="ImageNet linear 75.2 after 800 epochs; after 400 of 2x160 + 4x96 74.3, of 2x224 70.2 (thesis 4.4)",
        rate=Rate(1_281_167 / 193 / 64 * 43.2 / 76.3, tflops=125, gpu=True, source=TIMED + " at 43.2 GFLOP, 76.3 here"),
    )


def demo() -> Recipe:
    return banked.banked_demo(DeepClusterV2Config)


def tiny() -> Recipe:
    """Seconds: all of the method, for tests and drills. It learns nothing. Embeddings of so few dimensions would fall
    together at the demo's rate and temperature."""
    less = {"prototypes": 6, "hidden": 16, "embedding": 8, "kmeans_iterations": 3}
    return in_seconds(demo(), **less, augment="simclr", dropout=0.1, lr=0.02, temperature=0.5)


def check(config: DeepClusterV2Config, images: int | None) -> None:
    why = "k-means makes no more clusters than the {banked} images that fill the bank, in whole batches"
    banked.refuse_few_images(config, images, why)


def extra(config: DeepClusterV2Config, world_size: int, sizes: Sizes) -> Sizes:
    """k-means before every epoch."""
    each = Clustering(config.prototypes, config.embedding, config.kmeans_iterations)
    rounds = Rounds(config.epochs, 2 * banked.filling_macs(config), (each,) * config.heads, host_bytes=0)
    clusters = f"k = {config.heads} x {config.prototypes:,} (released script: 3 x 3,000)"
    return replace(sizes, rounds=rounds, why={**sizes.why, "clusters": clusters})


METHOD = method(
    name="deepclusterv2",
    summary="predict the cluster of an epoch ago from every crop (Caron et al. 2020)",
    config=DeepClusterV2Config,
    recipes=(paper, demo, tiny),
    trainer="methods.deepclusterv2.trainer:DeepClusterV2",
    outline=banked.banked_outline,
    check=check,
    extra=extra,
)
