"""What a worker makes of an image, as picklable functions of (image, sample, epoch)."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from PIL import Image

from methods.augment.crops import centre_view, crop_box, train_view
from methods.augment.draws import draw
from methods.augment.patches import PatchesConfig
from methods.augment.resize import decoded, resized
from methods.augment.rng import view_rng
from methods.augment.spec import AUGMENTATIONS, Photometric, ViewsConfig, interpolation_of
from methods.data.dataset import ImageDataset

CIFAR = 32  # pixels a side


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
    """The centre crop, without randomness: for clustering and evaluation.

    As in the papers' evaluations on ImageNet, every image's shorter side becomes 8/7 of `size`, whatever it was: 256
    for 224. whole: an image that is hardly larger than `size` keeps its border.
    """

    size: int
    interpolation: str = "bilinear"  # bilinear | bicubic
    whole: bool = False

    @classmethod
    def of(cls, config: Any, dataset: ImageDataset) -> Self:
        """For `config`, of a training or of other work on a backbone. Small images stay whole: those of a data set
        that was cut to a size, and at up to 32 pixels any, as in the released code of DeiT, whose sizes say CIFAR."""
        whole = config.image_size <= CIFAR or getattr(dataset, "small", False)
        return cls(config.image_size, interpolation_of(config), whole)

    def __call__(self, image: Image.Image, sample: int, epoch: int) -> np.ndarray:
        kept = self.whole and min(image.size) <= self.size * 9 // 8
        return centre_view(image, self.size, self.size if kept else None, interpolation=self.interpolation)


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


@dataclass(frozen=True)
class PatchesView:
    """A patch of each cell of a grid over the image, row by row: uint8 [grid^2, C, size, size] that lie channels last,
    a function of (seed, epoch, sample). Patch v is that of row v // grid and column v % grid.

    As `methods.augment.patches` says: the image becomes a square of `resize` pixels, whatever its shape, and with
    probability `grey` the mean of its colours, to the nearest level. The worker finishes them, so no draws travel.
    """

    seed: int
    resize: int
    grid: int
    cell: int
    size: int
    grey: float

    @classmethod
    def of(cls, config: PatchesConfig, seed: int) -> Self:
        """What `config` describes."""
        return cls(seed, config.resize, config.grid, config.cell, config.image_size, config.grey)

    def __call__(self, image: Image.Image, sample: int, epoch: int) -> np.ndarray:
        (square,) = resized(decoded(image), [(0, 0, *image.size)], self.resize, "bilinear")
        corners, grey = self.draws(sample, epoch)
        patches = [square[:, top : top + self.size, left : left + self.size] for left, top in corners.tolist()]
        made = np.stack(patches)
        if grey and made.shape[1] > 1:
            made[:] = (made.sum(1, dtype=np.uint16, keepdims=True) + 1) // 3  # a third is never a half
        return made

    def draws(self, sample: int, epoch: int) -> tuple[np.ndarray, bool]:
        """(corners (left, top) of the patches in the resized image, int64 [grid^2, 2], whether they are grey)."""
        drawn = view_rng(self.seed, epoch, sample).random(3 + 2 * self.grid**2)
        cells = np.indices((self.grid, self.grid)).reshape(2, -1)[::-1].T * self.cell
        crop = drawn[1:3] * (self.resize - self.grid * self.cell + 1)
        within = drawn[3:].reshape(-1, 2) * (self.cell - self.size + 1)
        return cells + crop.astype(np.int64) + within.astype(np.int64), bool(drawn[0] < self.grey)
