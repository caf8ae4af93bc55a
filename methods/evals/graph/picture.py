"""Images of the graph with their neighbours: one row each."""

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from methods.data.dataset import ImageDataset
from methods.data.folder import printable
from methods.evals.montage import CELL, GAP, cell

APART = 3 * GAP  # pixels between an image and its neighbours
FRAME = 3
LINE, FONT = 15, 11  # pixels of a class's name, and of its letters
SAME, OTHER = "#1a7f37", "#b3261e"


def picture(dataset: ImageDataset, rows: Sequence[tuple[int, np.ndarray]]) -> Image.Image:
    """RGB. rows: (image, its neighbours, the nearest first), all as numbers of `dataset`. Neighbours of the image's
    class have a green frame, others a red one, with the class above each."""
    columns = 1 + max(len(neighbours) for _, neighbours in rows)
    pitch, height = CELL + 2 * FRAME + GAP, LINE + CELL + 2 * FRAME + 2 * GAP
    canvas = Image.new("RGB", (columns * pitch + APART + GAP, len(rows) * height + GAP), "white")
    draw = ImageDraw.Draw(canvas)
    for row, (image, neighbours) in enumerate(rows):
        for column, sample in enumerate((image, *neighbours)):
            left, top = GAP + column * pitch + (APART if column else 0), GAP + row * height
            label = dataset.labels[sample]
            name = _fitting(printable(os.fsencode(dataset.classes[label])), draw)
            draw.text((left, top), name, fill="black", font_size=FONT)
            colour = "black" if not column else SAME if label == dataset.labels[image] else OTHER
            side = CELL + 2 * FRAME
            draw.rectangle((left, top + LINE, left + side - 1, top + LINE + side - 1), outline=colour, width=FRAME)
            canvas.paste(cell(dataset, int(sample)), (left + FRAME, top + LINE + FRAME))
    return canvas


def _fitting(name: str, draw: ImageDraw.ImageDraw) -> str:
    """As much of it as is no wider than an image, with a sign where it is cut."""
    widest, short = CELL + 2 * FRAME, name
    while draw.textlength(short, font_size=FONT) > widest:
        short = short.rstrip("\u2026")[:-1] + "\u2026"
    return short
