"""SwAV (Caron et al., NeurIPS 2020; thesis chapter 4): predict the cluster of one view of an image from another view.

sslrun method=swav nodes=8 data.path=/data/imagenet                            # 64 GPUs; 75.3 linear (thesis 4.4)
sslrun method=swav recipe=small_batch nodes=1 tasks_per_node=4 data.path=/data/imagenet    # 72.7 (thesis, Table 4.3)
sslrun method=swav recipe=regnety_256gf nodes=64 cluster=v100_32gb data.path=/data/images  # 84.2 finetuned (Table 4.7)
sslrun method=swav recipe=demo                                                 # minutes on 2 CPU cores
"""

import math
from dataclasses import dataclass
from itertools import pairwise

from launcher.errors import InputError
from launcher.spec.contract import Layout, Method, Rate, Recipe, Sizes
from launcher.spec.schema import ops
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

CHOICES = {"assignment": ("soft", "rounded"), "optimizer": ("lars", "sgd")}


@dataclass
class SwAVConfig(ViewsConfig):
    """Labels are computed of the global crops, and predicted from every other crop."""

    name: str = "swav"
    backbone: str = "resnet50"
    dropout: float = 0.0
    prototypes: int = 3000  # K
    hidden: int = 2048  # of the projection
    head_layers: int = 2  # its linear layers
    head_batch_norm: bool = True  # after each of them but the last
    embedding: int = 128  # its output
    temperature: float = 0.1  # tau, Eq. 4.2
    epsilon: float = 0.05  # Eq. 4.3
    sinkhorn_iterations: int = 3
    assignment: str = "soft"  # soft | rounded (4.2.2)
    queue: int = 0  # embeddings of earlier images that take part in the transport (4.2.3); 0: none
    queue_epoch: int = 15  # from which the queue is filled (released code)
    freeze_epochs: float = 1.0  # in which the prototypes stay as they were drawn (released code: 313 iterations)
    optimizer: str = "lars"  # of all parameters (released code); sgd for small networks
    checkpoint_activations: bool = ops(False)  # residual blocks are computed again in the backward pass, to save memory


def paper() -> Recipe:
    """Thesis 4.2.5 and 4.4: ResNet-50 on 64 GPUs x 64 images."""
    return Recipe(
        method=SwAVConfig(
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
        ),
        data=ImageFolderData(),
        images=1_281_167,  # ImageNet
        source="thesis 4.2.5; lr at both ends of the schedule, frozen prototypes and normalisation: released code",
        expect="ImageNet linear 75.3 after 800 epochs, 72.1 after 100 (thesis 4.4)",
        rate=Rate(89, tflops=125, gpu=True, source="thesis 4.4: 100 epochs in 6 h 15 min on 64 V100"),
    )


def small_batch() -> Recipe:
    """Thesis 4.2.3 and Table 4.3: 4 GPUs x 64 images and a queue."""
    large = paper()
    method = {
        **vars(large.method),
        "epochs": 200,
        "global_batch": 256,
        "batch_norm_group": 0,
        "lr": 0.6,
        "warmup_lr": None,
        "final_lr": 0.0006,
        "warmup_epochs": 0,
        "queue": 3840,
    }
    return Recipe(
        method=SwAVConfig(**method),
        data=large.data,
        images=large.images,
        source="thesis 4.2.3; lr and the queue's first epoch: released code",
        expect="ImageNet linear 72.7 after 200 epochs, 74.3 after 400 (thesis, Table 4.3)",
        rate=large.rate,
    )


def regnety_256gf() -> Recipe:
    """Thesis 4.5: 1.3 billion parameters and a billion images, once, on 512 GPUs x 17 images."""
    return Recipe(
        method=SwAVConfig(
            backbone="regnety_256gf",
            local_crops=4,
            prototypes=16_000,
            hidden=8192,
            head_layers=3,
            head_batch_norm=False,
            embedding=256,
            sinkhorn_iterations=10,
            epochs=1,
            global_batch=8704,
            batch_norm_group=136,
            lr=10.2,
            final_lr=0.0102,
            warmup_epochs=0.05,
            schedule="cosine",
            freeze_epochs=313 / 114_890,
            weight_decay=1e-5,
            precision="fp16",
            normalise="swav",
            checkpoint_activations=True,
        ),
        data=ImageFolderData(),
        images=1_000_000_000,
        source="thesis 4.5.1 and Goyal et al. 2021; the head: released code (VISSL's for 16,000 prototypes); ours, "
        "for want of a number: activation checkpointing, statistics over 8 GPUs, a warm-up of 5 %, frozen prototypes "
        "for 313 iterations as SwAV's code",
        expect="ImageNet finetuned 84.2 (thesis, Table 4.7); 8 days",
        rate=Rate(8704 / 512 / 6.125, tflops=125, gpu=True, source="thesis 4.5.1: 6125 ms an iteration on 512 V100"),
    )


def demo() -> Recipe:
    """A small network on the embedded photographs."""
    return Recipe(
        method=SwAVConfig(
            backbone="small_vgg",
            image_size=32,
            crop_scale=[0.3, 1.0],
            local_crops=2,
            local_size=16,
            local_scale=[0.1, 0.3],
            prototypes=100,
            hidden=256,
            embedding=64,
            epochs=10,
            global_batch=64,
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
        source="our own setting on the embedded photographs, the first one tried",
        expect="k-NN at least 10 points over the untrained network, in under 3 minutes on 2 cores",
    )


def tiny() -> Recipe:
    """Seconds: all of the method, for tests and drills. It learns nothing."""
    small = {
        "image_size": 16, "local_size": 8, "prototypes": 12, "hidden": 16, "embedding": 8, "epochs": 2,
        "global_batch": 32, "queue": 64, "queue_epoch": 1, "checkpoint_every": 3, "log_every": 2, "dropout": 0.1,
    }  # fmt: skip
    method = SwAVConfig(**{**vars(demo().method), **small})
    return Recipe(method=method, data=PhotosData(images=304), images=304, source="ours", expect="nothing but speed")


def validate(config: SwAVConfig, images: int | None) -> None:
    """Raises InputError naming the first field that cannot work. `images`: size of the training data, if known."""
    check_training(config, images)
    check_views(config)
    if config.head_batch_norm:
        check_statistics(config)
    if config.global_crops < 2:
        reason = "the cluster of one view is predicted from another"
        raise InputError.of("method.global_crops", config.global_crops, reason, "give 2 or more")
    least_of = {"prototypes": 2, "hidden": 1, "head_layers": 1, "embedding": 1, "sinkhorn_iterations": 1}
    for field, least in least_of.items():
        if getattr(config, field) < least:
            raise InputError.of(f"method.{field}", getattr(config, field), "too few", f"give {least} or more")
    for field in ("temperature", "epsilon"):
        if not 0 < getattr(config, field) < math.inf:
            reason = "scores are divided by it"
            raise InputError.of(f"method.{field}", getattr(config, field), reason, "give a positive number")
    for field in ("queue", "queue_epoch", "freeze_epochs"):
        if not 0 <= getattr(config, field) < math.inf:
            raise InputError.of(f"method.{field}", getattr(config, field), "it is negative", "give 0 or more")
    if config.checkpoint_activations and not BACKBONES[config.backbone].recomputed:
        able = ", ".join(name for name, size in BACKBONES.items() if size.recomputed)
        reason = f"{config.backbone} has no residual blocks to compute again"
        raise InputError.of("method.checkpoint_activations", True, reason, f"set it to false, or use {able}")
    if 0 < config.queue < config.global_batch:
        fix = f"use at least {config.global_batch}, or 0 for none"
        raise InputError.of("method.queue", config.queue, f"it holds no batch of {config.global_batch}", fix)
    for field, known in CHOICES.items():
        if getattr(config, field) not in known:
            fix = f"use {' or '.join(known)}"
            raise InputError.of(f"method.{field}", getattr(config, field), "no such choice", fix)


def layout(config: SwAVConfig, world_size: int) -> Layout:
    """Data parallel, in one pass: the transport is over the images of a whole batch. Raises InputError with the worlds
    that fit."""
    check_world(config, world_size, _fits, ", its batch statistics or its queue")
    per_rank = config.global_batch // world_size
    _, _, ranks, shared = batch_norm_layout(config, per_rank, world_size)
    why = {
        "groups": "the transport is over all ranks",
        "group_size": "the whole world",
        "per_gpu_batch": f"{config.global_batch} / {world_size} ranks = {per_rank} images; {shared}",
        "accumulation": "none: the loss couples the images of a batch (Eq. 4.3)",
    }
    waste = None
    together = config.global_batch + config.queue // config.global_batch * config.global_batch
    if together < config.prototypes:
        what, helps = ("a batch and its queue", "a longer queue") if config.queue else ("a batch", "a queue")
        queue = max(15, math.ceil(config.prototypes / config.global_batch)) * config.global_batch
        fits = _fits(SwAVConfig(**{**vars(config), "queue": queue}), world_size)
        fix = f"method.queue={queue}" if fits else "on fewer ranks"
        waste = (
            f"{what} of {together} images is shared out alike among {config.prototypes} prototypes, which are more; "
            f"{helps} helps (thesis 4.2.3): {fix}"
        )
    return Layout(per_rank, 1, 1, world_size, 1, ranks, why, waste)


def _fits(config: SwAVConfig, world_size: int) -> bool:
    if config.global_batch % world_size or (config.queue and memory_parts(config.global_batch) % world_size):
        return False
    per_rank = config.global_batch // world_size
    return batch_norm_fits(config, per_rank, world_size) and batch_norm_layout(config, per_rank, world_size)[1] == 1


def sizes(config: SwAVConfig, world_size: int) -> Sizes:
    """Scalars of backbone, projection and prototypes."""
    width = BACKBONES[config.backbone].feature_dim
    widths = [width, *[config.hidden] * (config.head_layers - 1), config.embedding]
    scalars = 2 if config.head_batch_norm else 1  # scale and shift, or a bias
    head = sum(a * b for a, b in pairwise(widths)) + scalars * sum(widths[1:-1]) + config.embedding
    head += config.embedding * config.prototypes
    macs, activations, unhalved = cost_of_views(config, recompute=config.checkpoint_activations)
    passes = 4 if config.checkpoint_activations else 3  # forward, backward twice as much, and forward again
    crops = config.global_crops + config.local_crops
    # In fp32: scores, their logarithms and the gradients of both; of global crops the labels, and what they meet.
    scores = (4 * crops + 3 * config.global_crops) * config.prototypes
    return Sizes(
        parameters=BACKBONES[config.backbone].parameters + head,
        sharded_parameters=0,
        hosted_parameters=0,
        optimiser_slots=1,  # momentum
        flops_per_image=2 * (passes * macs + 3 * crops * head),
        activations=4 * (activations + crops * (1 + scalars) * sum(widths[1:-1])),
        why={"disk": "the network and its momentum" + (", and the queue" if config.queue else "")},
        remembered=config.queue // config.global_batch * config.global_batch * config.global_crops * config.embedding,
        unhalved=4 * (unhalved + scores),
    )


METHOD = Method(
    name="swav",
    summary="predict the cluster of one view from another (Caron et al. 2020)",
    config=SwAVConfig,
    recipes={"paper": paper, "small_batch": small_batch, "regnety_256gf": regnety_256gf, "demo": demo, "tiny": tiny},
    trainer="methods.swav.trainer:SwAV",
    validate=validate,
    layout=layout,
    sizes=sizes,
)
