"""Crops: one call of PIL each, from decoded image to pixels of the final size."""

import math

import numpy as np
from PIL import Image

RATIO = (3 / 4, 4 / 3)  # of a crop's width to its height, on a logarithmic scale


def train_view(
    image: Image.Image,
    size: int,
    rng: np.random.Generator,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
) -> np.ndarray:
    """A random resized crop (Szegedy et al. 2015), then mirrored for one half of the draws: uint8 [C, size, size].

    `scale` is the crop's share of the image's area, before resizing. Boxes are distributed as in torchvision's
    RandomResizedCrop. `image` is "L" or "RGB". At a box's border the filter also sees the pixels just outside it, which
    torchvision, cutting first, leaves out.
    """
    left, top, width, height = crop_box(*image.size, rng, scale)
    view = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))
    return _planes(view, mirrored=rng.random() < 0.5)


def centre_view(
    image: Image.Image, size: int, resize: int | None = None, *, interpolation: str = "bilinear"
) -> np.ndarray:
    """The shorter side resized to `resize`, then the central square of side `size`: uint8 [C, size, size].

    `resize` is `size` * 8 / 7 by default: 256 for 224, as in ImageNet evaluations. interpolation: bilinear | bicubic.
    It is what torchvision's Resize and CenterCrop make of an image of PIL, with their roundings. Raises ValueError
    where `resize` is below `size`.
    """
    resize = round(size * 8 / 7) if resize is None else resize
    if resize < size:
        raise ValueError(f"resize={resize}: a square of {size} pixels does not fit; give {size} or more")
    shorter = min(image.size)
    sides = [resize * side // shorter for side in image.size]  # the longer one is rounded down
    corner = [round((side - size) / 2) for side in sides]
    scales = [before / after for before, after in zip(image.size, sides, strict=True)]
    # PIL refuses a rounding error beyond the image.
    ends = [min((c + size) * s, side) for c, s, side in zip(corner, scales, image.size, strict=True)]
    box = (corner[0] * scales[0], corner[1] * scales[1], ends[0], ends[1])
    return _planes(image.resize((size, size), Image.Resampling[interpolation.upper()], box=box))


def crop_box(
    width: int, height: int, rng: np.random.Generator, scale: tuple[float, float]
) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a random crop of an image of `width` x `height` pixels."""
    low, high = map(math.log, RATIO)
    for _ in range(10):
        area = width * height * (scale[0] + (scale[1] - scale[0]) * rng.random())
        aspect = math.exp(low + (high - low) * rng.random())
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.random() * (width - w + 1)), int(rng.random() * (height - h + 1)), w, h
    # No luck: the largest central crop that RATIO allows.
    w = min(width, max(1, round(height * RATIO[1])))
    h = min(height, max(1, round(width / RATIO[0])))
    return (width - w) // 2, (height - h) // 2, w, h


def _planes(image: Image.Image, *, mirrored: bool = False) -> np.ndarray:
    """uint8 [C, H, W], contiguous and writable."""
    if image.mode not in ("L", "RGB"):
        raise ValueError(f"mode={image.mode!r}: views are made of L or RGB images; convert it first")
    pixels = np.asarray(image)
    if mirrored:
        pixels = pixels[:, ::-1]
    planes = pixels[None] if image.mode == "L" else pixels.transpose(2, 0, 1)
    return np.array(planes, order="C")
