"""MoCo-v2 (He et al., CVPR 2020; Chen et al. 2020): find the key of one's own image among those of a long queue.

sslrun method=mocov2 nodes=1 data.path=/data/imagenet                         # 8 GPUs; 67.5 linear (Chen et al. 2020)
sslrun method=mocov2 method.epochs=800 data.path=/data/imagenet               # 71.1
sslrun method=mocov2 recipe=vit_small_16 nodes=2 data.path=/data/imagenet     # 73.4 (thesis, Table 5.16)
sslrun method=mocov2 recipe=demo                                              # minutes on 2 CPU cores
"""

from dataclasses import dataclass, field

from launcher.spec.contract import Rate, Recipe
from launcher.spec.fields import at_least, below_one, choice, later, not_negative, positive, refuse
from methods.augment.spec import MultiCropConfig, views_of
from methods.backbones.spec import BACKBONES
from methods.engine.outline import Follower, Outline, method
from methods.parts.memory_layout import check_queue
from methods.parts.recipes import in_seconds, on_imagenet, on_photos
from methods.parts.shapes import Outside, Perceptron, UnitRows


@dataclass
class MoCoV2Config(MultiCropConfig):
    """The key is of one global crop, the queries of the other one and of the local ones, if any."""

    name: str = "mocov2"
    backbone: str = "resnet50"
    crop_scale: list[float] = field(default_factory=lambda: [0.2, 1.0])
    local_crops: int = 0
    augment: str = "mocov2"
    dropout: float = 0.0
    hidden: int = at_least(1, 2048)  # width of the projection's hidden layer
    embedding: int = at_least(1, 128)  # dimensions of queries and keys
    head_batch_norm: bool = later(False)  # after the projection's hidden layer
    queue: int = at_least(1, 65_536)  # K: keys, over all ranks
    temperature: float = positive(0.2, "similarities are divided by it")  # tau, Eq. 1
    encoder_momentum: float = below_one(0.999)  # m, Eq. 2
    shuffle: bool = True  # keys, where a group of batch statistics is not all of the batch ("Shuffling BN", 3.3)
    optimizer: str = choice("sgd", "adamw")
    final_weight_decay: float | None = not_negative(None)  # of a cosine from weight_decay; null: it stays


def paper() -> Recipe:
    """Chen et al. 2020: ResNet-50 on 8 GPUs x 32 images; method.epochs=800 for the longer one."""
    return on_imagenet(
        MoCoV2Config,
        epochs=200,
        global_batch=256,
        batch_norm_group=32,  # each GPU has its own (He et al. 2020, 3.3)
        lr=0.03,
        schedule="cosine",  # step by step, where the released code goes down epoch by epoch
        weight_decay=1e-4,
        source="Chen et al. 2020; batch, optimiser, queue, embedding, momentum: He et al. 2020; numbers of projection "
        "and augmentation: released code",
        expect="ImageNet linear 67.5 after 200 epochs, 71.1 after 800 (Chen et al. 2020, Table 2)",
        rate=Rate(168, tflops=15.7, gpu=True, source="Chen et al. 2020, Table 3: 200 epochs in 53 h on 8 V100"),
    )


def vit_small_16() -> Recipe:
    """Thesis, Tables 5.2, 5.9, 5.11 and 5.16: in the setup of DINO's ViT-S/16.

    Without multi-crop: method.local_crops=0 and, as DINO's runs without, method.crop_scale=[0.14,1.0].
    """
    return paper().but(
        backbone="vit_small_16",
        head_batch_norm=True,
        crop_scale=[0.32, 1.0],
        local_crops=6,
        local_scale=[0.05, 0.32],
        augment="byol",
        epochs=300,
        global_batch=1024,
        batch_norm_group=0,
        optimizer="adamw",
        lr=0.002,  # 0.0005 x 1024 / 256
        warmup_lr=0.0,
        final_lr=1e-6,
        warmup_epochs=10,
        weight_decay=0.04,
        final_weight_decay=0.4,
        precision="fp16",
        source="300 epochs, six local crops, batch normalisation in the head: thesis, Tables 5.9, 5.11 and 5.16; "
        "optimiser, schedule, crops and augmentation are those of DINO's ViT-S/16 (thesis 5.3.2, 5.6.7), head, queue, "
        "temperature and momentum those of MoCo-v2: the thesis says that methods share a setup, and no more. "
        "Unpublished, and ours: queries of one global crop and the local ones, keys of the other global crop, no "
        "dropped paths, no clipping, and that the head is normalised after its hidden layer, over the whole batch",
        expect="ImageNet linear 73.4, k-NN 65.4; 71.6 and 62.0 without local crops (thesis, Table 5.16)",
        # Nobody timed it. A rate is of one network and its crops: the share of the peak is what both have.
        rate=Rate(172, tflops=125, gpu=True, source="DINO's 110 images/s (thesis, Table 5.14) at 103 GFLOP, 65.7 here"),
    )


def demo() -> Recipe:
    """A small network on the embedded photographs."""
    return on_photos(
        MoCoV2Config,
        source="ours, chosen on the validation split (docs/demos.md)",
        expect="k-NN at least 5 points over the untrained, adapted network, in under 3 minutes on 2 cores",
        backbone="small_resnet",
        augment="flip",
        local_size=16,  # where a variant has local crops
        local_scale=[0.1, 0.3],
        hidden=256,
        embedding=64,
        queue=4096,
        encoder_momentum=0.99,
        epochs=6,
        global_batch=64,
        lr=0.06,
        warmup_epochs=0.5,
    )


def tiny() -> Recipe:
    """Seconds: all of the method, for tests and drills; a queue of three batches. It learns nothing."""
    less = {"hidden": 16, "embedding": 8, "queue": 96}
    return in_seconds(demo(), **less, augment="mocov2", local_crops=1, encoder_momentum=0.9, final_weight_decay=1e-3)


def outline(config: MoCoV2Config) -> Outline:
    """A projection, keys that queries meet, and a momentum encoder."""
    widths = (BACKBONES[config.backbone].feature_dim, config.hidden, config.embedding)
    return Outline(
        {
            "projection": Perceptron(widths, batch_norm=config.head_batch_norm),
            "keys": Outside(UnitRows(config.embedding, config.queue)),
        },
        couples="a whole batch of keys takes the place of the oldest one in the queue",
        across_ranks="the queue has the keys of all ranks",
        views=((1, config.image_size), *views_of(config)[1:]),  # the other global crop goes through f_k
        follower=Follower("the momentum encoder", ("projection",), 1),
        replicated={"queue": config.queue * config.embedding},
    )


def check(config: MoCoV2Config, images: int | None) -> None:
    check_queue(config)
    if config.global_crops != 2:
        refuse(config, "global_crops", "one gives the query, the other one the key", "give 2")
    if images is not None and config.queue > images:
        longest = images // config.global_batch * config.global_batch
        reason = f"of {images} images; most queries would meet an older key of their own image as a wrong answer"
        refuse(config, "queue", reason, f"use at most {longest}")


METHOD = method(
    name="mocov2",
    summary="find the key of an image among those of a long queue (He et al. 2020, Chen et al. 2020)",
    config=MoCoV2Config,
    recipes=(paper, vit_small_16, demo, tiny),
    trainer="methods.mocov2.trainer:MoCoV2",
    outline=outline,
    check=check,
)
