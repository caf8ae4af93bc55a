"""SwAV (Caron et al., NeurIPS 2020; thesis chapter 4): predict the cluster of one view of an image from another view.

sslrun method=swav nodes=8 data.path=/data/imagenet                            # 64 GPUs; 75.3 linear (thesis 4.4)
sslrun method=swav recipe=small_batch nodes=1 tasks_per_node=4 data.path=/data/imagenet    # 72.7 (thesis, Table 4.3)
sslrun method=swav recipe=regnety_256gf nodes=64 cluster=v100_32gb data.path=/data/images  # 84.2 finetuned (Table 4.7)
sslrun method=swav recipe=demo                                                 # minutes on 2 CPU cores
"""

import math
from dataclasses import dataclass, replace

from launcher.spec.contract import Layout, Rate, Recipe
from launcher.spec.fields import at_least, choice, not_negative, ops, positive, refuse
from methods.augment.spec import MultiCropConfig
from methods.backbones.spec import BACKBONES
from methods.engine.outline import Outline, method
from methods.parts.layout import fits_in_one_pass
from methods.parts.recipes import in_seconds, on_imagenet, on_photos
from methods.parts.shapes import Perceptron, UnitRows


@dataclass
class SwAVConfig(MultiCropConfig):
    """Labels are computed of the global crops, and predicted from every other crop."""

    name: str = "swav"
    backbone: str = "resnet50"
    dropout: float = 0.0
    prototypes: int = at_least(2, 3000)  # K
    hidden: int = at_least(1, 2048)  # width of the projection's hidden layers
    head_layers: int = at_least(1, 2)  # linear layers of the projection
    head_batch_norm: bool = True  # after each linear layer of the projection but the last
    embedding: int = at_least(1, 128)  # dimensions of the projection's output
    temperature: float = positive(0.1, "scores are divided by it")  # tau, Eq. 4.2
    epsilon: float = positive(0.05, "scores are divided by it")  # Eq. 4.3
    sinkhorn_iterations: int = at_least(1, 3)
    assignment: str = choice("soft", "rounded")  # 4.2.2
    # Images of earlier batches, over all ranks, that take part in the transport (4.2.3); 0: none.
    queue: int = not_negative(0, "it is negative")
    queue_epoch: int = not_negative(15, "it is negative")  # from which the queue is filled (released code)
    # During which the prototypes keep their first values (released code: 313 iterations).
    freeze_epochs: float = not_negative(1.0, "it is negative")
    optimizer: str = choice("lars", "sgd")  # of all parameters (released code: lars); sgd for small networks
    checkpoint_activations: bool = ops(False)  # residual blocks are computed again in the backward pass, to save memory

    @property
    def queued(self) -> int:
        """Images in the queue: whole batches."""
        return self.queue // self.global_batch * self.global_batch


def paper() -> Recipe:
    """Thesis 4.2.5 and 4.4: ResNet-50 on 64 GPUs x 64 images."""
    return on_imagenet(
        SwAVConfig,
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
        source="thesis 4.2.5; lr at both ends of the schedule, frozen prototypes and normalisation: released code",
        expect="ImageNet linear 75.3 after 800 epochs, 72.1 after 100 (thesis 4.4)",
        rate=Rate(89, tflops=125, gpu=True, source="thesis 4.4: 100 epochs in 6 h 15 min on 64 V100"),
    )


def small_batch() -> Recipe:
    """Thesis 4.2.3 and Table 4.3: 4 GPUs x 64 images and a queue."""
    return paper().but(
        epochs=200,
        global_batch=256,
        batch_norm_group=0,
        lr=0.6,
        warmup_lr=None,
        final_lr=0.0006,
        warmup_epochs=0,
        queue=3840,
        source="thesis 4.2.3; lr and the queue's first epoch: released code",
        expect="ImageNet linear 72.7 after 200 epochs, 74.3 after 400 (thesis, Table 4.3)",
    )


def regnety_256gf() -> Recipe:
    """Thesis 4.5: 1.3 billion parameters and a billion images, once, on 512 GPUs x 17 images."""
    return paper().but(
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
        batch_norm_group=1088,  # 64 GPUs x 17
        lr=10.2,
        warmup_lr=None,
        final_lr=0.0102,
        warmup_epochs=8000 / 114_890,
        freeze_epochs=313 / 114_890,
        weight_decay=1e-5,
        checkpoint_activations=True,
        images=1_000_000_000,
        source="thesis 4.5.1 and Goyal et al. 2021; the head: released code (VISSL's for 16,000 prototypes); "
        "statistics over 64 GPUs and a warm-up of 8,000 iterations: the released model's name; "
        "ours, for want of a number: activation checkpointing, frozen prototypes for 313 iterations as SwAV's code",
        expect="ImageNet finetuned 84.2 (thesis, Table 4.7); 8 days",
        rate=Rate(8704 / 512 / 6.125, tflops=125, gpu=True, source="thesis 4.5.1: 6125 ms an iteration on 512 V100"),
    )


def demo() -> Recipe:
    """A small network on the embedded photographs."""
    return on_photos(
        SwAVConfig,
        source="ours, chosen on the validation split (docs/demos.md)",
        expect="k-NN at least 5 points over the untrained, adapted network, in under 3 minutes on 2 cores",
        backbone="small_vgg",
        augment="flip",  # of grey patches brightness and contrast say much of what there is
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
        optimizer="sgd",
    )


def tiny() -> Recipe:
    """Seconds: all of the method, for tests and drills. It learns nothing."""
    less = {"prototypes": 12, "hidden": 16, "embedding": 8}
    return in_seconds(demo(), **less, augment="simclr", queue=64, queue_epoch=1, dropout=0.1)


def outline(config: SwAVConfig) -> Outline:
    """A projection, prototypes, and a transport over the images of a batch and of a queue."""
    width = BACKBONES[config.backbone].feature_dim
    widths = (width, *[config.hidden] * (config.head_layers - 1), config.embedding)
    return Outline(
        {
            "projection": Perceptron(widths, batch_norm=config.head_batch_norm),
            "prototypes": UnitRows(config.embedding, config.prototypes),  # C, Eq. 4.2
        },
        couples="the loss couples the images of a batch (Eq. 4.3)",
        across_ranks="the transport is over all ranks",
        remembered={"queue": config.queued * config.global_crops * config.embedding},
        target_scalars=3 * config.global_crops * config.prototypes,  # labels, and what they meet
        recompute=config.checkpoint_activations,
        until={
            "freeze_epochs": "the prototypes keep their first values",
            **({"queue_epoch": "the queue is empty"} if config.queue else {}),
        },
    )


def check(config: SwAVConfig, images: int | None) -> None:
    if config.global_crops < 2:
        refuse(config, "global_crops", "the cluster of one view is predicted from another", "give 2 or more")
    if 0 < config.queue < config.global_batch:
        fix = f"use at least {config.global_batch}, or 0 for none"
        refuse(config, "queue", f"it holds no batch of {config.global_batch}", fix)


def advice(config: SwAVConfig, world_size: int, layout: Layout) -> Layout:
    """With more prototypes than images, equal shares mean little."""
    together = config.global_batch + config.queued
    if together >= config.prototypes:
        return layout
    what, helps = ("a batch and its queue", "a longer queue") if config.queue else ("a batch", "a queue")
    queue = max(15, math.ceil(config.prototypes / config.global_batch)) * config.global_batch
    begins = " method.queue_epoch=0" if config.queue_epoch >= config.epochs else ""
    fix = f"method.queue={queue}{begins}" if fits_in_one_pass(config, world_size, memory=True) else "on fewer ranks"
    waste = (
        f"{what} of {together} images is shared out alike among {config.prototypes} prototypes, which are more; "
        f"{helps} helps (thesis 4.2.3): {fix}"
    )
    return replace(layout, waste=waste)


METHOD = method(
    name="swav",
    summary="predict the cluster of one view from another (Caron et al. 2020)",
    config=SwAVConfig,
    recipes=(paper, small_batch, regnety_256gf, demo, tiny),
    trainer="methods.swav.trainer:SwAV",
    outline=outline,
    check=check,
    advice=advice,
)
