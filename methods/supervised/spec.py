"""Supervised training: cross-entropy on labels, the baseline of the papers' tables.

sslrun method=supervised nodes=8 data.path=/data/imagenet                        # ResNet-50; 76.5 (thesis, Figure 4.2)
sslrun method=supervised recipe=vit_small_16 nodes=1 data.path=/data/imagenet    # 79.8 (thesis, Table 5.2)
sslrun method=supervised method.label_noise=0.5 nodes=8 data.path=/data/imagenet # wrong labels (ClusterFit 3.2)
sslrun method=supervised recipe=demo                                             # minutes on 2 CPU cores
"""

from dataclasses import dataclass, field

from launcher.spec.contract import Layout, Rate, Recipe
from launcher.spec.fields import at_least, below_one, choice, later, not_negative, refuse, share
from methods.augment.spec import CHANNELS, MultiCropConfig
from methods.backbones.spec import BACKBONES
from methods.engine.outline import Outline, method
from methods.parts.layout import in_passes
from methods.parts.recipes import in_seconds, on_imagenet, on_photos
from methods.parts.shapes import Classifier

STRONGEST = 10  # levels of RandAugment


@dataclass
class SupervisedConfig(MultiCropConfig):
    """Every crop of an image is to tell its label: one crop, mirrored or not, unless more are asked for."""

    name: str = "supervised"
    backbone: str = "resnet50"
    global_crops: int = at_least(1, 1)
    local_crops: int = at_least(0, 0)
    crop_scale: list[float] = field(default_factory=lambda: [0.08, 1.0])
    augment: str = "flip"
    dropout: float = 0.0
    drop_path: float = below_one(0.0)
    zero_init_residual: bool = later(False)  # last scales of residual blocks begin at 0 (Goyal et al. 2017, 5.1)
    classes: int = at_least(2, 1000)  # K; labels go from 0 to K - 1
    label_noise: float = share(0.0)  # p: of the training images, which have the label of another class (ClusterFit 3.2)
    label_smoothing: float = below_one(0.0)  # epsilon: of a target, spread over all classes (Szegedy et al. 2016)
    # Images become mixtures of two: alpha of the Beta distribution of their shares, 0 for none.
    mixup: float = not_negative(0.0)
    cutmix: float = not_negative(0.0)
    cutmix_share: float = share(0.5)  # of the pairs, where there are both
    rand_augment: int = at_least(0, 0)  # strength of two operations on each crop, 9 of 10 in DeiT; 0: none
    erasing: float = share(0.0)  # of the crops, a rectangle of which becomes noise
    optimizer: str = choice("sgd", "adamw")

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with one another."""
        return bool(self.mixup or self.cutmix)


def paper() -> Recipe:
    """Thesis, Figure 4.2: ResNet-50, 200 epochs. No more of its setting is published than that."""
    return on_imagenet(
        SupervisedConfig,
        zero_init_residual=True,
        epochs=200,
        global_batch=4096,
        batch_norm_group=32,
        lr=1.6,  # 0.1 x 4096 / 256
        warmup_lr=0.1,
        warmup_epochs=5,
        schedule="cosine",
        weight_decay=1e-4,
        precision="fp16",
        source="thesis, Figure 4.2: network and epochs; lr, its warm-up, weight decay (none of norms), last "
        "scales of blocks, statistics over 32 images: Goyal et al. 2017; the crops and colours of the supervised "
        "models are unpublished: Goyal et al.'s crop of 0.08 to 1 and flip; ours: the batch of thesis 4.4, a cosine, "
        "fp16, no decay of the classifier's bias, no Nesterov momentum, the mean over crops where there are several",
        expect="ImageNet top-1 76.5; with 2 crops of 160 pixels and 4 of 96, 76.0 (thesis, Figure 4.2)",
        # Timed with loaders of other kinds alone, as NVIDIA's at 1,040 images/s; as for BYOL the share is SwAV's.
        rate=Rate(277, tflops=125, gpu=True, source="SwAV's 89 images/s on V100 (thesis 4.4) at 76.3 GFLOP, 24.5 here"),
    )


def vit_small_16() -> Recipe:
    """DeiT-S (Touvron et al., ICML 2021), which thesis Table 5.2 compares with: ViT-S/16 on 8 GPUs x 128 images."""
    return on_imagenet(
        SupervisedConfig,
        backbone="vit_small_16",
        augment="flip_bicubic",
        drop_path=0.1,
        label_smoothing=0.1,
        mixup=0.8,
        cutmix=1.0,
        rand_augment=9,
        erasing=0.25,
        epochs=300,
        global_batch=1024,
        optimizer="adamw",
        lr=0.001,  # 0.0005 x 1024 / 512
        warmup_lr=1e-6,
        final_lr=1e-5,
        warmup_epochs=5,
        schedule="cosine",
        weight_decay=0.05,
        precision="fp16",
        source="DeiT, Table 9, and the defaults of its released code; left out: repeated augmentation (three copies of "
        "a third of the images in each epoch); otherwise than there each two neighbours of a batch draw their own "
        "mixture, in place of one for a GPU, posterised images keep a bit, the noise of erased rectangles is cut to "
        "what pixels can hold, the rate changes with each step, not each epoch, and the classifier begins as torch has "
        "it, not at 0.02 of a truncated normal",
        expect="ImageNet top-1 79.8 after 300 epochs (DeiT; thesis, Table 5.2), with repeated augmentation",
        rate=Rate(371, tflops=125, gpu=True, source="DeiT 5.6: 300 epochs in less than 3 days on 4 V100: or more"),
    )


def demo() -> Recipe:
    """A small network on the embedded photographs, which are 19 classes."""
    return on_photos(
        SupervisedConfig,
        source="ours, chosen on the validation split (docs/demos.md)",
        expect="k-NN above all that learns without labels, at least 15 points over the untrained, adapted network",
        backbone="small_vgg",
        classes=19,
        local_size=16,
        local_scale=[0.1, 0.3],
        epochs=6,
        global_batch=64,
        lr=0.05,
        warmup_epochs=0.5,
    )


def tiny() -> Recipe:
    """Seconds: all of the method, for tests and drills. It learns nothing."""
    strong = {"mixup": 0.8, "cutmix": 1.0, "rand_augment": 9, "erasing": 0.25, "label_smoothing": 0.1}
    return in_seconds(demo(), local_crops=1, label_noise=0.2, dropout=0.1, **strong)


def outline(config: SupervisedConfig) -> Outline:
    """A classifier, which each crop meets."""
    views = config.global_crops + config.local_crops
    pixels = config.global_crops * config.image_size**2 + config.local_crops * config.local_size**2
    return Outline(
        {"classifier": Classifier(BACKBONES[config.backbone].feature_dim, config.classes)},
        target_scalars=views * config.classes + 2 * config.mixes * CHANNELS * pixels,  # shares; neighbours, mixtures
    )


def layout(config: SupervisedConfig, world_size: int) -> Layout:
    """Images meet in batch statistics alone, and where they are mixed in pairs of neighbours."""
    views, across_ranks = config.global_crops + config.local_crops, outline(config).across_ranks
    return in_passes(config, world_size, across_ranks, views, together=2 if config.mixes else 1)


def check(config: SupervisedConfig, images: int | None) -> None:
    if config.drop_path and BACKBONES[config.backbone].batch_norm:
        refuse(config, "drop_path", f"{config.backbone} has no paths to drop", "use 0")
    if config.rand_augment > STRONGEST:
        refuse(config, "rand_augment", "there is no such strength", f"give 0 to {STRONGEST}")
    grouped = "batch_norm_group" if config.batch_norm_group else "global_batch"
    if config.mixes and getattr(config, grouped) % 2:
        refuse(config, grouped, "images are mixed two by two (method.mixup, method.cutmix)", "give an even number")


METHOD = method(
    name="supervised",
    summary="predict the label of an image: the baseline of the papers' tables",
    config=SupervisedConfig,
    recipes=(paper, vit_small_16, demo, tiny),
    trainer="methods.supervised.trainer:Supervised",
    outline=outline,
    layout=layout,
    check=check,
    columns=("label", "position"),
)
