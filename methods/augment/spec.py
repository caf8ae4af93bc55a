"""How an image becomes views: fields of a config, and the papers' distributions. Read by the launcher: no torch.

The numbers of SimCLR: Chen et al., ICML 2020, Appendix A. Of BYOL: Grill et al., NeurIPS 2020, Appendix C.
Of MoCo-v2: Chen et al. 2020 names them alone, the numbers are its released code's. What DINO's local crops get is in no
paper: it is read from its released configuration (commit 7c446df).
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from launcher.errors import unknown
from launcher.spec.fields import at_least, refuse
from launcher.spec.schema import TrainConfig
from methods.backbones.spec import RGB_MEAN, RGB_STD
from methods.parts.layout import check_scale, check_size, check_training

CHANNELS = 3  # of a crop; a Sobel backbone is given colours, too


@dataclass
class ViewsConfig(TrainConfig):
    """Several crops of each image, of `image_size` and `crop_scale`, whose colours are changed."""

    global_crops: int = at_least(1, 2, "an image needs a global crop")
    augment: str = "simclr"  # simclr | byol | mocov2 | gentle | flip | flip_bicubic: AUGMENTATIONS
    normalise: str = "imagenet"  # imagenet | swav: NORMALISATIONS
    local_crops: ClassVar[int] = 0


@dataclass
class MultiCropConfig(ViewsConfig):
    """Multi-crop (thesis 4.2.4): beside the global crops local ones."""

    crop_scale: list[float] = field(default_factory=lambda: [0.14, 1.0])  # thesis 4.2.4
    local_crops: int = at_least(0, 6, "it is negative")  # type: ignore[misc]
    local_size: int = 96  # pixels, square
    local_scale: list[float] = field(default_factory=lambda: [0.05, 0.14])  # share of the area


@dataclass(frozen=True)
class Photometric:
    """What happens to the colours of one view, in this order; each with its probability.

    A jitter draws four factors, uniform over 1 ± strength (hue: a shift, uniform over ± strength, in turns of the
    colour circle), and applies them in a random order, as torchvision's ColorJitter does.
    """

    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grey: float = 0.2
    blur: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)  # pixels, uniform
    solarise: float = 0.0  # values of at least one half are inverted


@dataclass(frozen=True)
class Augmentation:
    """Global crop v gets `views[v % len(views)]`, every local crop gets `local`. `source` says where from."""

    views: tuple[Photometric, ...]
    local: Photometric
    interpolation: str  # of the resize: bilinear | bicubic
    source: str


_SIMCLR = Photometric(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, blur=0.5)
_BYOL = Photometric(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
_GENTLE = Photometric(brightness=0.2, contrast=0.2, grey=0.0)
_FLIP = Photometric(jitter=0.0, grey=0.0)
_MOCOV2 = Photometric(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, blur=0.5)

AUGMENTATIONS = {
    "simclr": Augmentation(
        views=(_SIMCLR,),
        local=_SIMCLR,
        interpolation="bilinear",
        source="SimCLR, Appendix A, strength 1; for every crop of SwAV: thesis 4.2.4",
    ),
    "byol": Augmentation(
        views=(replace(_BYOL, blur=1.0), replace(_BYOL, blur=0.1, solarise=0.2)),
        local=replace(_BYOL, blur=0.5),
        interpolation="bicubic",
        source="BYOL, Appendix C, as DINO (thesis 5.3.2) and SMoG (3.4) say; local crops: DINO's released code",
    ),
    "gentle": Augmentation(
        views=(_GENTLE,),
        local=_GENTLE,
        interpolation="bilinear",
        source="ours, for grey patches that brightness and contrast tell apart",
    ),
    "flip": Augmentation(views=(_FLIP,), local=_FLIP, interpolation="bilinear", source="ours: crops and flips alone"),
    "flip_bicubic": Augmentation(
        views=(_FLIP,), local=_FLIP, interpolation="bicubic", source="DeiT's released code, beside its RandAugment"
    ),
    "mocov2": Augmentation(
        views=(_MOCOV2,),
        local=_MOCOV2,
        interpolation="bilinear",
        source="MoCo's released code, its option for version 2; local crops, of which it has none: as its others",
    ),
}

# (mean, standard deviation) of red, green and blue in [0, 1].
NORMALISATIONS = {
    "imagenet": (RGB_MEAN, RGB_STD),
    "swav": (RGB_MEAN, (0.228, 0.224, 0.225)),  # as SwAV's code has it (commit 06b1b7c)
}


def interpolation_of(config: Any) -> str:
    """Of the centre crops that a network of `config` is judged by, bilinear | bicubic: that of the crops it trains on,
    so that SwAV and DeeperCluster have bilinear ones and DINO bicubic ones, as in their released evaluations."""
    if isinstance(config, ViewsConfig):
        return AUGMENTATIONS[config.augment].interpolation
    return getattr(config, "interpolation", "bilinear")  # of work that trains nothing


def check_views(config: ViewsConfig, images: int | None) -> None:
    """What `parts.layout.check_training` validates, and what the fields of ViewsConfig say together. Raises InputError
    naming the first field that cannot work."""
    check_training(config, images)
    for name, known in (("augment", AUGMENTATIONS), ("normalise", NORMALISATIONS)):
        if getattr(config, name) not in known:
            unknown(f"method.{name}", getattr(config, name), known)
    if config.local_crops:
        _check_local(config)


def _check_local(config: MultiCropConfig) -> None:
    check_scale("method.local_scale", config.local_scale)
    for end, of in enumerate(("smallest", "largest")):
        if config.local_scale[end] > config.crop_scale[end]:
            reason = f"its {of} share is above that of the global crops, method.crop_scale={list(config.crop_scale)}"
            fix = f"use at most {config.crop_scale[end]} there"
            refuse(config, "local_scale", reason, fix)
    if config.local_size >= config.image_size:
        reason = f"local crops must be smaller than global ones, method.image_size={config.image_size}"
        refuse(config, "local_size", reason, f"use at most {config.image_size - 1}")
    check_size(config.backbone, "method.local_size", config.local_size)


def views_of(config: TrainConfig) -> tuple[tuple[int, int], ...]:
    """(how many, pixels a side) of what a network gets of an image: of its crops, or of the one image."""
    if not isinstance(config, ViewsConfig):
        return ((1, config.image_size),)
    local = ((config.local_crops, config.local_size),) if config.local_crops else ()
    return ((config.global_crops, config.image_size), *local)
