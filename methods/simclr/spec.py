"""SimCLR (Chen et al., ICML 2020; thesis 4.3.3 and 4.4): find the other crop of an image among those of a batch.

sslrun method=simclr nodes=8 data.path=/data/imagenet                                # 64 GPUs; 69.3 linear
sslrun method=simclr recipe=multicrop nodes=8 data.path=/data/imagenet               # 70.6 (thesis, Figure 4.2)
sslrun method=simclr recipe=small_batch nodes=1 tasks_per_node=4 data.path=/data/imagenet   # 61.9 (thesis, Table 4.3)
sslrun method=simclr recipe=demo                                                     # minutes on 2 CPU cores
"""

from dataclasses import dataclass

from launcher.spec.contract import Rate, Recipe
from launcher.spec.fields import at_least, choice, later, positive, refuse
from methods.augment.spec import MultiCropConfig
from methods.backbones.spec import BACKBONES
from methods.engine.outline import Outline, method
from methods.parts.recipes import in_seconds, on_imagenet, on_photos
from methods.parts.shapes import Perceptron


@dataclass
class SimCLRConfig(MultiCropConfig):
    """Every crop of an image, global or local, is to find each other one."""

    name: str = "simclr"
    backbone: str = "resnet50"
    dropout: float = 0.0
    zero_init_residual: bool = later(False)  # the last scale of each residual block begins at 0
    local_crops: int = 0
    hidden: int = at_least(1, 2048)  # width of the projection's hidden layer
    embedding: int = at_least(1, 128)  # d, dimensions of z
    temperature: float = positive(0.1, "cosines are divided by it")  # tau, Eq. 1
    directions: str = choice("mean", "sum")  # Algorithm 1: 1/2N; the released code adds up both directions
    optimizer: str = choice("lars", "sgd")  # sgd for small networks


def paper() -> Recipe:
    """ResNet-50 for 1000 epochs (section 2.2, Appendix B)."""
    return on_imagenet(
        SimCLRConfig,
        zero_init_residual=True,
        crop_scale=[0.08, 1.0],
        epochs=1000,
        global_batch=4096,
        lr=4.8,  # 0.3 x batch / 256
        warmup_lr=0.0,
        warmup_epochs=10,
        schedule="cosine",
        weight_decay=1e-6,
        precision="fp16",
        source="section 2.2 and Appendix A; 1/2N of all pairs: Algorithm 1, where the released code adds up both "
        "directions, twice as much (under LARS that matters for biases and norms alone); batch normalisation of the "
        "head's output without a shift, last scales, what LARS adapts and decays: released code, which divides by "
        "|g + decay w|, ours by |g| + decay |w| as LARS' paper, at such a decay nearly the same; fp16: thesis 4.2.5; "
        "pixels are standardised, where the released code leaves them in [0, 1]",
        expect="ImageNet linear 69.3",
        rate=Rate(139, tflops=125, gpu=True, source="thesis, Table 4.4: 100 epochs in 4 h on 64 V100"),
    )


def thesis() -> Recipe:
    """Thesis 4.4: SimCLR with the batch, the epochs and the augmentation of SwAV."""
    return paper().but(
        zero_init_residual=False,
        epochs=400,
        batch_norm_group=512,
        warmup_lr=0.6,
        normalise="swav",
        source="thesis 4.4, where both have the same augmentation, so pixels are standardised as SwAV's; batch "
        "statistics over 8 GPUs, both ends of the warm-up, last scales and crops: VISSL's configuration (whose head "
        "has no batch normalisation, and whose LARS adapts all: ours are the paper's)",
        expect="ImageNet linear 68.2 (thesis, Figure 4.2)",
        rate=None,
    )


def multicrop() -> Recipe:
    """Thesis 4.4 with 2x160 + 4x96 crops."""
    return thesis().but(
        image_size=160,
        crop_scale=[0.14, 1.0],
        local_crops=4,
        source="thesis 4.2.4 and 4.4; every crop is anchor, positive and negative: VISSL's loss for multi-crop "
        "(multicrop_simclr_info_nce_loss), its positives and sums, but its negatives are those of one GPU, ours of all "
        "ranks; its configuration of these crops has global ones from 0.08 on; the rest as recipe=thesis",
        expect="ImageNet linear 70.6 (thesis, Figure 4.2)",
    )


def small_batch() -> Recipe:
    """Thesis 4.3.3 and Table 4.3: 4 GPUs x 64 images."""
    return paper().but(
        epochs=200,
        global_batch=256,
        lr=0.3,
        source="thesis, Table 4.3; lr: the paper's rule for other batches (0.3 x batch / 256); all else as in its "
        "recipe, for want of a number",
        expect="ImageNet linear 61.9 (thesis, Table 4.3)",
        rate=Rate(209, tflops=125, gpu=True, source="thesis 4.3.3: on 4 V100 1.2 times as fast as SwAV's 102 h"),
    )


def demo() -> Recipe:
    """A small network on the embedded photographs."""
    return on_photos(
        SimCLRConfig,
        source="ours, chosen on the validation split (docs/demos.md)",
        expect="k-NN at least 5 points over the untrained, adapted network, in under 2 minutes on 2 cores",
        backbone="small_vgg",
        augment="flip",
        local_size=16,
        local_scale=[0.1, 0.3],
        hidden=256,
        embedding=64,
        temperature=0.2,
        epochs=8,
        global_batch=128,
        lr=0.1,
        warmup_epochs=0.5,
        optimizer="sgd",
    )


def tiny() -> Recipe:
    """Seconds: all of the method, for tests and drills. It learns nothing."""
    return in_seconds(
        demo(), augment="simclr", local_crops=2, hidden=16, embedding=8, directions="sum", dropout=0.1, lr=0.01
    )


def outline(config: SimCLRConfig) -> Outline:
    """A projection g with one hidden layer (section 2.1), and cosines with the crops of all images."""
    widths = (BACKBONES[config.backbone].feature_dim, config.hidden, config.embedding)
    crops = config.global_crops + config.local_crops
    return Outline(
        {"projection": Perceptron(widths, last_batch_norm=True, last_shift=False)},
        couples="the other images of a batch are the negatives (Eq. 1)",
        across_ranks="the negatives are the images of all ranks",
        target_scalars=4 * crops**2 * config.global_batch,  # cosines with all crops, without its own, two gradients
    )


def check(config: SimCLRConfig, images: int | None) -> None:
    if config.global_crops + config.local_crops < 2:
        refuse(config, "global_crops", "a crop is to find another one of its image", "give 2 or more")
    if config.global_batch < 2:
        refuse(config, "global_batch", "no other image is there to be a negative", "give 2 or more")


METHOD = method(
    name="simclr",
    summary="find the other crop of an image among those of a batch (Chen et al. 2020)",
    config=SimCLRConfig,
    recipes=(paper, thesis, multicrop, small_batch, demo, tiny),
    trainer="methods.simclr.trainer:SimCLR",
    outline=outline,
    check=check,
)
