"""A clip as a strip of frames: the truth above, what was propagated below."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SHOWN = 8  # frames
SIDE, GAP = 160, 4  # pixels of a frame's shorter side at least, and between two
CAPTION, FONT = 20, 13  # pixels of the line above a row, and of its letters
VOID = 255  # white
STRENGTH = 0.6  # of an object's colour over the image
# The first colours of the palette of PASCAL VOC and DAVIS, by object.
COLOURS = np.array(
    [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128)]
)


def shown(frames: int) -> list[int]:
    """Which frames of a clip: the first, the last, and some between."""
    return np.unique(np.linspace(0, frames - 1, SHOWN).round().astype(int)).tolist()


def strip(
    frames: Sequence[int], images: Sequence[Image.Image], truths: Sequence[np.ndarray], found: Sequence[np.ndarray]
) -> Image.Image:
    """frames: their numbers in the clip, from 0, the one whose labels are given; images: RGB, of one size; truths,
    found: uint8 [H, W] of each."""
    scale = max(1, round(SIDE / min(images[0].size)))
    width, height = (side * scale for side in images[0].size)
    pitch = CAPTION + height
    canvas = Image.new("RGB", (len(images) * (width + GAP) - GAP, 2 * pitch), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(FONT)
    for column, (frame, image, *masks) in enumerate(zip(frames, images, truths, found, strict=True)):
        left = column * (width + GAP)
        for row, (mask, name) in enumerate(zip(masks, ("truth", "carried" if frame else "given"), strict=True)):
            painted = _painted(image, mask).resize((width, height), Image.Resampling.NEAREST)
            canvas.paste(painted, (left, row * pitch + CAPTION))
            text = f"{name}, frame {frame}"
            draw.text((left + width / 2, row * pitch + CAPTION / 2), text, fill="black", font=font, anchor="mm")
    return canvas


def _painted(image: Image.Image, mask: np.ndarray) -> Image.Image:
    pixels = np.asarray(image.convert("RGB"), np.float64)
    thing = (mask != 0)[..., None]
    colour = 1.6 * COLOURS[np.where(mask == 0, 0, 1 + (mask.astype(int) - 1) % (len(COLOURS) - 1))]
    colour[mask == VOID] = 255
    mixed = np.where(thing, (1 - STRENGTH) * pixels + STRENGTH * colour, pixels)
    return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))
