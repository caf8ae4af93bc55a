"""COCO (Lin et al. 2014), the splits of 2017, as the data set lays it: a file of all objects and a folder of images."""

import json
import os
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from PIL import Image

from launcher.errors import InputError
from launcher.run import files, waiting
from methods.data.dataset import BrokenImage
from methods.data.decoding import OF_THE_MACHINE
from methods.data.listing import MAX_PIXELS
from methods.data.pixel_maps import picture
from methods.data.sets.coco.objects import Objects, WrongObjects
from methods.data.sets.coco.spec import LAID, PARTS, CocoData, coco_images, coco_list

BYTES = 1 << 30  # of a file of objects, at most; the largest published one has 450 MB


class CocoObjects:
    """Images as RGB, by their numbers. Split "train" is train2017, "test" val2017.

    Raises InputError where the file of objects is missing, or something else.
    """

    channels = 3
    labels = None

    def __init__(self, path: str | Path, split: str, *, max_pixels: int = MAX_PIXELS):
        self._part, self._max_pixels = PARTS[split], max_pixels
        self._images = coco_images(path, self._part)
        self._objects = waiting.patiently(partial(_read, coco_list(path, self._part), self._part))
        self.classes = self._objects.classes

    def __len__(self) -> int:
        return len(self._objects.files)

    @cached_property
    def tags(self) -> np.ndarray:
        """int8 [N, 80]: 1 where the class is there, -1 where it is not, 0 where all that is there of it is a crowd."""
        tags = np.full((len(self), len(self.classes)), -1, np.int8)
        rows = np.repeat(np.arange(len(self)), np.diff(self._objects.starts))
        for value, chosen in ((0, self._objects.crowds), (1, ~self._objects.crowds)):  # the certain have the word
            tags[rows[chosen], self._objects.labels[chosen]] = value
        return tags

    def image(self, index: int) -> Image.Image:
        """RGB, at the size stored."""
        file = os.path.join(self._images, self._objects.files[self._row(index)])
        image = picture(file, self.name_of(index), self._max_pixels)
        height, width = self._objects.sizes[index].tolist()
        if image.size != (width, height):
            said = f"it has {image.width} x {image.height} pixels, and its boxes are of {width} x {height}"
            raise BrokenImage(self.name_of(index), said)
        return image

    def boxes(self, index: int) -> np.ndarray:
        """float32 [n, 4]: x1, y1, x2, y2 in pixels. Some of the published ones have no area."""
        return self._objects.boxes[self._objects.of(self._row(index))]

    def box_labels(self, index: int) -> np.ndarray:
        """int64 [n]: positions in `classes`."""
        return self._objects.labels[self._objects.of(self._row(index))]

    def difficult(self, index: int) -> np.ndarray:
        """bool [n]: the crowds, which an evaluation counts neither for nor against."""
        return self._objects.crowds[self._objects.of(self._row(index))]

    def object_masks(self, index: int) -> np.ndarray:
        """bool [n, height, width]: the pixels of the object in each box. Raises InputError where they are none."""
        try:
            return self._objects.masks(self._row(index))
        except WrongObjects as error:
            raise _wrong(self._part, f"{self._objects.files[index]}: {error}") from None

    def name_of(self, index: int) -> str:
        """Its path in the data set."""
        return f"{self._part}/{self._objects.files[self._row(index)]}"

    def _row(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return index


def _read(file: str, part: str) -> Objects:
    try:
        return Objects(json.loads(files.read(os.path.realpath(file), BYTES)))
    except FileNotFoundError:
        raise InputError.of("data.path", ..., f"{file!r} is missing", LAID) from None
    except WrongObjects as error:
        raise _wrong(part, str(error)) from None
    except (OSError, files.NotOurs) as error:
        if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:  # no fault of the file's: it is waited for
            raise
        raise InputError.of("data.path", ..., f"{file!r} cannot be read ({error})", "make it readable") from None
    except (ValueError, RecursionError):
        raise _wrong(part, "it holds no JSON") from None


def _wrong(part: str, reason: str) -> InputError:
    return InputError.of("data.path", ..., f"annotations/instances_{part}.json: {reason}", LAID)


def read(config: CocoData, split: str) -> CocoObjects:
    return CocoObjects(config.path, split, max_pixels=config.max_pixels)
