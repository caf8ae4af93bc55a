"""BYOL (Grill et al., NeurIPS 2020): predict what a slow copy of the network makes of another view; no negatives.

sslrun method=byol nodes=8 data.path=/data/imagenet                           # 4096 images; 74.3 linear (Table 1)
sslrun method=byol recipe=epochs_300 nodes=8 data.path=/data/imagenet         # 72.5 (its ablations)
sslrun method=byol recipe=vit_small_16 nodes=2 data.path=/data/imagenet       # 71.4 (DINO's thesis, Table 5.11)
sslrun method=byol recipe=demo                                                # minutes on 2 CPU cores
"""

from dataclasses import dataclass, field
from functools import partial

from launcher.spec.contract import Rate, Recipe
from launcher.spec.fields import at_least, below_one, choice, later, not_negative, positive, refuse, share
from methods.augment.spec import MultiCropConfig
from methods.backbones.spec import BACKBONES
from methods.engine.outline import Follower, Outline, method
from methods.parts.recipes import in_seconds, on_imagenet, on_photos
from methods.parts.shapes import Perceptron


@dataclass
class BYOLConfig(MultiCropConfig):
    """The target sees the global crops, the online network all of them. The paper has two global ones and no others:
    out of the box, local crops harm (thesis, Tables 5.11 and 5.16)."""

    name: str = "byol"
    backbone: str = "resnet50"
    crop_scale: list[float] = field(default_factory=lambda: [0.08, 1.0])  # Appendix C
    local_crops: int = at_least(0, 0, "it is negative")
    augment: str = "byol"
    dropout: float = 0.0
    drop_path: float = below_one(0.0)  # of the online network, where it is a transformer
    zero_init_residual: bool = later(False)  # the last scale of each residual block begins at 0, in both networks
    hidden: int = at_least(1, 4096)  # width of the hidden layer of both heads
    embedding: int = at_least(1, 256)  # dimensions of both heads' output
    predictor: bool = True  # without it training collapses (Table 5b; thesis, Table 5.11, row 8)
    target_momentum: float = share(0.996)  # tau_base: what the target keeps of itself, at first; a cosine to 1
    optimizer: str = choice("lars", "adamw", "sgd", fix="use lars, adamw or sgd")
    final_weight_decay: float | None = not_negative(None)  # of a cosine from weight_decay; null: it stays
    clip: float | None = positive(None)  # largest norm of each parameter's gradient; null: any


def paper() -> Recipe:
    """Appendix A: ResNet-50 for 1000 epochs, with the released code's batch statistics over all 4096 images.

    Released LARS divides by |g + decay w|, ours by |g| + decay |w| as LARS' paper: at such a decay nearly the same.
    """
    return on_imagenet(
        BYOLConfig,
        zero_init_residual=True,
        epochs=1000,
        global_batch=4096,
        lr=3.2,  # 0.2 x 4096 / 256
        warmup_lr=0.0,
        warmup_epochs=10,
        schedule="cosine",
        weight_decay=1.5e-6,
        precision="fp16",
        source="Appendix A; warm-up from 0, last scales of blocks, batch statistics over all devices, "
        "no bias in the heads' last layers, the rate outside of LARS' momentum: released code; "
        "precision: ours, the paper does not say",
        expect="ImageNet linear 74.3 (Table 1)",
        # No BYOL was timed on GPUs. A rate is of one network and its crops: the share of the peak is what both have.
        rate=Rate(104, tflops=125, gpu=True, source="SwAV's 89 images/s on V100 (thesis 4.4) at 76.3 GFLOP, 65.6 here"),
    )


def epochs_300() -> Recipe:
    """What the paper's ablations begin with."""
    return paper().but(
        epochs=300,
        lr=4.8,  # 0.3 x 4096 / 256
        weight_decay=1e-6,
        target_momentum=0.99,
        source="the ablations; the rest as for 1000 epochs. The released code has presets for 100 epochs (0.45 x "
        "batch / 256, 1e-6, tau 0.99) and 40 (the same with tau 0.97), too",
        expect="ImageNet linear 72.5 (the ablations)",
    )


def vit_small_16() -> Recipe:
    """ViT-S/16 as the thesis compares it with DINO (Tables 5.2, 5.9, 5.11 and 5.16): DINO's setting but for the loss,
    the predictor, batch normalisation in the heads and no local crops."""
    return on_imagenet(
        BYOLConfig,
        backbone="vit_small_16",
        crop_scale=[0.14, 1.0],
        drop_path=0.1,
        epochs=300,
        global_batch=1024,
        optimizer="adamw",
        lr=0.002,  # 0.0005 x 1024 / 256
        warmup_lr=0.0,
        final_lr=1e-6,
        warmup_epochs=10,
        schedule="cosine",
        weight_decay=0.04,
        final_weight_decay=0.4,
        clip=3.0,
        precision="fp16",
        source="thesis 5.3.2 and Tables 5.9 and 5.11: what differs from DINO; its optimiser, target momentum, dropped "
        "paths and clipping are DINO's, its crops those of DINO without local ones. Unpublished, and ours: the heads "
        "are those of the paper, and both are normalised over the whole batch",
        expect="ImageNet linear 71.4, k-NN 66.6 after 300 epochs (thesis, Tables 5.9 and 5.11); with six local crops "
        "64.8 and 59.8 (Table 5.16), out of the box",
        # Of DINO with two crops, whose arithmetic is nearly the same.
        rate=Rate(145, tflops=125, gpu=True, source="thesis, Table 5.14: 300 epochs of DINO in 45.9 h on 16 GPUs"),
    )


def demo() -> Recipe:
    """A small network on the embedded photographs."""
    return on_photos(
        BYOLConfig,
        source="ours, chosen on the validation split (docs/demos.md)",
        expect="k-NN at least 5 points over the untrained, adapted network, in under 3 minutes on 2 cores",
        backbone="small_resnet",
        augment="gentle",
        local_crops=2,
        local_size=16,
        local_scale=[0.1, 0.3],
        hidden=256,
        embedding=64,
        target_momentum=0.97,
        epochs=8,
        global_batch=64,
        lr=0.2,
        warmup_epochs=0.5,
        optimizer="sgd",
    )


def tiny() -> Recipe:
    """Seconds: all of the method, for tests and drills. It learns nothing."""
    less = {"hidden": 16, "embedding": 8, "local_crops": 1, "target_momentum": 0.9}
    more = {"final_weight_decay": 1e-3, "clip": 3.0, "lr": 0.02, "dropout": 0.1}
    return in_seconds(demo(), backbone="small_vgg", augment="byol", **less, **more)


def outline(config: BYOLConfig) -> Outline:
    """A projection g and a predictor q on the backbone f; a target that has the first (Figure 2)."""
    layers, width = partial(Perceptron, last_bias=False), BACKBONES[config.backbone].feature_dim  # as released
    heads = {"projection": layers((width, config.hidden, config.embedding))}
    if config.predictor:
        heads["predictor"] = layers((config.embedding, config.hidden, config.embedding))
    return Outline(heads, follower=Follower("the target", ("projection",), config.global_crops))


def check(config: BYOLConfig, images: int | None) -> None:
    if config.global_crops + config.local_crops < 2:
        refuse(config, "global_crops", "one view's target is predicted from another", "give 2 or more")
    if config.drop_path and BACKBONES[config.backbone].batch_norm:
        refuse(config, "drop_path", f"{config.backbone} has no paths to drop", "use 0")


METHOD = method(
    name="byol",
    summary="predict what a slow copy of the network makes of another view (Grill et al. 2020)",
    config=BYOLConfig,
    recipes=(paper, epochs_300, vit_small_16, demo, tiny),
    trainer="methods.byol.trainer:BYOL",
    outline=outline,
    check=check,
)
