"""PASCAL VOC (Everingham et al., IJCV 2010) as the data set lays it: a list for each class, with what it says of each
image, and a file of boxes for each image."""

import os
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from PIL import Image

from launcher.errors import InputError
from launcher.run import files, waiting
from methods.data.decoding import OF_THE_MACHINE
from methods.data.listing import MAX_PIXELS
from methods.data.pixel_maps import picture
from methods.data.sets.voc.boxes import WrongBoxes, boxes_of
from methods.data.sets.voc.spec import (
    BOXES_BYTES,
    CLASSES,
    LIST_BYTES,
    VocData,
    is_voc_id,
    not_laid_out,
    voc_boxes,
    voc_image,
    voc_list,
    voc_parts,
)

VALUES = {"1": 1, "-1": -1, "0": 0}


class Voc:
    """Images as RGB, in the order of the first class's list; those of 2012 that were added come last.

    tags: int8 [N, 20]: 1 where the class is there, -1 where it is not, 0 where all that is there of it is difficult,
    which counts for neither. Split "train" is trainval of 2007 and train of 2012, "test" is test and val.

    Raises InputError where a list is missing, says something else than `ID VALUE`, or is of other images than the
    first; OSError where one cannot be read now, which is the machine's fault.
    """

    channels = 3
    classes: tuple[str, ...] = CLASSES
    labels = None

    def __init__(
        self,
        path: str | Path,
        split: str,
        *,
        year: int = 2007,
        plus_2012: bool = False,
        max_pixels: int = MAX_PIXELS,
    ):
        self._max_pixels = max_pixels
        self._parts = [_Part(*each) for each in voc_parts(path, year, split, plus_2012)]
        self._ids = [list(part.read(CLASSES[0])) for part in self._parts]
        self._starts = np.cumsum([0, *map(len, self._ids)]).tolist()
        self._last: tuple[int, tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None

    def __len__(self) -> int:
        return self._starts[-1]

    @cached_property
    def tags(self) -> np.ndarray:
        """int8 [N, 20]. A list that cannot be read now is waited for: they are asked for in the middle of the work."""
        tags = np.empty((len(self), len(CLASSES)), np.int8)
        for part, ids, start in zip(self._parts, self._ids, self._starts, strict=False):
            for column, name in enumerate(CLASSES):
                said = waiting.patiently(partial(part.read, name))
                part.refuse_others(name, said.keys() ^ set(ids))
                tags[start : start + len(ids), column] = [said[identity] for identity in ids]
        return tags

    def image(self, index: int) -> Image.Image:
        """RGB, at the size stored."""
        part, identity = self._at(index)
        return picture(voc_image(part.folder, identity), self.name_of(index), self._max_pixels)

    def boxes(self, index: int) -> np.ndarray:
        """float32 [n, 4]: x1, y1, x2, y2 in pixels from the image's corner: x2 - x1 is the number of columns. Raises
        InputError where the file of boxes is missing, or is none."""
        return self._objects(index)[0]

    def box_labels(self, index: int) -> np.ndarray:
        """int64 [n]: positions in `classes`."""
        return self._objects(index)[1]

    def difficult(self, index: int) -> np.ndarray:
        """bool [n]: the boxes that an evaluation counts neither for nor against."""
        return self._objects(index)[2]

    def name_of(self, index: int) -> str:
        """Its path in VOCdevkit/."""
        part, identity = self._at(index)
        return f"VOC{part.year}/JPEGImages/{identity}.jpg"

    def _objects(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._last is None or self._last[0] != index:  # asked for three times in a row
            part, identity = self._at(index)
            self._last = index, waiting.patiently(partial(part.objects, identity))
        return self._last[1]

    def _at(self, index: int) -> tuple["_Part", str]:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        number = bisect_right(self._starts, index) - 1
        return self._parts[number], self._ids[number][index - self._starts[number]]


@dataclass(frozen=True)
class _Part:
    """A part ("trainval", ...) of a year, in its folder."""

    folder: str
    year: int
    part: str

    def read(self, name: str) -> dict[str, int]:
        """What the list of class `name` says of each image, in its order."""
        text, found = self._text(voc_list(self.folder, name, self.part), LIST_BYTES), {}
        try:
            lines = text.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise self._wrong(name, "it is not plain text") from None
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words:
                continue
            if len(words) != 2 or not is_voc_id(words[0]) or words[1] not in VALUES:
                raise self._wrong(name, f"line {number}, {line.strip()[:60]!r}, is not `ID VALUE`, VALUE 1, -1 or 0")
            if words[0] in found:
                raise self._wrong(name, f"line {number} tells of {words[0]} a second time")
            found[words[0]] = VALUES[words[1]]
        if not found:
            raise self._wrong(name, "it tells of no image")
        return found

    def refuse_others(self, name: str, strange: set[str]) -> None:
        """Raises InputError where there are `strange` images, which the list of class `name` or the first one lacks."""
        if strange:
            lists = f"{self._short(name)} and {self._short(CLASSES[0])}"
            reason = f"{lists} are of other images: {min(strange)} is in one alone"
            raise not_laid_out("data.path", ..., self.year, reason)

    def objects(self, identity: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(boxes, labels, difficult) of an image."""
        text = self._text(voc_boxes(self.folder, identity), BOXES_BYTES)
        try:
            return boxes_of(text)
        except WrongBoxes as error:
            raise not_laid_out("data.path", ..., self.year, f"Annotations/{identity}.xml: {error}") from None

    def _text(self, file: str, most: int) -> bytes:
        try:
            return files.read(os.path.realpath(file), most)
        except FileNotFoundError:
            raise not_laid_out("data.path", ..., self.year, f"{file!r} is missing") from None
        except (OSError, files.NotOurs) as error:
            if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:  # no fault of the file's: it is waited for
                raise
            raise InputError.of("data.path", ..., f"{file!r} cannot be read ({error})", "make it readable") from None

    def _short(self, name: str) -> str:
        return f"ImageSets/Main/{name}_{self.part}.txt"

    def _wrong(self, name: str, reason: str) -> InputError:
        return not_laid_out("data.path", ..., self.year, f"{self._short(name)}: {reason}")


def read(config: VocData, split: str) -> Voc:
    return Voc(config.path, split, year=config.year, plus_2012=config.plus_2012, max_pixels=config.max_pixels)
