"""DeepCluster-v2 (Caron et al., NeurIPS 2020; thesis 4.4): predict the cluster that an image had an epoch ago.

sslrun method=deepclusterv2 nodes=8 data.path=/data/imagenet   # 64 GPUs; 75.2 linear (thesis 4.4)
sslrun method=deepclusterv2 recipe=demo                        # minutes on 2 CPU cores
"""

from dataclasses import dataclass, replace

from launcher.spec.contract import Clustering, Rate, Recipe, Rounds, Sizes
from launcher.spec.fields import at_least, choice, not_negative, ops, positive, refuse
from methods.augment.spec import MultiCropConfig
from methods.backbones.spec import BACKBONES
from methods.engine.outline import Outline, method
from methods.parts.recipes import in_seconds, on_imagenet, on_photos
from methods.parts.shapes import Perceptron, UnitRows

# The clustering is part of the time, and plans add theirs to it: some 0.1 s of 193.
TIMED = "SwAV's page: 3 min 13 s an epoch with its clustering on 64 GPUs, V100 assumed: 104 images/s of 2x160 + 4x96"


@dataclass
class DeepClusterV2Config(MultiCropConfig):
    """Labels are clusters of the global crops' embeddings in a bank, and predicted from every crop."""

    name: str = "deepclusterv2"
    backbone: str = "resnet50"
    dropout: float = 0.0
    heads: int = at_least(1, 3)  # clusterings, H ("multi-clustering", thesis 4.4; released script: 3000 3000 3000)
    prototypes: int = at_least(2, 3000)  # of each head, K
    hidden: int = at_least(1, 2048)  # width of the projection's hidden layer
    embedding: int = at_least(1, 128)  # dimensions of the projection's output
    temperature: float = positive(0.1, "scores are divided by it")  # tau, Eq. 4.2
    kmeans_iterations: int = at_least(1, 10)  # of each head between two epochs (released code)
    optimizer: str = choice("lars", "sgd")  # of all parameters (released code: lars); sgd for small networks
    # Seconds of a clustering that a kill may cost: centroids go to disk that often. 0: after every iteration; null:
    # never, and a clustering that was interrupted begins anew.
    keep_work_s: float | None = ops(not_negative(10.0, fix="give seconds, 0 or more, or null"))


def paper() -> Recipe:
    """Thesis 4.4, in SwAV's best setting: ResNet-50 on 64 GPUs x 64 images."""
    return on_imagenet(
        DeepClusterV2Config,
        epochs=800,
        global_batch=4096,
        batch_norm_group=512,  # synchronised over 8 GPUs (released code)
        lr=4.8,
        warmup_lr=0.3,
        final_lr=0.0048,
        warmup_epochs=10,
        schedule="cosine",
        weight_decay=1e-6,
        precision="fp16",
        normalise="swav",
        source="thesis 4.4 and 4.2.5; heads, iterations, both ends of the schedule, normalisation: released code",
        expect="ImageNet linear 75.2 after 800 epochs; after 400 of 2x160 + 4x96 74.3, of 2x224 70.2 (thesis 4.4)",
        rate=Rate(1_281_167 / 193 / 64 * 43.2 / 76.3, tflops=125, gpu=True, source=TIMED + " at 43.2 GFLOP, 76.3 here"),
    )


def demo() -> Recipe:
    """A small network on the embedded photographs."""
    return on_photos(
        DeepClusterV2Config,
        source="ours, chosen on the validation split (docs/demos.md)",
        expect="k-NN at least 5 points over the untrained, adapted network, in under 3 minutes on 2 cores",
        backbone="small_vgg",
        augment="flip",
        local_crops=2,
        local_size=16,
        local_scale=[0.1, 0.3],
        prototypes=100,
        hidden=256,
        embedding=64,
        epochs=6,
        global_batch=64,
        lr=0.1,
        warmup_epochs=0.5,
        optimizer="sgd",
    )


def tiny() -> Recipe:
    """Seconds: all of the method, for tests and drills. It learns nothing. Embeddings of so few dimensions would fall
    together at the demo's rate and temperature."""
    less = {"prototypes": 6, "hidden": 16, "embedding": 8, "kmeans_iterations": 3}
    return in_seconds(demo(), **less, augment="simclr", dropout=0.1, lr=0.02, temperature=0.5)


def outline(config: DeepClusterV2Config) -> Outline:
    """A projection, prototypes of all heads, and a bank of embeddings and labels."""
    width = BACKBONES[config.backbone].feature_dim
    return Outline(
        {
            "projection": Perceptron((width, config.hidden, config.embedding)),
            "prototypes": UnitRows(config.embedding, config.heads * config.prototypes),  # C of each head
        },
        couples="the loss is a mean over the images of a batch that have a label",
        across_ranks="the bank lies on all ranks in shares",
        banked=config.global_crops * config.embedding + 2 * config.heads,  # a label takes two scalars' room
    )


def check(config: DeepClusterV2Config, images: int | None) -> None:
    if images is None:
        return
    banked = images // config.global_batch * config.global_batch
    if config.prototypes > banked:
        reason = f"k-means makes no more clusters than the {banked} images that fill the bank, in whole batches"
        refuse(config, "prototypes", reason, f"use at most {banked}, better a tenth of it")


def extra(config: DeepClusterV2Config, world_size: int, sizes: Sizes) -> Sizes:
    """k-means before every epoch, and before the first one the bank's filling, which is no more than a pass."""
    body = BACKBONES[config.backbone].macs_at(config.image_size) + outline(config).heads["projection"].macs
    each = Clustering(config.prototypes, config.embedding, config.kmeans_iterations)
    filling = 2 * config.global_crops * body / config.epochs
    rounds = Rounds(config.epochs, filling, (each,) * config.heads, host_bytes=0)
    clusters = f"k = {config.heads} x {config.prototypes:,} (released script: 3 x 3,000)"
    return replace(sizes, rounds=rounds, why={**sizes.why, "clusters": clusters})


METHOD = method(
    name="deepclusterv2",
    summary="predict the cluster of an epoch ago from every crop (Caron et al. 2020)",
    config=DeepClusterV2Config,
    recipes=(paper, demo, tiny),
    trainer="methods.deepclusterv2.trainer:DeepClusterV2",
    outline=outline,
    check=check,
    extra=extra,
)
