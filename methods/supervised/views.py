"""Crops that are distorted as DeiT's are (`methods.augment.distorted`)."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from methods.augment.distorted import Distortion
from methods.augment.rng import view_rng
from methods.augment.views import MultiCropView
from methods.data.loader import View
from methods.supervised.spec import SupervisedConfig

STREAM = 1 << 32  # views from here on are those of this file: crops draw from their own


def distorted(crops: MultiCropView, config: SupervisedConfig) -> View:
    """`crops` as `config` has them distorted, or as they are."""
    if not (config.rand_augment or config.erasing):
        return crops
    return DistortedView(crops, Distortion(config.rand_augment, config.erasing, config.normalise, crops.interpolation))


@dataclass(frozen=True)
class DistortedView:
    """Crops as `MultiCropView` makes them, each then distorted: a function of (seed, epoch, sample, view). They are
    mirrored later, which is as likely as before."""

    crops: MultiCropView
    distortion: Distortion

    def __call__(self, image: Image.Image, sample: int, epoch: int) -> tuple[np.ndarray, ...]:
        *resolutions, rows = self.crops(image, sample, epoch)
        for view, pixels in enumerate(crop for crops in resolutions for crop in crops):  # uint8 [C, S, S]
            seed = view_rng(self.crops.seed, epoch, sample, STREAM + view).integers(1 << 32)
            pixels[:] = self.distortion(pixels, int(seed))
        return (*resolutions, rows)
