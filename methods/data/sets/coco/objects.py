"""What a file instances_*.json says, in arrays: of Python's own objects a training set would take gigabytes."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as runs

from methods.data.listing import MAX_PIXELS

FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")  # a name in its folder, and no path
MARGIN = 8  # pixels that an outline may reach over the border of its image
LONGEST = 4e6  # pixels around all outlines of an object
MOST_CLASSES = 10_000


class WrongObjects(ValueError):
    """A file that is not as the data set has it; why."""


class Objects:
    """The objects of all images, in the order of the images' numbers.

    classes: names, in the order of their numbers; files: names of the images; sizes: int64 [N, 2], height and width;
    starts: int64 [N + 1], where the objects of an image begin; boxes: float32 [M, 4], x1, y1, x2, y2; labels: int64
    [M], positions in `classes`; crowds: bool [M]. Raises WrongObjects.
    """

    def __init__(self, found: Any):
        """found: the JSON object of a file."""
        parts = [found.get(name) if isinstance(found, dict) else None for name in ("categories", "images")]
        annotations = found.get("annotations") if isinstance(found, dict) else None
        if not all(isinstance(part, list) and part for part in parts) or not isinstance(annotations, list):
            raise WrongObjects("it has no lists `images`, `annotations` and `categories`")
        categories, images = (_by_number(part, name) for part, name in zip(parts, ("category", "image"), strict=True))
        names = [str(each.get("name"))[:100] for each in categories.values()]
        if len(names) > MOST_CLASSES or len({*names}) < len(names) or not all(name.isprintable() for name in names):
            raise WrongObjects("its categories have no names of their own")
        self.classes, self.files = tuple(names), [_file(each) for each in images.values()]
        self.sizes = np.array([_size(each) for each in images.values()], np.int64)
        where, label_of = ({number: place for place, number in enumerate(part)} for part in (images, categories))
        count = len(annotations)
        rows, self.labels = np.empty(count, np.int64), np.empty(count, np.int64)
        self.boxes, self.crowds = np.empty((count, 4), np.float32), np.empty(count, bool)
        self._shapes: list[np.ndarray | list[np.ndarray]] = []  # run lengths of a crowd, or outlines
        for number, one in enumerate(annotations):
            try:
                rows[number], self.labels[number] = where[one["image_id"]], label_of[one["category_id"]]
                left, top, width, height = map(float, one["bbox"])
                self.boxes[number] = left, top, left + width, top + height
                self.crowds[number] = one.get("iscrowd", 0) == 1
                self._shapes.append(_shape(one["segmentation"]))
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                raise WrongObjects(f"annotation {number}: {type(error).__name__} ({str(error)[:60]})") from None
        if not np.isfinite(self.boxes).all():
            raise WrongObjects("a box has coordinates that are no numbers")
        order = np.argsort(rows, kind="stable")
        self.boxes, self.labels, self.crowds = self.boxes[order], self.labels[order], self.crowds[order]
        self._shapes = [self._shapes[place] for place in order]
        self.starts = np.searchsorted(rows[order], np.arange(len(images) + 1))

    def of(self, image: int) -> slice:
        """Where the objects of an image are."""
        return slice(int(self.starts[image]), int(self.starts[image + 1]))

    def masks(self, image: int) -> np.ndarray:
        """bool [n, height, width]. Raises WrongObjects where an outline or a run lies beyond the image."""
        height, width = self.sizes[image].tolist()
        found = [_drawn(shape, height, width) for shape in self._shapes[self.of(image)]]
        return np.stack(found) if found else np.zeros((0, height, width), bool)


def _by_number(part: list[Any], what: str) -> dict[int, Mapping[str, Any]]:
    """Those of a list by their `id`, the smallest first."""
    if not all(isinstance(each, dict) and type(each.get("id")) is int for each in part):
        raise WrongObjects(f"{'an' if what == 'image' else 'a'} {what} has no number `id`")
    found = {each["id"]: each for each in sorted(part, key=lambda each: each["id"])}
    if len(found) < len(part):
        raise WrongObjects(f"two of `id` are one {what}")
    return found


def _file(image: Mapping[str, Any]) -> str:
    name = image.get("file_name")
    if not (isinstance(name, str) and FILE.fullmatch(name)):
        raise WrongObjects(f"image {image['id']}: its file_name is {str(name)[:60]!r}, no name of a file")
    return name


def _size(image: Mapping[str, Any]) -> tuple[int, int]:
    sides = image.get("height"), image.get("width")
    if not all(type(side) is int and side > 0 for side in sides) or math.prod(sides) > MAX_PIXELS:
        raise WrongObjects(f"image {image['id']}: its height and width are {str(sides)[:60]}")
    return sides


def _shape(said: Any) -> np.ndarray | list[np.ndarray]:
    """Run lengths, int64 [n], or outlines, float64 [n] each."""
    if isinstance(said, Mapping):
        return np.array(said["counts"], np.uint32).astype(np.int64)  # lists: of text pycocotools makes no sure thing
    found = [np.array(outline, np.float64) for outline in said]
    if not found or any(each.ndim != 1 or len(each) < 6 or len(each) % 2 for each in found):
        raise ValueError("segmentation: no outlines of three points or more")
    return found


def _drawn(shape: np.ndarray | Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """bool [height, width]."""
    if isinstance(shape, np.ndarray):  # background first, column by column
        if shape.ndim != 1 or shape.sum() != height * width:
            raise WrongObjects(f"the runs of a crowd are not of an image of {width} x {height} pixels")
        return np.repeat(np.arange(len(shape)) % 2 == 1, shape).reshape(width, height).T
    points = np.concatenate([each.reshape(-1, 2) for each in shape])
    inside = (points >= -MARGIN) & (points <= np.array([width, height]) + MARGIN)  # false for what is no number, too
    around = sum(float(np.abs(np.diff(each.reshape(-1, 2), axis=0)).sum()) for each in shape)
    if not inside.all() or not around <= LONGEST:
        raise WrongObjects(f"an outline lies beyond its image of {width} x {height} pixels")
    return runs.decode(runs.merge(runs.frPyObjects([each.tolist() for each in shape], height, width))).astype(bool)
