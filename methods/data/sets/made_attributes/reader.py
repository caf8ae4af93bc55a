"""Images made here whose classes are known by their attributes: a shape, a material and a size.

One object is pasted on a patch of an embedded photograph, as in `made/objects`: no test pixel is ever in a train image.
The material is independent of the shape. Of the 32 classes 8 have no train image, but each of their attributes has, and
so has each pair of a size and a shape, a size and a material, and a shape and a material.
"""

import dataclasses
import itertools

import numpy as np
from PIL import Image

from methods.data.sets.made_attributes.spec import MadeAttributesData
from methods.data.sets.made_objects.reader import MadeObjects

SHAPES = ("disc", "triangle", "cross", "ring")
MATERIALS = ("brick", "coffee", "flower", "ihc")
SIZES = {"small": (0.15, 0.19), "large": (0.28, 0.34)}  # radius of the circle around an object, as shares of the side
CLASSES = tuple(itertools.product(range(len(SIZES)), range(len(MATERIALS)), range(len(SHAPES))))
UNSEEN = tuple((shape - material - 2 * size) % len(SHAPES) == 0 for size, material, shape in CLASSES)


class MadeAttributes:
    """RGB images of side x side pixels; fewer images are the first of more.

    labels: int64 [N]; the classes take turns, in "train" those that are seen, in "test" all. attributes: float32
    [32, 10], 1 where a class has it: one of four shapes, of four materials and of two sizes. seen: bool [32].
    """

    channels = 3
    small = True
    classes: tuple[str, ...] = tuple(
        f"{(*SIZES,)[size]} {SHAPES[shape]} of {MATERIALS[material]}" for size, material, shape in CLASSES
    )
    seen = ~np.array(UNSEEN)

    def __init__(self, split: str, *, images: int = 960, side: int = 64, seed: int = 0):
        """images: of the train split; the test split has a quarter of them. side: 48 to 64 pixels."""
        self._pasted = _Pasted(split, images=images, side=side, seed=seed)
        turn = np.flatnonzero(self.seen) if split == "train" else np.arange(len(CLASSES))
        self.labels = self._pasted.turn = turn[np.arange(len(self._pasted)) % len(turn)]
        self.attributes = np.zeros((len(CLASSES), len(SHAPES) + len(MATERIALS) + len(SIZES)), np.float32)
        for row, (size, material, shape) in zip(self.attributes, CLASSES, strict=True):
            row[[shape, len(SHAPES) + material, len(SHAPES) + len(MATERIALS) + size]] = 1

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        """RGB [side, side]."""
        return self._pasted.image(index)

    def name_of(self, index: int) -> str:
        """Which pixels it is made of: "moon[0:64,120:184]@1 + ring of coffee[8:32,40:64]"."""
        return self._pasted.name_of(index)


class _Pasted(MadeObjects):
    """One object an image, of the class in `turn`."""

    classes = SHAPES
    turn: np.ndarray

    def _drawn(self, index):
        background, (first, *_) = super()._drawn(index)
        size, material, shape = CLASSES[self.turn[index]]
        rng = np.random.default_rng([self._seed, *self._split.encode(), index, size])
        radius = rng.uniform(*(*SIZES.values(),)[size]) * self._side
        row, column = rng.uniform(radius, self._side - radius, 2)
        window = self._window(rng, MATERIALS[material], 2 * int(np.ceil(radius)) + 2)
        placed = {"row": row, "column": column, "radius": radius, "material": window}
        return background, (dataclasses.replace(first, label=shape, difficult=False, **placed),)


def read(config: MadeAttributesData, split: str) -> MadeAttributes:
    return MadeAttributes(split, images=config.images, side=config.side, seed=config.seed)
