"""`sslrun eval weights=FILE`: protocols on a file of weights, of ours or published. It trains nothing.

sslrun eval weights=/weights/dino_deitsmall16.pth backbone=vit_small_16 protocol=knn,linear \
    data=image_folder data.path=/data/imagenet nodes=1
"""

from dataclasses import dataclass, field
from typing import Any

from launcher.errors import InputError
from launcher.spec.contract import Recipe, Work
from launcher.spec.fields import at_least, check_ranges, choice, later, ops
from methods.backbones.spec import BACKBONES

RECIPE = "eval"  # there is nothing to choose


@dataclass
class WeightsConfig:
    """What to judge, and how. A person gives the fields of GIVEN; those that a trainer's config has mean the same."""

    name: str = "weights"
    weights: str = ops("")  # absolute path; the content is what counts
    backbone: str = ""
    key: str | None = None  # of the weights in a file that holds several networks, such as teacher
    image_size: int = 0  # 0: what the backbone is made for
    # Of the centre crops; by default bicubic for transformers, as DINO and DeiT judge theirs, else as SwAV.
    interpolation: str = later(choice("bilinear", "bicubic"))
    precision: str = choice("fp32", "bf16", "fp16")
    knn_neighbours: int = at_least(1, 20)  # of the score called `trained`; thesis 5.3.2
    workers: int = ops(at_least(0, 8))  # data-loader processes a rank
    log_every: int = ops(at_least(1, 10))  # steps of a probe

    # Filled in when the run is made.
    content: str = ""  # sha256 of the file
    settings: dict[str, Any] = field(default_factory=dict)  # of each protocol; see launcher/compose/protocols.py
    dropout: float = 0.0


GIVEN = (
    "weights",
    "backbone",
    "key",
    "image_size",
    "interpolation",
    "precision",
    "knn_neighbours",
    "workers",
    "log_every",
)


def evaluation() -> Recipe:
    """The only recipe."""
    return Recipe(method=WeightsConfig(), data=None, images=0, source="given", expect="scores")


def validate(config: WeightsConfig, images: int | None) -> None:
    """Raises InputError naming the first field that cannot work."""
    if config.backbone not in BACKBONES:
        fix = f"say backbone=NAME, one of {', '.join(BACKBONES)}"
        raise InputError.of("backbone", config.backbone, "no such backbone", fix)
    size = BACKBONES[config.backbone]
    if config.image_size < size.smallest:
        raise InputError.of("image_size", config.image_size, "too small", f"use at least {size.smallest}")
    if size.patch and config.image_size % size.patch:
        reason = f"{config.backbone} takes multiples of {size.patch} pixels"
        raise InputError.of(
            "image_size", config.image_size, reason, f"use {-(-config.image_size // size.patch) * size.patch}"
        )
    check_ranges(config, prefix="")


WORK = Work(
    name="weights",
    summary="evaluates a file of weights",
    config=WeightsConfig,
    recipes={RECIPE: evaluation},
    validate=validate,
    entry="methods.weights.job:evaluate",
)
