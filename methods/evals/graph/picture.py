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
LINE = 15  # pixels of a class's name
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
            draw.text((left, top), printable(os.fsencode(dataset.classes[label]))[:10], fill="black", font_size=11)
            colour = "black" if not column else SAME if label == dataset.labels[image] else OTHER
            side = CELL + 2 * FRAME
            draw.rectangle((left, top + LINE, left + side - 1, top + LINE + side - 1), outline=colour, width=FRAME)
            canvas.paste(cell(dataset, int(sample)), (left + FRAME, top + LINE + FRAME))
    return canvas
