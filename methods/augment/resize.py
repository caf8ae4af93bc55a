"""From decoded pixels to crops of the final size, eight to an image: what a worker spends its time on after decoding.

PyTorch's resize of bytes that lie channels last is vectorised where PIL's is not, to the same rounding of its filters:
`benchmarks/data.py --parts` has the figures.
"""

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate


def decoded(image: Image.Image) -> torch.Tensor:
    """uint8 [1, C, H, W] that lie channels last. `image` is "L" or "RGB"."""
    if image.mode not in ("L", "RGB"):
        raise ValueError(f"mode={image.mode!r}: views are made of L or RGB images; convert it first")
    pixels = np.array(image)
    return torch.from_numpy(pixels.reshape(1, *pixels.shape[:2], -1)).permute(0, 3, 1, 2)


def resized(pixels: torch.Tensor, boxes: list[tuple[int, int, int, int]], size: int, interpolation: str) -> np.ndarray:
    """The boxes (left, top, width, height) of an image, each at `size` x `size`: uint8 [V, C, size, size] that lie
    channels last. The filter sees no pixel outside its box, as where torchvision cuts first."""
    made = np.empty((len(boxes), size, size, pixels.shape[1]), np.uint8)
    for row, (left, top, width, height) in zip(made, boxes, strict=True):
        crop = pixels[:, :, top : top + height, left : left + width]
        if (width, height) != (size, size):
            crop = interpolate(crop, (size, size), mode=interpolation, align_corners=False, antialias=True)
        row[:] = crop[0].permute(1, 2, 0).numpy()
    return made.transpose(0, 3, 1, 2)
