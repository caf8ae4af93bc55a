"""Copies to be traced to what they were made of: test tiles of the embedded photographs, cropped, recompressed, and
blurred, greyed or painted on.

Train images are cut from where `data=photos` trains: no test pixel is learnt from. An image is a function of (seed,
split, its number) and of how many originals there are.
"""

import io

import numpy as np
from PIL import Image, ImageFilter

from methods.data.photos import ALWAYS_TRAIN, FILES, TILE, VALIDATION, corners_of, load
from methods.data.sets.made_copies.spec import MadeCopiesData
from methods.data.sets.made_landmarks.reader import cut, tiles

KEPT = (0.5, 0.9)  # of a side, by a crop
QUALITY = (5, 30)  # of JPEG
TRAIN, COPY = 0, 1  # what is drawn by a seed, the split and the number


class MadeCopies:
    """RGB: the originals and the distractors, all of 96 x 96 pixels, then the copies of each original."""

    channels = 3
    small = True
    classes = labels = None

    def __init__(self, *, originals: int = 48, copies: int = 2, distractors: int = 48, seed: int = 0):
        self._seed = seed
        found = tiles()
        order = np.random.default_rng([seed]).permutation(len(found))[: originals + distractors]
        self._tiles = [found[n] for n in order]
        self.database = originals + distractors
        self.originals = tuple(np.array([n // copies], np.int64) for n in range(originals * copies))

    def __len__(self) -> int:
        return self.database + len(self.originals)

    def image(self, index: int) -> Image.Image:
        self.name_of(index)
        if index < self.database:
            return cut(self._tiles[index])
        number = index - self.database
        rng = np.random.default_rng([self._seed, COPY, number])
        return _attacked(cut(self._tiles[int(self.originals[number][0])]), rng)

    def name_of(self, index: int) -> str:
        """tile012, copy003."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return f"tile{index:03d}" if index < self.database else f"copy{index - self.database:03d}"


class Others:
    """RGB windows of 96 x 96 pixels of what is no test tile."""

    channels = 3
    small = True
    classes = labels = None

    def __init__(self, *, images: int = 512, seed: int = 0):
        self._images, self._seed = images, seed

    def __len__(self) -> int:
        return self._images

    def image(self, index: int) -> Image.Image:
        self.name_of(index)
        rng = np.random.default_rng([self._seed, TRAIN, index])
        side = TILE
        while True:
            name = sorted(FILES)[rng.integers(len(FILES))]
            corners = corners_of(*load(name).size[::-1], (VALIDATION, ALWAYS_TRAIN), side)
            if len(corners):
                row, column = corners[rng.integers(len(corners))].tolist()
                return load(name).crop((column, row, column + side, row + side)).convert("RGB")

    def name_of(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return f"other{index:05d}"


def _attacked(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A crop of it, blurred, greyed or painted on, and recompressed."""
    width, height = (round(side * rng.uniform(*KEPT)) for side in image.size)
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    image = image.crop((left, top, left + width, top + height))
    attack = rng.integers(3)
    if attack == 0:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(1, 2)))
    elif attack == 1:
        image = image.convert("L").convert("RGB")
    else:
        side = round(min(image.size) * rng.uniform(0.2, 0.4))
        place = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
        image.paste(tuple(rng.integers(256, size=3).tolist()), (*place, place[0] + side, place[1] + side))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=int(rng.integers(*QUALITY)))
    return Image.open(stream, formats=("JPEG",)).convert("RGB")


def read(config: MadeCopiesData, split: str) -> MadeCopies | Others:
    if split == "train":
        return Others(images=config.images, seed=config.seed)
    how = {"copies": config.copies, "distractors": config.distractors, "seed": config.seed}
    return MadeCopies(originals=config.originals, **how)
