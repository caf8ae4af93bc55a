"""How an image becomes views: fields of a config, and the papers' distributions. Read by the launcher: no torch.

The numbers of SimCLR: Chen et al., ICML 2020, Appendix A. Of BYOL: Grill et al., NeurIPS 2020, Appendix B, Table 6.
What DINO's local crops get is in no paper: it is read from its released configuration (commit 7c446df).
"""

from dataclasses import dataclass, field, replace

from launcher.errors import unknown
from launcher.spec.fields import at_least, refuse
from launcher.spec.schema import TrainConfig
from methods.backbones.spec import BACKBONES, RGB_MEAN, RGB_STD
from methods.parts.layout import check_scale, check_size, check_training

CHANNELS = 3  # of a crop; a Sobel backbone is given colours, too


@dataclass
class ViewsConfig(TrainConfig):
    """Multi-crop (thesis 4.2.4): global crops of `image_size` and `crop_scale`, local ones of the fields below."""

    crop_scale: list[float] = field(default_factory=lambda: [0.14, 1.0])  # thesis 4.2.4
    global_crops: int = at_least(1, 2, "an image needs a global crop")
    local_crops: int = at_least(0, 6, "it is negative")
    local_size: int = 96  # pixels, square
    local_scale: list[float] = field(default_factory=lambda: [0.05, 0.14])  # share of the area
    augment: str = "simclr"  # simclr | byol: AUGMENTATIONS
    normalise: str = "imagenet"  # imagenet | swav: NORMALISATIONS


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
        source="BYOL, Table 6, as DINO (thesis 5.3.2) and SMoG (3.4) say; local crops: DINO's released configuration",
    ),
}

# (mean, standard deviation) of red, green and blue in [0, 1].
NORMALISATIONS = {
    "imagenet": (RGB_MEAN, RGB_STD),
    "swav": (RGB_MEAN, (0.228, 0.224, 0.225)),  # as SwAV's code has it (commit 06b1b7c)
}


def check_views(config: ViewsConfig, images: int | None) -> None:
    """What `parts.layout.check_training` validates, and what the fields of ViewsConfig say together. Raises InputError
    naming the first field that cannot work."""
    check_training(config, images)
    for name, known in (("augment", AUGMENTATIONS), ("normalise", NORMALISATIONS)):
        if getattr(config, name) not in known:
            unknown(f"method.{name}", getattr(config, name), known)
    if config.local_crops:
        _check_local(config)


def _check_local(config: ViewsConfig) -> None:
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


def cost_of_views(
    config: ViewsConfig, *, global_crops: int | None = None, recompute: bool = False
) -> tuple[float, float, float]:
    """For all crops of an image: (multiply-adds of a forward pass of the backbone, fp32 scalars that are kept for the
    backward pass and that half precision halves, those that it does not). The last are with the crops themselves, which
    stay fp32 throughout. global_crops: that train, if not all of them do. recompute: residual blocks are computed again
    for their gradients."""
    backbone = BACKBONES[config.backbone]
    macs = halved = unhalved = 0.0
    whole = config.global_crops if global_crops is None else global_crops
    for count, size in ((whole, config.image_size), (config.local_crops, config.local_size)):
        kept = backbone.kept_at(size, recompute=recompute)
        macs += count * backbone.macs_at(size)
        halved += count * kept[0]
        unhalved += count * (kept[1] + CHANNELS * size**2)
    return macs, halved, unhalved
