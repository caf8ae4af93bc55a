"""VICReg (Bardes, Ponce, LeCun, ICLR 2022): two views are to have the same embedding, whose dimensions vary and are
uncorrelated.

sslrun method=vicreg nodes=8 data.path=/data/imagenet            # 73.2 linear (Table 1)
sslrun method=vicreg recipe=demo                                 # minutes on 2 CPU cores, embedded photographs
"""

from dataclasses import dataclass

from launcher.spec.contract import Recipe
from launcher.spec.fields import at_least, choice, not_negative, refuse
from methods.augment.spec import ViewsConfig
from methods.backbones.spec import BACKBONES
from methods.engine.outline import Outline, method
from methods.parts.recipes import on_imagenet, on_photos
from methods.parts.shapes import Perceptron

VIEWS = 2


@dataclass
class VICRegConfig(ViewsConfig):
    """The weights are those of the released code, which divides the terms as `vicreg.trainer` says."""

    name: str = "vicreg"
    backbone: str = "resnet50"
    augment: str = "byol"
    dropout: float = 0.0
    hidden: int = at_least(1, 8192)  # width of the expander's two hidden layers
    embedding: int = at_least(1, 8192)  # d, dimensions of its output
    invariance: float = not_negative(25.0)  # lambda, Eq. 6
    variance: float = not_negative(25.0)  # mu, Eq. 6
    covariance: float = not_negative(1.0)  # nu, Eq. 6
    optimizer: str = choice("lars", "sgd")  # sgd for small networks


def paper() -> Recipe:
    """ResNet-50 on ImageNet (section 4.2)."""
    return on_imagenet(
        VICRegConfig,
        epochs=1000,
        global_batch=2048,
        lr=1.6,  # 0.2 x batch / 256
        schedule="cosine",
        warmup_epochs=10,
        warmup_lr=0.0,
        final_lr=0.002,
        weight_decay=1e-6,
        precision="fp16",
        source="section 4.2; fp16, what decays and adapts: released code, which ends at a rate of 0.0016",
        expect="ImageNet linear 73.2 (Table 1)",
        rate=None,
    )


def demo() -> Recipe:
    """A small network on the embedded photographs."""
    return on_photos(
        VICRegConfig,
        source="our own setting on the embedded photographs",
        expect="k-NN above the untrained network, in minutes on 2 cores",
        backbone="small_vgg",
        hidden=128,
        embedding=128,
        epochs=8,
        global_batch=64,
        lr=0.05,
        warmup_epochs=0.5,
        optimizer="sgd",
    )


def outline(config: VICRegConfig) -> Outline:
    """An expander (its last layer without bias or normalisation), and covariances of the global batch."""
    widths = (BACKBONES[config.backbone].feature_dim, config.hidden, config.hidden, config.embedding)
    return Outline(
        {"expander": Perceptron(widths, last_bias=False)},
        couples="the covariance is over the images of a batch (Eq. 3)",
        across_ranks="the covariance is over all ranks",
        # fp32: each view's covariance, what of it is squared, and a gradient.
        held=4 * 3 * VIEWS * config.embedding**2,
    )


def check(config: VICRegConfig, images: int | None) -> None:
    if config.global_crops != VIEWS:
        refuse(config, "global_crops", "the loss is between two views", f"give {VIEWS}")
    if config.global_batch < 2:
        refuse(config, "global_batch", "one image has no variance", "give 2 or more")


METHOD = method(
    name="vicreg",
    summary="keep the variance of embeddings, and decorrelate them (Bardes et al. 2022)",
    config=VICRegConfig,
    recipes=(paper, demo),
    trainer="vicreg.trainer:VICReg",
    outline=outline,
    check=check,
)
