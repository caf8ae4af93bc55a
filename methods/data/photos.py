"""The embedded data set: patches of the photographs that ship with scikit-image and scikit-learn.

Nothing is downloaded. The class of a patch is the photograph it was cut from, so the labels are known without any
annotation; they serve the evaluation only. Each photograph is cut by a fixed lattice of test tiles: test patches lie
inside the tiles and train patches touch none of them, so that no test pixel is ever part of a train patch. Patches
are grey by default because the palette of a photograph alone gives its class away.

What recipes are chosen by lies in tiles of its own, between those for testing: a run that holds these out trains on
neither and never sees a test pixel.
"""

import functools
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from methods.data.sets.photos.spec import LARGEST_PATCH as LARGEST

# Drawings, synthetic images, and second shots of the same scene are left out.
SOURCES = {
    "skimage/data": (
        "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png",
        "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png",
        "page.png", "retina.jpg", "rocket.jpg", "text.png",
    ),
    "sklearn/datasets/images": ("china.jpg", "flower.jpg"),
}  # fmt: skip
FILES = {name.split(".")[0]: f"{folder}/{name}" for folder, names in SOURCES.items() for name in names}

TILE = 96  # side of a tile; a test tile per TILE * 2 pixels in both directions, a quarter of the photograph
STRIDE = 4  # windows start at multiples of this many pixels
SCALES = {1.0: "1", 1.5: "2/3", 2.0: "1/2"}  # window side / patch side, and how a patch's name says it
FLAT = 6.0  # a window whose grey levels have a smaller standard deviation (sky, black border) shows nothing

TEST, VALIDATION, ALWAYS_TRAIN = range(3)  # what a pixel is for
_ALLOWED = {  # the pixels of a split's patches, by (split, held_out)
    ("train", "test"): (VALIDATION, ALWAYS_TRAIN),
    ("test", "test"): (TEST,),
    ("train", "validation"): (ALWAYS_TRAIN,),
    ("test", "validation"): (VALIDATION,),
}


class Photos:
    """Patches of 19 photographs, every photograph equally often: item i belongs to class i % 19.

    classes: names of the photographs; labels: int64 [N], index into classes; channels: 1 (grey) or 3 (RGB).
    The same arguments always give the same patches, and fewer images give a prefix of more images.
    """

    classes: tuple[str, ...] = tuple(sorted(FILES))
    small = True

    def __init__(
        self, split: str, *, patch: int = 32, images: int = 6080, colour: bool = False, held_out: str = "test"
    ):
        """split: "train" or "test"; patch: side in pixels; images: train patches (the test split has a quarter).

        held_out: "test" or "validation", the tiles that the test split is cut from. Train patches touch no test tile
        either way, and with "validation" neither of both.
        """
        if split not in ("train", "test"):
            raise ValueError(f"split must be 'train' or 'test', not {split!r}")
        if held_out not in LARGEST:
            raise ValueError(f"held_out must be one of {', '.join(LARGEST)}, not {held_out!r}")
        self._allowed = _ALLOWED[split, held_out]
        if not 8 <= patch <= LARGEST[held_out]:
            raise ValueError(f"patch must lie between 8 and {LARGEST[held_out]} pixels, not {patch}")
        if images < 4 * len(self.classes):
            raise ValueError(f"images must be at least {4 * len(self.classes)}, not {images}")
        count = images if split == "train" else images // 4
        self.channels = 3 if colour else 1
        self.labels = np.arange(count, dtype=np.int64) % len(self.classes)
        self._pixels = np.empty((count, patch, patch, 3) if colour else (count, patch, patch), np.uint8)
        self._names = np.empty(count, object)
        for label, name in enumerate(self.classes):
            self._cut(name, np.flatnonzero(self.labels == label), split, patch)

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        """Patch number index, [patch, patch] pixels, mode "L" or "RGB"."""
        return Image.fromarray(self._pixels[index])

    def name_of(self, index: int) -> str:
        """Where the patch comes from: "chelsea[120:184,40:104]@1/2" is rows, columns and the reduction."""
        return self._names[index]

    def _cut(self, name: str, items: np.ndarray, split: str, patch: int) -> None:
        photograph = load(name)
        grey = photograph.convert("L")
        photograph = photograph.convert("RGB") if self.channels == 3 else grey
        sides = [round(scale * patch) for scale in SCALES]
        pools = [windows(np.asarray(grey), self._allowed, side, f"{name} {split} {side}") for side in sides]
        for turn, item in enumerate(items):
            choice = turn % len(sides)
            row, column = next(pools[choice])
            bottom, right = row + sides[choice], column + sides[choice]
            # Cropped before it is reduced: the filter must not reach over the border of the window.
            window = photograph.crop((column, row, right, bottom))
            self._pixels[item] = window.resize((patch, patch), Image.Resampling.BILINEAR)
            self._names[item] = f"{name}[{row}:{bottom},{column}:{right}]@{list(SCALES.values())[choice]}"


@functools.cache  # both splits of a run are cut from them
def load(name: str) -> Image.Image:
    """One of the photographs, in its own PIL mode, from the folder of the installed package that contains it."""
    package, _, file = FILES[name].partition("/")
    spec = find_spec(package)  # does not import the package, which would take longer than all the rest
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"the photograph {name!r} comes with the package {package}, which is not installed")
    with Image.open(Path(spec.submodule_search_locations[0], file)) as photograph:
        photograph.load()
    return photograph


def area(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """What pixels are for, uint8 [rows, columns]: TEST is every other tile of every other row, staggered, VALIDATION
    the rest of these rows."""
    rows, columns = rows // TILE, columns // TILE
    tested = (rows // 2 % 2)[:, None] == columns % 2
    return np.where((rows % 2 == 0)[:, None], np.where(tested, TEST, VALIDATION), ALWAYS_TRAIN).astype(np.uint8)


def corners_of(height: int, width: int, allowed: tuple[int, ...], side: int) -> np.ndarray:
    """Top left corners of all windows of `side` pixels, TILE at most, in a photograph whose pixels are all for one of
    `allowed`: int64 [n, 2], rows and columns."""
    rows, columns = np.arange(0, height - side + 1, STRIDE), np.arange(0, width - side + 1, STRIDE)
    # No window is larger than a tile, so that each tile it touches has one of its corners.
    ends = [area(rows + down, columns + right) for down in (0, side - 1) for right in (0, side - 1)]
    return np.argwhere(np.isin(ends, allowed).all(0)) * STRIDE


def windows(grey: np.ndarray, allowed: tuple[int, ...], side: int, seed: str) -> Iterator[tuple[int, int]]:
    """Top left corners (row, column) of windows in a photograph, uint8 [height, width], without end.

    All of their pixels are for one of `allowed`, as `area` says. They come in a random order that the seed fixes, and
    start over when all have been given.
    """
    corners = np.random.default_rng(zlib.crc32(seed.encode())).permutation(corners_of(*grey.shape, allowed, side))
    given = True
    while given:
        given = False
        for row, column in map(np.ndarray.tolist, corners):  # few of a million are ever asked for
            if grey[row : row + side, column : column + side].std() >= FLAT:
                given = True
                yield row, column
