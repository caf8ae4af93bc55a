"""SMoG (Pang et al., ECCV 2022): contrast images with groups that move with them, and pass on gradients.

sslrun method=smog nodes=8 data.path=/data/imagenet                 # 64 GPUs; 76.4 linear after 400 epochs (Table 1)
sslrun method=smog recipe=swin nodes=8 data.path=/data/imagenet     # Swin-T; 77.7 (Table 2)
sslrun method=smog recipe=demo                                      # minutes on 2 CPU cores
sslrun method=smog nodes=8 method.epochs=100 method.local_crops=0 data.path=/data/imagenet    # the ablations: 67.2
"""

import math
from dataclasses import dataclass, replace
from functools import partial

from launcher.spec.contract import Layout, Rate, Recipe
from launcher.spec.fields import at_least, choice, positive, refuse, share
from methods.augment.spec import MultiCropConfig, views_of
from methods.backbones.spec import BACKBONES
from methods.engine.outline import Follower, Outline, method
from methods.parts.recipes import in_seconds, on_imagenet, on_photos
from methods.parts.shapes import Outside, Perceptron, UnitRows

# A rate is of one network and its crops: the share of the peak is what both have in common.
STAND_IN = "SMoG's paper gives no rate: SwAV's 89 images/s on V100 (thesis 4.4) at 76.3 GFLOP an image"
ALGORITHMS = ("momentum", "average", "latest", "random")  # how groups move (Table 7d)

_stays = partial(share, reason="it is the share that stays as it was")
_steps = partial(at_least, 0, reason="it is negative", fix="give a number of steps, or 0 for never")


@dataclass
class SMoGConfig(MultiCropConfig):
    """One global crop goes through the network that trains, the other one through its momentum network f-hat; they swap
    from step to step. Local crops go through the first one alone, and predict as its global crop does."""

    name: str = "smog"
    backbone: str = "resnet50"
    dropout: float = 0.0
    augment: str = "byol"
    asymmetric: bool = True  # two augmentations, of which the streams take turns (3.4); False: both have the first one
    groups: int = at_least(2, 3000)
    hidden: int = at_least(1, 2048)  # width of both heads' hidden layer
    embedding: int = at_least(1, 128)  # dimensions of both heads' output, and of the groups
    activation: str = choice("relu", "gelu")  # of both heads
    temperature: float = positive(0.1, "similarities are divided by it")  # tau, Eq. 3
    beta: float = _stays(1.0)  # Eq. 4, in the first step
    final_beta: float = _stays(0.99)  # beta after the last step; linear in between
    algorithm: str = choice(*ALGORITHMS, fix="use momentum, average, latest or random")
    encoder_momentum: float = _stays(0.999)  # alpha, of f-hat
    refit_every: int = _steps(300)  # steps from k-means to k-means of the cached features (3.4); 0: never
    reset_every: int = _steps(300)  # steps after which f-hat becomes a copy of the network (3.4); 0: never
    cache: int = at_least(1, 300)  # batches whose features are remembered for k-means
    # Biases and norms neither decay nor adapt.
    optimizer: str = choice("lars", "adamw", "sgd", fix="use lars, adamw or sgd")


def paper() -> Recipe:
    """3.4: ResNet-50 on 64 GPUs x 64 images."""
    return on_imagenet(
        SMoGConfig,
        crop_scale=[0.2, 1.0],  # given for multi-crop alone: what it is without local crops, the paper does not say
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
        source="SMoG 3.4; what LARS leaves out, batch statistics and precision are ours: the paper does not say",
        expect="ImageNet linear 76.4 after 400 epochs (Table 1); 73.6 without local crops at a batch of 2048",
        rate=Rate(133, tflops=125, gpu=True, source=f"{STAND_IN}; 50.9 a SMoG image"),
    )


def swin() -> Recipe:
    """3.4: Swin-T; what is said of transformers, and the rest as for ResNet-50."""
    return paper().but(
        backbone="swin_tiny",
        embedding=256,
        activation="gelu",
        optimizer="adamw",
        lr=1e-3,  # 5e-4 x 4096 / 2048
        weight_decay=0.05,
        source="SMoG 3.4; batch and epochs as for ResNet-50: the paper gives no others",
        expect="ImageNet linear 77.7; 74.5 without local crops (Table 2)",
        rate=None,
    )


def resnet50_w2() -> Recipe:
    """Table 3: twice as wide, "the same with the ResNet-50 x1"."""
    return paper().but(
        backbone="resnet50_w2",
        source="SMoG, Table 3: as for ResNet-50; that its 78.0 are of 400 epochs with local crops is inferred",
        expect="ImageNet linear 78.0 (Table 3); 63.6 and 74.4 with 1 and 10 % of the labels (Table 4)",
        rate=None,
    )


def resnet50_w4() -> Recipe:
    """Table 3 and Figure 4: four times as wide. On GPUs of 32 GB it takes 128 of them."""
    return resnet50_w2().but(backbone="resnet50_w4", expect="ImageNet linear 79.0 (Table 3)")


def demo() -> Recipe:
    """A small network on the embedded photographs."""
    return on_photos(
        SMoGConfig,
        source="ours, chosen on the validation split (docs/demos.md)",
        expect="k-NN at least 5 points over the untrained, adapted network, in under 3 minutes on 2 cores",
        backbone="small_resnet",
        augment="gentle",
        local_crops=2,
        local_size=16,
        local_scale=[0.1, 0.3],
        groups=100,
        hidden=256,
        embedding=64,
        encoder_momentum=0.99,
        refit_every=50,
        reset_every=50,
        cache=50,
        epochs=10,
        global_batch=64,
        lr=0.1,
        warmup_epochs=0.5,
        optimizer="sgd",
    )


def tiny() -> Recipe:
    """Seconds: all of the method, for tests and drills. It learns nothing. Its rate and temperature are mild, so
    that a rounding stays small for many steps."""
    less = {"groups": 12, "hidden": 16, "embedding": 8, "refit_every": 4, "reset_every": 4, "cache": 3}
    crops = {"augment": "byol", "crop_scale": [0.2, 1.0], "local_scale": [0.05, 0.2]}
    return in_seconds(demo(), backbone="small_vgg", **less, **crops, beta=0.9, lr=0.02, temperature=0.5, dropout=0.1)


def outline(config: SMoGConfig) -> Outline:
    """A projection, a predictor, groups; f-hat, which has no predictor; a cache for k-means."""
    layers, width = partial(Perceptron, activation=config.activation), BACKBONES[config.backbone].feature_dim
    cached = config.cache * config.global_batch * config.embedding if config.refit_every else 0
    return Outline(
        {
            "projection": layers((width, config.hidden, config.embedding), last_batch_norm=True),
            "predictor": layers((config.embedding, config.hidden, config.embedding)),
            "groups": Outside(UnitRows(config.embedding, config.groups)),
        },
        couples="the loss couples the images of a batch (Eq. 4)",
        across_ranks="the groups are those of all ranks",
        views=((1, config.image_size), *views_of(config)[1:]),  # the other global crop goes through f-hat
        follower=Follower("f-hat", ("projection",), 1),
        remembered={"cache": cached},
    )


def check(config: SMoGConfig, images: int | None) -> None:
    if config.global_crops != 2:
        refuse(config, "global_crops", "one goes through the network, the other one through f-hat", "give 2")
    for field in ("cache", "refit_every"):  # k-means starts from as many features as there are groups
        features = getattr(config, field) * config.global_batch
        if config.refit_every and features < config.groups:
            reason = f"k-means finds {features} features for {config.groups} groups"
            fix = f"use at least {math.ceil(config.groups / config.global_batch)}"
            refuse(config, field, reason, fix)


def advice(config: SMoGConfig, world_size: int, layout: Layout) -> Layout:
    """More groups than images begin late."""
    if config.global_batch >= config.groups:
        return layout
    steps = math.ceil(config.groups / config.global_batch)
    begin = "they begin at random" + (f", and with k-means after {steps} steps" if config.refit_every else "")
    waste = (
        f"a batch of {config.global_batch} images moves at most as many of {config.groups} groups, and is too few "
        f"for k-means: {begin}. Fewer groups lose little on ImageNet down to 1000 (Table 7c): "
        f"method.groups={max(2, config.global_batch // 2)}"
    )
    return replace(layout, waste=waste)


METHOD = method(
    name="smog",
    summary="contrast images with groups that move with them (Pang et al. 2022)",
    config=SMoGConfig,
    recipes=(paper, swin, resnet50_w2, resnet50_w4, demo, tiny),
    trainer="methods.smog.trainer:SMoG",
    outline=outline,
    check=check,
    advice=advice,
)
