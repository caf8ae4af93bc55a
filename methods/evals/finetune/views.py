"""What a network is fine-tuned on: random crops, mirrored for one half, distorted where the recipe says so."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from methods.augment.distorted import Distortion
from methods.augment.rng import view_rng
from methods.augment.views import TrainView

STREAM = 1 << 32  # the draws of distortions, apart from those of crops


@dataclass(frozen=True)
class TuningView:
    """A function of (seed, epoch, sample)."""

    crops: TrainView
    distortion: Distortion | None

    def __call__(self, image: Image.Image, sample: int, epoch: int) -> np.ndarray:
        """uint8 [C, S, S]."""
        pixels = self.crops(image, sample, epoch)
        if self.distortion is None:
            return pixels
        return self.distortion(pixels, int(view_rng(self.crops.seed, epoch, sample, STREAM).integers(1 << 32)))
