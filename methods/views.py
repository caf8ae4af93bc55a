"""The two views that rotation and clustering methods need, as picklable functions of (image, sample, epoch)."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from methods.augment import centre_view, train_view, view_rng


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
