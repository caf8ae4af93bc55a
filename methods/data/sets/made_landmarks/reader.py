"""Places to be found again: each is a test tile of an embedded photograph, seen in windows of several sizes.

A query is the whole tile, its box the middle of it. What is relevant to it is graded by how much of the middle another
window has in common with it, intersection over union, and by what was done to the window. `data=photos` trains on no
pixel of them. An image is a function of (seed, its number) and of how many queries there are.
"""

import functools

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from methods.data.dataset import Query
from methods.data.photos import FILES, FLAT, TEST, TILE, corners_of, load
from methods.data.sets.made_landmarks.spec import MadeLandmarksData

EDGE = 20  # pixels of the tile around a query's box
BOX = (EDGE, EDGE, TILE - EDGE, TILE - EDGE)
SIDES = (40, 80)  # of a window, in pixels
GRADES = {"easy": (0.5, 1.0), "hard": (0.2, 0.5), "junk": (0.0, 0.2)}  # of its intersection over union with the box
VIEWS = ("easy", "easy", "easy", "hard", "hard", "hard", "junk", "junk")  # of each place


class MadeLandmarks:
    """RGB: the views of the places, place after place, images of others, then the queries."""

    channels = 3
    small = True
    classes = labels = None

    def __init__(self, *, queries: int = 24, others: int = 96, seed: int = 0):
        self._seed = seed
        found = tiles()
        order = np.random.default_rng([seed]).permutation(len(found))
        self._places = [found[n] for n in order[:queries]]
        self._elsewhere = [found[n] for n in order[queries:]]
        self.database = queries * len(VIEWS) + others
        grades = {grade: np.flatnonzero(np.array(VIEWS) == grade) for grade in GRADES}
        self.queries = tuple(
            Query(self.database + n, BOX, *(n * len(VIEWS) + places for places in grades.values()))
            for n in range(queries)
        )

    def __len__(self) -> int:
        return self.database + len(self.queries)

    def image(self, index: int) -> Image.Image:
        """A view of 40 to 80 pixels a side, of any aspect; a query has 96 x 96."""
        self.name_of(index)
        if index >= self.database:
            return cut(self._places[index - self.database])
        place, view = divmod(index, len(VIEWS))
        rng = np.random.default_rng([self._seed, index])
        if place < len(self.queries):
            return _seen(self._places[place], VIEWS[view], rng)
        number = index - len(self.queries) * len(VIEWS)
        return _seen(self._elsewhere[number % len(self._elsewhere)], rng.choice([*GRADES]), rng)

    def name_of(self, index: int) -> str:
        """place003/easy1, other0012, query003."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        if index >= self.database:
            return f"query{index - self.database:03d}"
        place, view = divmod(index, len(VIEWS))
        if place < len(self.queries):
            return f"place{place:03d}/{VIEWS[view]}{view}"
        return f"other{index - len(self.queries) * len(VIEWS):04d}"


@functools.cache
def tiles() -> list[tuple[str, int, int]]:
    """(photograph, top row, left column) of each test tile that shows something."""
    found = []
    for name in sorted(FILES):
        grey = np.asarray(load(name).convert("L"))
        for row, column in corners_of(*grey.shape, (TEST,), TILE).tolist():
            if grey[row : row + TILE, column : column + TILE].std() >= FLAT:
                found.append((name, row, column))
    return found


def cut(tile: tuple[str, int, int]) -> Image.Image:
    """RGB, TILE x TILE pixels."""
    name, row, column = tile
    return load(name).crop((column, row, column + TILE, row + TILE)).convert("RGB")


def _seen(tile: tuple[str, int, int], grade: str, rng: np.random.Generator) -> Image.Image:
    """A window of that grade; all but an easy one lose detail, half of them colour, and more of their contrast."""
    least, most = GRADES[grade]
    while True:  # each grade is a share of all windows
        width, height = rng.integers(SIDES[0], SIDES[1] + 1, 2).tolist()
        left, top = int(rng.integers(TILE - width + 1)), int(rng.integers(TILE - height + 1))
        window = (left, top, left + width, top + height)
        if least <= overlap(window, BOX) < most:
            break
    image = cut(tile).crop(window)
    spread = 0.1 if grade == "easy" else 0.4
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(1 - spread, 1 + spread))
    if grade != "easy":
        image = ImageEnhance.Contrast(image).enhance(rng.uniform(0.5, 1))
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.5)))
        if rng.random() < 0.5:
            image = image.convert("L").convert("RGB")
    return image


def overlap(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Intersection over union of two boxes, x1, y1, x2, y2."""
    width, height = (min(one[n + 2], other[n + 2]) - max(one[n], other[n]) for n in (0, 1))
    shared = max(0, width) * max(0, height)
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (one, other)]
    return shared / (sum(areas) - shared)


class Nothing:
    """RGB images, none of them."""

    channels = 3
    classes = labels = None

    def __len__(self) -> int:
        return 0

    def image(self, index: int) -> Image.Image:
        raise IndexError(f"image {index} of none")

    def name_of(self, index: int) -> str:
        raise IndexError(f"image {index} of none")


def read(config: MadeLandmarksData, split: str) -> MadeLandmarks | Nothing:
    if split == "train":
        return Nothing()
    return MadeLandmarks(queries=config.queries, others=config.others, seed=config.seed)
