"""What methods that label a bank between epochs (`engine/banked.py`) say alike of themselves. No torch."""

from dataclasses import dataclass
from typing import Any

from launcher.spec.contract import Rate, Recipe
from launcher.spec.fields import at_least, choice, positive, refuse
from methods.augment.spec import MultiCropConfig
from methods.backbones.spec import BACKBONES
from methods.engine.outline import Outline
from methods.parts.recipes import on_imagenet, on_photos
from methods.parts.shapes import Perceptron, UnitRows


@dataclass
class BankedConfig(MultiCropConfig):
    """Labels are made of the global crops' embeddings in a bank, and predicted from every crop."""

    backbone: str = "resnet50"
    dropout: float = 0.0
    heads: int = at_least(1, 3)  # clusterings, H ("multi-clustering", thesis 4.4; DeepCluster-v2's script: 3 of 3000)
    prototypes: int = at_least(2, 3000)  # of each head, K
    hidden: int = at_least(1, 2048)  # width of the projection's hidden layer
    embedding: int = at_least(1, 128)  # dimensions of the projection's output
    temperature: float = positive(0.1, "scores are divided by it")  # tau, Eqs. 4.1 and 4.2
    optimizer: str = choice("lars", "sgd")  # of all parameters (DeepCluster-v2's code: lars); sgd for small networks


def banked_paper(config: type[BankedConfig], source: str, expect: str, rate: Rate, **given: Any) -> Recipe:
    """Thesis 4.4: ResNet-50 on 64 GPUs x 64 images."""
    usual = {
        "global_batch": 4096,
        "batch_norm_group": 512,  # synchronised over 8 GPUs (released code)
        "lr": 4.8,
        "warmup_lr": 0.3,
        "final_lr": 0.0048,
        "warmup_epochs": 10,
        "schedule": "cosine",
        "weight_decay": 1e-6,
        "precision": "fp16",
        "normalise": "swav",
    }
    return on_imagenet(config, source, expect, rate, **usual, **given)


def banked_demo(config: type[BankedConfig]) -> Recipe:
    """A small network on the embedded photographs."""
    return on_photos(
        config,
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


def banked_outline(config: BankedConfig) -> Outline:
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


def filling_macs(config: BankedConfig) -> float:
    """Multiply-adds an image and round of the pass that fills the bank before the first one: no more than a pass."""
    body = BACKBONES[config.backbone].macs_at(config.image_size) + banked_outline(config).heads["projection"].macs
    return config.global_crops * body / config.epochs


def refuse_few_images(config: BankedConfig, images: int | None, why: str) -> None:
    """Refuse more prototypes than images in the bank. why: a reason, with `{banked}` for their number."""
    banked = (images or 0) // config.global_batch * config.global_batch
    if images is not None and config.prototypes > banked:
        refuse(config, "prototypes", why.format(banked=banked), f"use at most {banked}, better a tenth of it")
