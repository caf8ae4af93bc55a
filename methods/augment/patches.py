"""An image as patches, one of each cell of a grid (Jigsaw, relative patch location): fields of a config. No torch.

The numbers are those of Kolesnikov et al., CVPR 2019, supplement, Section 1. `methods.augment.views.PatchesView` makes
them, `methods.augment.operators.standardise` is what a network is given of them.
"""

from dataclasses import dataclass

from launcher.spec.fields import at_least, positive, refuse, share
from launcher.spec.schema import TrainConfig
from methods.parts.layout import check_training


@dataclass
class PatchesConfig(TrainConfig):
    """The grid lies anywhere in the resized image, and the patch of `image_size` pixels anywhere in its cell: patches
    do not touch, so that no edge goes on from one to the next."""

    image_size: int = 64  # of a patch
    resize: int = positive(292)  # pixels to which each side of the image is brought
    grid: int = at_least(2, 3, "a single cell lies beside no other")  # cells a side
    cell: int = positive(85)  # pixels, square; the paper's crop of 255 is 3 of them
    grey: float = share(1 / 3)  # of the images, whose colours are averaged; the released code has 0.66


def check_patches(config: PatchesConfig, images: int | None) -> None:
    """What `parts.layout.check_training` validates, and what the fields of PatchesConfig say together. Raises
    InputError naming the first field that cannot work."""
    check_training(config, images)
    if config.image_size > config.cell:
        refuse(config, "image_size", f"a patch lies within method.cell={config.cell}", f"use at most {config.cell}")
    if config.grid * config.cell > config.resize:
        reason = f"{config.grid} cells a side do not fit into method.resize={config.resize}"
        refuse(config, "cell", reason, f"use at most {config.resize // config.grid}")


def patches_of(config: PatchesConfig) -> tuple[tuple[int, int], ...]:
    """(count, size in pixels) of what an image gives to the network that trains.

    >>> patches_of(PatchesConfig())
    ((9, 64),)
    """
    return ((config.grid**2, config.image_size),)
