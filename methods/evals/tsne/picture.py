"""The map of the classes as a picture: an image or a name stands for each."""

import os
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from methods.data.dataset import BrokenImage, ImageDataset
from methods.data.folder import printable
from methods.evals.tsne.layout import apart

NARROWEST, WIDEST = 480, 1600  # pixels of the picture's longer side
FLATTEST = 0.6  # shorter side by the longer
FULLEST, ROOMY = 0.45, 0.22  # shares of the picture that boxes take, at most and as wanted
CELLS = (88, 72, 60, 48, 40, 34, 28, 22, 18, 14)  # pixels of an image's side: the largest that fits
NAMED = 48  # pixels of an image's side from which on its name has room below
FONTS = (16, 14, 13, 12, 11, 10, 9)  # of names alone
LETTERS = (24, 16, 10)  # of a name at most; fewer where even the smallest font has no room
MOST = 2000  # classes that have an image or a name each; of more each is a dot
DOT, DOT_ROOM = 4, 12  # pixels of a dot, and of the square that it is given
WIDER, CAPTION, LINE = 1.6, 12, 15  # of a name below an image: its width by the image's, font, and height in pixels
MARGIN, FOOT = 10, 22  # pixels
GAPS = {"images": 5, "names": 2}  # pixels between two
INK, PALE, EDGE = "#24292f", "#6e7781", "#afb8c1"


def picture(
    points: np.ndarray, names: Sequence[str], shown: Sequence[int], dataset: ImageDataset, *, show: str, foot: str
) -> Image.Image:
    """RGB. points: [n, 2], y upwards; shown: of each class the image of `dataset` that stands for it; show: "images",
    which have their names below while there is room, or "names"; foot: a line below all. Each stands as near to its
    point as the others leave room."""
    size, texts, boxes = _fitting(names, show)
    width, height = _canvas(points, boxes)
    wanted = _placed(points, boxes, width, height)
    at = apart(wanted, boxes, (width, height), gap=GAPS[show]) if size else wanted
    at, (width, height) = _cropped(at, boxes, _font(CAPTION).getlength(foot))
    canvas = Image.new("RGB", (width, height + FOOT), "white")
    draw = ImageDraw.Draw(canvas)
    for text, sample, (x, y), box in zip(texts, shown, at, boxes, strict=True):
        top = round(y - box[1] / 2)
        if not size:
            draw.ellipse((x - DOT / 2, y - DOT / 2, x + DOT / 2, y + DOT / 2), fill=INK)
        elif show == "names":
            draw.text((x, y), text, fill=INK, font=_font(size), anchor="mm")
        else:
            left = round(x - size / 2)
            canvas.paste(_thumbnail(dataset, int(sample), size), (left, top))
            draw.rectangle((left, top, left + size - 1, top + size - 1), outline=EDGE)
            draw.text((x, top + size + LINE / 2), text, fill=INK, font=_font(CAPTION), anchor="mm")
    draw.text((MARGIN, height + FOOT / 2), foot, fill=PALE, font=_font(CAPTION), anchor="lm")
    return canvas


def _fitting(names: Sequence[str], show: str) -> tuple[int, list[str], np.ndarray]:
    """(pixels of an image's side, or of a font; the names as they are written; the boxes [n, 2] that are needed then),
    the largest and longest that the picture has room for; 0 where it has room for dots alone."""
    for letters in LETTERS if len(names) <= MOST else ():
        for size in FONTS if show == "names" else CELLS:
            texts, boxes = _written(names, size, letters) if show == "names" else _framed(names, size)
            if (boxes + GAPS[show]).prod(axis=1).sum() <= FULLEST * WIDEST**2:
                return size, texts, boxes
    return 0, [*names], np.full((len(names), 2), float(DOT_ROOM))


def _written(names: Sequence[str], font: int, letters: int) -> tuple[list[str], np.ndarray]:
    texts = [_cut(name, font, letters, WIDEST) for name in names]
    return texts, np.array([(_font(font).getlength(text) + 0.6 * font, 1.2 * font) for text in texts])


def _framed(names: Sequence[str], side: int) -> tuple[list[str], np.ndarray]:
    if side < NAMED:
        return [""] * len(names), np.full((len(names), 2), float(side))
    texts = [_cut(name, CAPTION, LETTERS[0], WIDER * side) for name in names]
    return texts, np.array([(max(side, _font(CAPTION).getlength(text)), side + LINE) for text in texts])


def _cut(name: str, font: int, letters: int, widest: float) -> str:
    """`name` printable, of so many letters at most, and no wider than `widest` pixels."""
    name = printable(os.fsencode(name))
    shorter = name if len(name) <= letters else name[: letters - 1] + "…"
    while len(shorter) > 2 and _font(font).getlength(shorter) > widest:
        shorter = shorter.removesuffix("…")[:-1] + "…"
    return shorter


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _canvas(points: np.ndarray, boxes: np.ndarray) -> tuple[int, int]:
    """(width, height) in pixels, of the shape of the cloud of points, as far as a picture can be that flat."""
    spread = np.ptp(points, axis=0)
    ratio = np.clip(spread / max(spread.max(), 1e-12), FLATTEST, 1)
    area = boxes.prod(axis=1).sum() / ROOMY
    longer = np.clip((area / ratio.prod()) ** 0.5, NARROWEST, WIDEST)
    width, height = (int(max(side, *size)) for side, size in zip(longer * ratio, (boxes + 2 * MARGIN).T, strict=True))
    return width, height


def _placed(points: np.ndarray, boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """The points in pixels, one scale for both axes, in the middle, with room for a box around each."""
    room = np.array([width, height]) - boxes.max(axis=0) - 2 * MARGIN
    low, spread = points.min(axis=0), np.ptp(points, axis=0)
    scale = (room / np.maximum(spread, 1e-12)).min()
    placed = (points - low - spread / 2) * scale * [1, -1]
    return placed + np.array([width, height]) / 2


def _cropped(at: np.ndarray, boxes: np.ndarray, narrowest: float) -> tuple[np.ndarray, tuple[int, int]]:
    """(the centres moved, width and height) with MARGIN around all boxes; they lie in the middle of what is wider."""
    low, high = (at - boxes / 2).min(axis=0) - MARGIN, (at + boxes / 2).max(axis=0) + MARGIN
    width, height = np.ceil(high - low)
    wider = max(0, narrowest + 2 * MARGIN - width)
    return at - low + [wider / 2, 0], (int(width + wider), int(height))


def _thumbnail(dataset: ImageDataset, sample: int, side: int) -> Image.Image:
    """The middle of an image, square; grey where it is broken."""
    try:
        return ImageOps.fit(dataset.image(sample).convert("RGB"), (side, side), Image.Resampling.BICUBIC)
    except BrokenImage:
        return Image.new("RGB", (side, side), "lightgrey")
