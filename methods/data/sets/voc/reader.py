"""PASCAL VOC's classification (Everingham et al., IJCV 2010) as the data set lays it: a list for each class, with what
it says of each image."""

import os
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from PIL import Image

from launcher.errors import InputError
from launcher.run import files, waiting
from methods.data.dataset import BrokenImage
from methods.data.decoding import OF_THE_MACHINE, decode, why_broken
from methods.data.listing import MAX_PIXELS
from methods.data.sets.voc.spec import (
    CLASSES,
    LIST_BYTES,
    SPLITS,
    VocData,
    is_voc_id,
    not_laid_out,
    voc_folder,
    voc_image,
    voc_list,
)

VALUES = {"1": 1, "-1": -1, "0": 0}


class Voc:
    """Images as RGB, in the order of the first class's list.

    tags: int8 [N, 20]: 1 where the class is there, -1 where it is not, 0 where all that is there of it is difficult,
    which counts for neither. Split "train" is trainval of 2007 and train of 2012, "test" is test and val.

    Raises InputError where a list is missing, says something else than `ID VALUE`, or is of other images than the
    first; OSError where one cannot be read now, which is the machine's fault.
    """

    channels = 3
    classes: tuple[str, ...] = CLASSES
    labels = None

    def __init__(self, path: str | Path, split: str, *, year: int = 2007, max_pixels: int = MAX_PIXELS):
        self._folder, self._year, self._max_pixels = voc_folder(path, year), year, max_pixels
        self._part = SPLITS[year][split]
        self._ids = list(self._read(CLASSES[0]))

    def __len__(self) -> int:
        return len(self._ids)

    @cached_property
    def tags(self) -> np.ndarray:
        """int8 [N, 20]. A list that cannot be read now is waited for: they are asked for in the middle of the work."""
        tags, first = np.empty((len(self), len(CLASSES)), np.int8), CLASSES[0]
        for column, name in enumerate(CLASSES):
            said = waiting.patiently(partial(self._read, name))
            if said.keys() != set(self._ids):
                strange = min(said.keys() ^ set(self._ids))
                reason = f"{self._short(name)} and {self._short(first)} are of other images: {strange} is in one alone"
                raise not_laid_out("data.path", ..., self._year, reason)
            tags[:, column] = [said[identity] for identity in self._ids]
        return tags

    def image(self, index: int) -> Image.Image:
        """RGB, at the size stored."""
        # A link leads to a plain file, or is broken: a pipe would be waited for.
        file = os.path.realpath(voc_image(self._folder, self._ids[self._row(index)]))
        try:
            with open(files.opened(file), "rb") as stream:
                return decode(stream, max_pixels=self._max_pixels)
        except Exception as error:  # as in ImageFolder: damaged bytes lead a decoder anywhere
            raise BrokenImage(self.name_of(index), why_broken(error)) from error

    def name_of(self, index: int) -> str:
        """Its path in VOCdevkit/."""
        return f"VOC{self._year}/JPEGImages/{self._ids[self._row(index)]}.jpg"

    def _row(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return index

    def _read(self, name: str) -> dict[str, int]:
        """What the list of class `name` says of each image, in its order."""
        file, found = voc_list(self._folder, name, self._part), {}
        try:
            text = files.read(os.path.realpath(file), LIST_BYTES).decode("ascii")
        except FileNotFoundError:
            raise not_laid_out("data.path", ..., self._year, f"{file!r} is missing") from None
        except UnicodeDecodeError:
            raise self._wrong(name, "it is not plain text") from None
        except (OSError, files.NotOurs) as error:
            if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:  # no fault of the list's: it is waited for
                raise
            raise InputError.of("data.path", ..., f"{file!r} cannot be read ({error})", "make it readable") from None
        for number, line in enumerate(text.split("\n"), 1):
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

    def _short(self, name: str) -> str:
        return f"ImageSets/Main/{name}_{self._part}.txt"

    def _wrong(self, name: str, reason: str) -> InputError:
        return not_laid_out("data.path", ..., self._year, f"{self._short(name)}: {reason}")


def read(config: VocData, split: str) -> Voc:
    return Voc(config.path, split, year=config.year, max_pixels=config.max_pixels)
