"""What a worker makes of an image, as picklable functions of (image, sample, epoch)."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from PIL import Image

from methods.augment.crops import centre_view, crop_box, train_view
from methods.augment.draws import draw
from methods.augment.resize import decoded, resized
from methods.augment.rng import view_rng
from methods.augment.spec import AUGMENTATIONS, Photometric, ViewsConfig


@dataclass(frozen=True)
class TrainView:
    """A random crop and flip, a function of (seed, epoch, sample)."""

    seed: int
    size: int
    scale: tuple[float, float]

    def __call__(self, image: Image.Image, sample: int, epoch: int) -> np.ndarray:
        return train_view(image, self.size, view_rng(self.seed, epoch, sample), scale=self.scale)


@dataclass(frozen=True)
class CentreView:
    """The centre crop, without randomness: for clustering and evaluation."""

    size: int

    def __call__(self, image: Image.Image, sample: int, epoch: int) -> np.ndarray:
        return centre_view(image, self.size, None if min(image.size) > self.size * 9 // 8 else self.size)


@dataclass(frozen=True)
class Resolution:
    """Crops of one size: side in pixels, range of their share of the image's area, photometric recipe of each crop."""

    size: int
    scale: tuple[float, float]
    recipes: tuple[Photometric, ...]


@dataclass(frozen=True)
class MultiCropView:
    """Global and local crops (thesis 4.2.4) of an image that is decoded once, and the draws of their photometric stage:
    uint8 [V, C, S, S] of each resolution, float32 [all V, COLUMNS]. View v is a function of (seed, epoch, sample, v).

    Crops are distributed as those of torchvision's RandomResizedCrop, cut first and then resized with its antialiasing.
    """

    seed: int
    resolutions: tuple[Resolution, ...]
    interpolation: str  # bilinear | bicubic

    @classmethod
    def of(cls, config: ViewsConfig, seed: int) -> Self:
        """What `config` describes."""
        recipe = AUGMENTATIONS[config.augment]
        whole = tuple(recipe.views[view % len(recipe.views)] for view in range(config.global_crops))
        resolutions = [Resolution(config.image_size, tuple(config.crop_scale), whole)]
        if config.local_crops:
            local = (recipe.local,) * config.local_crops
            resolutions.append(Resolution(config.local_size, tuple(config.local_scale), local))
        return cls(seed, tuple(resolutions), recipe.interpolation)

    def __call__(self, image: Image.Image, sample: int, epoch: int) -> tuple[np.ndarray, ...]:
        pixels, (boxes, rows) = decoded(image), self.draws(image, sample, epoch)
        groups = zip(self.resolutions, boxes, strict=True)
        return (*(resized(pixels, each, group.size, self.interpolation) for group, each in groups), rows)

    def draws(
        self, image: Image.Image, sample: int, epoch: int
    ) -> tuple[list[list[tuple[int, int, int, int]]], np.ndarray]:
        """(boxes (left, top, width, height) of each resolution's crops, photometric rows float32 [all V, COLUMNS])."""
        boxes, rows = [], []
        for resolution in self.resolutions:
            boxes.append([])
            for recipe in resolution.recipes:
                rng = view_rng(self.seed, epoch, sample, len(rows))
                boxes[-1].append(crop_box(*image.size, rng, resolution.scale))
                rows.append(draw(recipe, rng))
        return boxes, np.stack(rows)
