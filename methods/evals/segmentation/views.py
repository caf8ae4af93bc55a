"""Crops of an image and of its pixels' classes alike, which travel as its fourth channel."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from methods.augment.rng import view_rng
from methods.backbones.spec import RGB_MEAN
from methods.data.dataset import BrokenImage, PixelDataset

VOID = 255  # of a pixel that counts neither for nor against
BEYOND = (*(round(255 * mean) for mean in RGB_MEAN), VOID)  # what is seen beyond an image's border: nothing


class WithPixels:
    """The images of a data set as RGBA, whose last channel is the class of each pixel from 0 on, VOID where it has
    none."""

    channels = 4

    def __init__(self, dataset: PixelDataset):
        self._dataset, self._first = dataset, 0 if background(dataset) else 1
        self.classes, self.labels = dataset.classes, None

    def __len__(self) -> int:
        return len(self._dataset)

    def image(self, index: int) -> Image.Image:
        """RGBA. Raises BrokenImage, also where there are not as many classes as pixels."""
        image, pixels = self._dataset.image(index).convert("RGB"), self._dataset.pixels(index)
        if pixels.shape != image.size[::-1]:
            height, width = pixels.shape
            raise BrokenImage(self.name_of(index), f"its mask has other sides than itself: {width} x {height}")
        if self._first:
            pixels = np.where((pixels == 0) | (pixels == VOID), VOID, pixels - self._first).astype(np.uint8)
        image.putalpha(Image.fromarray(pixels))
        return image

    def name_of(self, index: int) -> str:
        return self._dataset.name_of(index)


def background(dataset: PixelDataset) -> bool:
    """Whether what is of no class is one of its own."""
    return getattr(dataset, "background", True)


@dataclass(frozen=True)
class CropView:
    """A square of a scaled image, half of the time mirrored, a function of (seed, epoch, sample): uint8 [4, crop,
    crop]. Where the image is smaller, it lies in the upper left corner of nothing.

    side: pixels that the image's shorter side becomes before it is scaled; None: as it is.
    """

    seed: int
    crop: int
    scale: tuple[float, float]
    side: int | None
    flip: float

    def __call__(self, image: Image.Image, sample: int, epoch: int) -> np.ndarray:
        rng = view_rng(self.seed, epoch, sample)
        factor = self.scale[0] + (self.scale[1] - self.scale[0]) * rng.random()
        width, height = scaled(image.size, self.side, factor)
        sides = min(width, self.crop), min(height, self.crop)
        left, top = (int(rng.random() * (whole - part + 1)) for whole, part in zip((width, height), sides, strict=True))
        across, down = image.size[0] / width, image.size[1] / height
        right, bottom = min((left + sides[0]) * across, image.size[0]), min((top + sides[1]) * down, image.size[1])
        planes = resized(image, sides, (left * across, top * down, right, bottom))
        if rng.random() < self.flip:
            planes = planes[:, :, ::-1]
        made = np.empty((4, self.crop, self.crop), np.uint8)
        made[:] = np.array(BEYOND, np.uint8)[:, None, None]
        made[:, : sides[1], : sides[0]] = planes
        return made


@dataclass(frozen=True)
class WholeView:
    """The whole image at its own size, uint8 [4, H, W]: of a batch of one."""

    def __call__(self, image: Image.Image, sample: int, epoch: int) -> np.ndarray:
        return np.ascontiguousarray(np.asarray(image.convert("RGBA")).transpose(2, 0, 1))


def scaled(size: tuple[int, int], side: int | None, factor: float) -> tuple[int, int]:
    """(width, height) of an image of `size` when it is enlarged by `factor`, after its shorter side is `side`."""
    factor *= side / min(size) if side else 1.0
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def resized(image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> np.ndarray:
    """uint8 [4, h, w] of a box of an image: colours are interpolated, classes are those of the nearest pixel."""
    image = image.convert("RGBA")  # of what has no classes all is VOID
    *colours, classes = image.split()
    colours = Image.merge("RGB", colours).resize(size, Image.Resampling.BILINEAR, box=box)
    classes = classes.resize(size, Image.Resampling.NEAREST, box=box)
    return np.concatenate([np.asarray(colours).transpose(2, 0, 1), np.asarray(classes)[None]])
