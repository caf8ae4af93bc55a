"""Images made here whose every object is known: for evaluations with several labels an image, boxes and masks.

One to three shapes, each of a material of its own, are pasted on a patch of an embedded photograph. Train images are
cut from what `photos.area` leaves to training, background and materials alike, test images from its test tiles: no test
pixel is in a train image, neither of these nor of `data=photos`. An image is a function of (seed, split, index) alone.
"""

import functools
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from methods.data.photos import ALWAYS_TRAIN, FILES, TEST, VALIDATION, corners_of, load
from methods.data.sets.made_objects.spec import MadeObjectsData

MATERIALS = {  # of each class, the photograph that it is cut from; none of these is a background
    "disc": "ihc", "square": "brick", "triangle": "grass", "cross": "gravel", "ring": "coffee", "star": "flower",
}  # fmt: skip
BACKGROUNDS = tuple(sorted(set(FILES) - set(MATERIALS.values())))
SCALES = {1.0: "1", 1.5: "2/3"}  # window side / image side, and how an image's name says it
RADIUS, SMALL = (0.14, 0.26), (0.07, 0.09)  # of an object, and of a difficult one, as shares of the side
DIFFICULT = 0.2  # share of images with one of these beside the others
CONTRAST = 50.0  # grey levels, at least, between an object's mean and that of what it covers
VOID = 255  # a pixel that counts neither for nor against
FINE = 4  # samples a pixel, in both directions, of a shape's border
_ALLOWED = {"train": (VALIDATION, ALWAYS_TRAIN), "test": (TEST,)}


@dataclass(frozen=True)
class _Window:
    photograph: str
    row: int
    column: int
    side: int

    def __str__(self) -> str:
        return f"{self.photograph}[{self.row}:{self.row + self.side},{self.column}:{self.column + self.side}]"

    def pixels(self) -> Image.Image:
        # Cropped before it is resized: a filter must not reach over the border of the window.
        box = (self.column, self.row, self.column + self.side, self.row + self.side)
        return load(self.photograph).crop(box).convert("RGB")


@dataclass(frozen=True)
class _Object:
    label: int
    row: float  # of its centre
    column: float
    radius: float  # of the circle around it
    angle: float
    material: _Window
    difficult: bool


class MadeObjects:
    """RGB images of side x side pixels; fewer images are a prefix of more.

    tags: int8 [N, 6]: 1 where an object of the class is there, -1 where none is, 0 where all that are there are
    difficult: too small to be told for certain.
    """

    channels = 3
    small = True
    labels = None
    classes: tuple[str, ...] = tuple(MATERIALS)

    def __init__(self, split: str, *, images: int = 608, side: int = 64, seed: int = 0):
        """images: of the train split; the test split has a quarter of them. side: 48 to 64 pixels."""
        if split not in _ALLOWED:
            raise ValueError(f"split must be 'train' or 'test', not {split!r}")
        if not 48 <= side <= 64:
            raise ValueError(f"side must lie between 48 and 64 pixels, not {side}")
        self._split, self._side, self._seed = split, side, seed
        self._count = images if split == "train" else images // 4

    def __len__(self) -> int:
        return self._count

    @functools.cached_property
    def tags(self) -> np.ndarray:
        """int8 [N, 6]."""
        tags = np.full((len(self), len(self.classes)), -1, np.int8)
        for index in range(len(self)):
            for each in sorted(self._drawn(index)[1], key=lambda each: not each.difficult):  # the certain have the word
                tags[index, each.label] = 0 if each.difficult else 1
        return tags

    def image(self, index: int) -> Image.Image:
        """RGB [side, side]."""
        background, objects = self._drawn(index)
        size = (self._side, self._side)
        pixels = np.asarray(background.pixels().resize(size, Image.Resampling.BILINEAR), np.float64)
        for each in objects:
            cover = self._cover(each)[:, :, None]
            covered = (pixels.mean(2, keepdims=True) * cover).sum() / cover.sum()
            pixels = pixels * (1 - cover) + self._painted(each, covered) * cover
        return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))

    def boxes(self, index: int) -> np.ndarray:
        """float32 [n, 4]: x1, y1, x2, y2 around each object's pixels in `mask`; x2 and y2 are their borders, so that
        x2 - x1 is the number of columns."""
        mask, found = self.mask(index), []
        for number in range(1, len(self._drawn(index)[1]) + 1):
            rows, columns = np.nonzero(mask == number)
            found.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        return np.array(found, np.float32)

    def box_labels(self, index: int) -> np.ndarray:
        """int64 [n]: positions in `classes` of what the boxes hold."""
        return np.array([each.label for each in self._drawn(index)[1]], np.int64)

    def difficult(self, index: int) -> np.ndarray:
        """bool [n]: the boxes that an evaluation counts neither for nor against."""
        return np.array([each.difficult for each in self._drawn(index)[1]], bool)

    def mask(self, index: int) -> np.ndarray:
        """uint8 [side, side]: 0 for the background, i + 1 for the object of box i, which has at least half of the
        pixel."""
        mask = np.zeros((self._side, self._side), np.uint8)
        for number, each in enumerate(self._drawn(index)[1], 1):
            mask[self._cover(each) >= 0.5] = number
        return mask

    def pixels(self, index: int) -> np.ndarray:
        """uint8 [side, side], as `dataset.PixelDataset` has it; objects that are difficult are void."""
        drawn = self._drawn(index)[1]
        return np.array([0, *(VOID if each.difficult else each.label + 1 for each in drawn)], np.uint8)[
            self.mask(index)
        ]

    def object_masks(self, index: int) -> np.ndarray:
        """bool [n, side, side]: the pixels of the object in each box."""
        return self.mask(index)[None] == np.arange(1, len(self._drawn(index)[1]) + 1)[:, None, None]

    def name_of(self, index: int) -> str:
        """Which pixels it is made of: "moon[0:64,120:184]@1 + ring of coffee[8:32,40:64]"."""
        background, objects = self._drawn(index)
        parts = [f"{self.classes[each.label]} of {each.material}" for each in objects]
        reduced = next(said for scale, said in SCALES.items() if round(scale * self._side) == background.side)
        return " + ".join([f"{background}@{reduced}", *parts])

    def _drawn(self, index: int) -> tuple[_Window, tuple[_Object, ...]]:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        rng = np.random.default_rng([self._seed, zlib.crc32(self._split.encode()), index])
        scale = tuple(SCALES)[rng.integers(len(SCALES))]
        background = self._window(rng, BACKGROUNDS[rng.integers(len(BACKGROUNDS))], round(scale * self._side))
        objects: list[_Object] = []
        wanted = [RADIUS] * int(rng.integers(1, 4)) + [SMALL] * int(rng.random() < DIFFICULT)
        for radii in wanted:
            label, radius = rng.integers(len(self.classes)), rng.uniform(*radii) * self._side
            angle = rng.uniform(0, 2 * np.pi)
            material = self._window(rng, MATERIALS[self.classes[label]], 2 * int(np.ceil(radius)) + 2)
            for _ in range(50):  # an object that finds no place of its own is left out; the first always does
                row, column = rng.uniform(radius, self._side - radius, 2)
                if all(np.hypot(row - o.row, column - o.column) > radius + o.radius + 1 for o in objects):
                    objects.append(_Object(int(label), row, column, radius, angle, material, radii is SMALL))
                    break
        return background, tuple(objects)

    def _window(self, rng: np.random.Generator, photograph: str, side: int) -> _Window:
        corners = _corners(photograph, self._split, side)
        row, column = corners[rng.integers(len(corners))].tolist()
        return _Window(photograph, row, column, side)

    def _cover(self, each: _Object) -> np.ndarray:
        """float64 [side, side]: which share of a pixel the object has."""
        # Its circle lies in the image; nothing beyond it is looked at.
        spans = [
            slice(int(at - each.radius), min(int(at + each.radius) + 1, self._side)) for at in (each.row, each.column)
        ]
        down, right = (
            ((np.arange(span.start * FINE, span.stop * FINE) + 0.5) / FINE - at) / each.radius
            for span, at in zip(spans, (each.row, each.column), strict=True)
        )
        down, right = down[:, None], right[None, :]
        cosine, sine = np.cos(each.angle), np.sin(each.angle)
        inside = SHAPES[self.classes[each.label]](cosine * right + sine * down, cosine * down - sine * right)
        cover = np.zeros((self._side, self._side))
        cover[*spans] = inside.reshape(len(down) // FINE, FINE, -1, FINE).mean((1, 3))
        return cover

    def _painted(self, each: _Object, covered: float) -> np.ndarray:
        """float64 [side, side, 3]: its material where the object is, as bright or dark as it takes to stand out from
        what it covers, of this mean grey."""
        tile = np.asarray(each.material.pixels(), np.float64)
        gap = tile.mean() - covered
        if abs(gap) < CONTRAST:
            bright = covered + CONTRAST < 215 if gap >= 0 else covered - CONTRAST < 40
            tile = tile + (covered + (CONTRAST if bright else -CONTRAST) - tile.mean())
        canvas = np.zeros((self._side, self._side, 3))
        top, left = (int(np.floor(at - each.radius)) - 1 for at in (each.row, each.column))
        rows, columns = (np.clip(np.arange(self._side) - first, 0, len(tile) - 1) for first in (top, left))
        canvas[:] = tile[rows][:, columns]
        return canvas


@functools.cache
def _corners(photograph: str, split: str, side: int) -> np.ndarray:
    width, height = load(photograph).size
    return corners_of(height, width, _ALLOWED[split], side)


def _polygon(right: np.ndarray, down: np.ndarray, corners: int, turned: float = 0.0) -> np.ndarray:
    """A regular one in the unit circle."""
    inner = np.cos(np.pi / corners)
    angles = turned + 2 * np.pi * np.arange(corners) / corners
    return np.all([right * np.cos(angle) + down * np.sin(angle) <= inner for angle in angles], axis=0)


def _cross(right: np.ndarray, down: np.ndarray) -> np.ndarray:
    across, along = np.minimum(abs(right), abs(down)), np.maximum(abs(right), abs(down))
    return (across <= 0.28) & (along <= 0.95)


def _ring(right: np.ndarray, down: np.ndarray) -> np.ndarray:
    return (np.hypot(right, down) <= 1) & (np.hypot(right, down) >= 0.5)


# Which points of the plane an object has, whose circle has the radius 1.
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "disc": lambda right, down: np.hypot(right, down) <= 1,
    "square": lambda right, down: _polygon(right, down, 4),
    "triangle": lambda right, down: _polygon(right, down, 3),
    "cross": _cross,
    "ring": _ring,
    "star": lambda right, down: _polygon(right, down, 3) | _polygon(right, down, 3, np.pi),
}


def read(config: MadeObjectsData, split: str) -> MadeObjects:
    return MadeObjects(split, images=config.images, side=config.side, seed=config.seed)
