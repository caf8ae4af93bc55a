"""SMoG (Pang et al., ECCV 2022): contrast images with groups that move with them, and pass on gradients.

sslrun method=smog nodes=8 data.path=/data/imagenet                 # 64 GPUs; 76.4 linear after 400 epochs (Table 1)
sslrun method=smog recipe=swin nodes=8 data.path=/data/imagenet     # Swin-T; 77.7 (Table 2)
sslrun method=smog recipe=demo                                      # minutes on 2 CPU cores
sslrun method=smog nodes=8 method.epochs=100 method.local_crops=0 data.path=/data/imagenet    # the ablations: 67.2
"""

import math
from dataclasses import dataclass

from launcher.errors import InputError
from launcher.spec.contract import Layout, Method, Rate, Recipe, Sizes
from methods.augment.spec import ViewsConfig, check_views, cost_of_views
from methods.backbones.spec import BACKBONES
from methods.data.spec import ImageFolderData, PhotosData
from methods.parts.layout import (
    batch_norm_fits,
    batch_norm_layout,
    check_statistics,
    check_training,
    check_world,
    memory_parts,
)

# A rate is of one network and its crops: the share of the peak is what both have in common.
STAND_IN = "SMoG's paper gives no rate: SwAV's 89 images/s on V100 (thesis 4.4) at 76.3 GFLOP an image"
CHOICES = {
    "algorithm": ("momentum", "average", "latest", "random"),
    "activation": ("relu", "gelu"),
    "optimizer": ("lars", "adamw", "sgd"),
}


@dataclass
class SMoGConfig(ViewsConfig):
    """One global crop goes through the network that trains, the other one through its momentum network f-hat; which
    does which alternates from step to step. Local crops are predicted from, too."""

    name: str = "smog"
    backbone: str = "resnet50"
    dropout: float = 0.0
    augment: str = "byol"
    asymmetric: bool = True  # two augmentations, of which the streams take turns (3.4); False: both have the first one
    groups: int = 3000
    hidden: int = 2048  # of both heads
    embedding: int = 128  # their output: the groups' dimensions
    activation: str = "relu"  # of both heads: relu | gelu
    temperature: float = 0.1  # tau, Eq. 3
    beta: float = 1.0  # Eq. 4, in the first step
    final_beta: float = 0.99  # after the last one; linear in between
    algorithm: str = "momentum"  # momentum | average | latest | random (Table 7d)
    encoder_momentum: float = 0.999  # alpha, of f-hat
    refit_every: int = 300  # steps from k-means to k-means of the cached features (3.4); 0: never
    reset_every: int = 300  # steps after which f-hat becomes a copy of the network (3.4); 0: never
    cache: int = 300  # batches whose features it remembers for k-means
    optimizer: str = "lars"  # lars | adamw | sgd; biases and norms neither decay nor adapt


def paper() -> Recipe:
    """3.4: ResNet-50 on 64 GPUs x 64 images."""
    return Recipe(
        method=SMoGConfig(
            crop_scale=[0.2, 1.0],
            local_crops=4,
            local_scale=[0.05, 0.2],
            epochs=400,
            global_batch=4096,
            batch_norm_group=512,  # over 8 GPUs, as SwAV's; the paper does not say
            lr=4.8,  # 0.3 x 4096 / 256
            warmup_epochs=10,
            schedule="cosine",
            weight_decay=1e-6,
            precision="bf16",
        ),
        data=ImageFolderData(),
        images=1_281_167,  # ImageNet
        source="SMoG 3.4; what LARS leaves out, batch statistics and precision are ours: the paper does not say",
        expect="ImageNet linear 76.4 after 400 epochs (Table 1); 73.6 without local crops at a batch of 2048",
        rate=Rate(133, tflops=125, gpu=True, source=f"{STAND_IN}; 50.9 a SMoG image"),
    )


def swin() -> Recipe:
    """3.4: Swin-T; what is said of transformers, and the rest as for ResNet-50."""
    large = paper()
    method = {
        **vars(large.method),
        "backbone": "swin_tiny",
        "embedding": 256,
        "activation": "gelu",
        "optimizer": "adamw",
        "lr": 1e-3,  # 5e-4 x 4096 / 2048
        "weight_decay": 0.05,
    }
    return Recipe(
        method=SMoGConfig(**method),
        data=large.data,
        images=large.images,
        source="SMoG 3.4; batch and epochs as for ResNet-50: the paper gives no others",
        expect="ImageNet linear 77.7; 74.5 without local crops (Table 2)",
    )


def demo() -> Recipe:
    """A small network on the embedded photographs."""
    return Recipe(
        method=SMoGConfig(
            backbone="small_vgg",
            image_size=32,
            crop_scale=[0.2, 1.0],
            local_crops=2,
            local_size=16,
            local_scale=[0.05, 0.2],
            groups=100,
            hidden=256,
            embedding=64,
            encoder_momentum=0.99,
            refit_every=50,
            reset_every=50,
            cache=50,
            epochs=10,
            global_batch=128,
            lr=0.1,
            warmup_epochs=0.5,
            schedule="cosine",
            weight_decay=1e-4,
            optimizer="sgd",
            workers=0,
            checkpoint_every=200,
            log_every=20,
        ),
        data=PhotosData(),
        images=6080,
        source="our own setting on the embedded photographs",
        expect="k-NN at least 10 points over the untrained network, in under 2 minutes on 2 cores",
    )


def tiny() -> Recipe:
    """Seconds: all of the method, for tests and drills. It learns nothing. Its rate and temperature are mild, so
    that a rounding stays small for many steps."""
    small = {
        "image_size": 16, "local_size": 8, "groups": 12, "hidden": 16, "embedding": 8, "epochs": 2, "beta": 0.9,
        "global_batch": 32, "refit_every": 4, "reset_every": 4, "cache": 3, "checkpoint_every": 3, "log_every": 2,
        "lr": 0.02, "temperature": 0.5, "dropout": 0.1,
    }  # fmt: skip
    method = SMoGConfig(**{**vars(demo().method), **small})
    return Recipe(method=method, data=PhotosData(images=304), images=304, source="ours", expect="nothing but speed")


def validate(config: SMoGConfig, images: int | None) -> None:
    """Raises InputError naming the first field that cannot work. `images`: size of the training data, if known."""
    check_training(config, images)
    check_views(config)
    check_statistics(config)
    if config.global_crops != 2:
        reason = "one goes through the network, the other one through f-hat"
        raise InputError.of("method.global_crops", config.global_crops, reason, "give 2")
    for field, least in (("groups", 2), ("hidden", 1), ("embedding", 1), ("cache", 1)):
        if getattr(config, field) < least:
            raise InputError.of(f"method.{field}", getattr(config, field), "too few", f"give {least} or more")
    for field in ("refit_every", "reset_every"):
        if getattr(config, field) < 0:
            fix = "give a number of steps, or 0 for never"
            raise InputError.of(f"method.{field}", getattr(config, field), "it is negative", fix)
    if not 0 < config.temperature < math.inf:
        reason = "similarities are divided by it"
        raise InputError.of("method.temperature", config.temperature, reason, "give a positive number")
    for field in ("beta", "final_beta", "encoder_momentum"):
        if not 0 <= getattr(config, field) <= 1:
            reason = "it is the share that stays as it was"
            raise InputError.of(f"method.{field}", getattr(config, field), reason, "give a number from 0 to 1")
    for field, known in CHOICES.items():
        if getattr(config, field) not in known:
            fix = f"use {', '.join(known[:-1])} or {known[-1]}"
            raise InputError.of(f"method.{field}", getattr(config, field), "no such choice", fix)
    _check_cache(config)


def _check_cache(config: SMoGConfig) -> None:
    """k-means starts from as many features as there are groups."""
    if not config.refit_every:
        return
    for field in ("cache", "refit_every"):
        features = getattr(config, field) * config.global_batch
        if features < config.groups:
            reason = f"k-means finds {features} features for {config.groups} groups"
            fix = f"use at least {math.ceil(config.groups / config.global_batch)}"
            raise InputError.of(f"method.{field}", getattr(config, field), reason, fix)


def layout(config: SMoGConfig, world_size: int) -> Layout:
    """Data parallel, in one pass: the groups move once a step, with the images of a whole batch. Raises InputError with
    the worlds that fit."""
    check_world(config, world_size, _fits, ", its batch statistics or its cache")
    per_rank = config.global_batch // world_size
    _, _, ranks, shared = batch_norm_layout(config, per_rank, world_size)
    why = {
        "groups": "the groups are those of all ranks",
        "group_size": "the whole world",
        "per_gpu_batch": f"{config.global_batch} / {world_size} ranks = {per_rank} images; {shared}",
        "accumulation": "none: the loss couples the images of a batch (Eq. 4)",
    }
    waste = None
    if config.global_batch < config.groups:
        steps = math.ceil(config.groups / config.global_batch)
        begin = "they begin at random" + (f", and with k-means after {steps} steps" if config.refit_every else "")
        waste = (
            f"a batch of {config.global_batch} images moves at most as many of {config.groups} groups, and is too few "
            f"for k-means: {begin}. Fewer groups lose little on ImageNet down to 1000 (Table 7c): "
            f"method.groups={max(2, config.global_batch // 2)}"
        )
    return Layout(per_rank, 1, 1, world_size, 1, ranks, why, waste)


def _fits(config: SMoGConfig, world_size: int) -> bool:
    if config.global_batch % world_size or (config.refit_every and memory_parts(config.global_batch) % world_size):
        return False
    per_rank = config.global_batch // world_size
    return batch_norm_fits(config, per_rank, world_size) and batch_norm_layout(config, per_rank, world_size)[1] == 1


def sizes(config: SMoGConfig, world_size: int) -> Sizes:
    """Scalars of the network, of f-hat and of the cache."""
    backbone = BACKBONES[config.backbone]
    projection = config.hidden * (backbone.feature_dim + 2 + config.embedding) + 2 * config.embedding
    predictor = config.hidden * (2 * config.embedding + 2) + config.embedding
    predictions = 1 + config.local_crops
    macs, activations, unhalved = cost_of_views(SMoGConfig(**{**vars(config), "global_crops": 1}))  # that train
    heads = predictions * (projection + predictor + config.groups * config.embedding)
    followed = backbone.macs_at(config.image_size) + projection
    slots = 2 if config.optimizer == "adamw" else 1
    return Sizes(
        parameters=backbone.parameters + projection + predictor,
        sharded_parameters=0,
        hosted_parameters=0,
        optimiser_slots=slots,
        flops_per_image=6 * (macs + heads) + 2 * followed,
        activations=4 * (activations + predictions * 6 * config.hidden),
        why={"disk": "the network, its optimiser, f-hat" + (", and the cache" if config.refit_every else "")},
        following_parameters=backbone.parameters + projection,  # f-hat
        remembered=config.cache * config.global_batch * config.embedding if config.refit_every else 0,
        # With similarities, their logarithms and the gradients of both.
        unhalved=4 * (unhalved + predictions * 4 * config.groups),
    )


METHOD = Method(
    name="smog",
    summary="contrast images with groups that move with them (Pang et al. 2022)",
    config=SMoGConfig,
    recipes={"paper": paper, "swin": swin, "demo": demo, "tiny": tiny},
    trainer="methods.smog.trainer:SMoG",
    validate=validate,
    layout=layout,
    sizes=sizes,
)
