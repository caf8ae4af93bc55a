"""What every data set offers, and what is said of an image that cannot be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image


class ImageDataset(Protocol):
    """Images by position, 0 to len - 1. Immutable, and safe to read from forked worker processes."""

    channels: int  # 1: images are PIL "L"; 3: PIL "RGB"
    classes: tuple[str, ...] | None  # names of the labels, or None when there are none
    labels: np.ndarray | None  # int64 [N], positions in `classes`

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image:
        """The decoded image, any size. Raises BrokenImage where there is none to be had."""

    def name_of(self, index: int) -> str:
        """What a message calls this image: one printable line."""


class SmallDataset(ImageDataset, Protocol):
    """One whose images were cut to a small size; most are not, and have no such attribute."""

    small: bool


class TaggedDataset(ImageDataset, Protocol):
    """One whose images each show several of its `classes`; `labels` is None, and most data sets have no `tags`."""

    tags: np.ndarray  # int8 [N, classes]: 1 there, -1 not there, 0 not counted (difficult)


class AttributedDataset(ImageDataset, Protocol):
    """One whose classes are known by their attributes, also those that no train image shows. `labels` are there; the
    train split has images of seen classes alone, the test split of all."""

    attributes: np.ndarray  # float32 [classes, a], finite
    seen: np.ndarray  # bool [classes]


class PixelDataset(ImageDataset, Protocol):
    """One that knows the class of each pixel: truth "pixels" (`sets/base.py`). Where what is of no class is not judged,
    `background` is False; most have no such attribute, and there it is a class of its own."""

    def pixels(self, index: int) -> np.ndarray:
        """uint8 [H, W], of the image's size: a position in `classes`, plus 1; 0 for none of them, 255 for void, which
        counts neither for nor against. Raises BrokenImage."""


class BoxedDataset(ImageDataset, Protocol):
    """One that knows where its objects are: truth "boxes", and with `object_masks`, of the same objects, "masks" (see
    `sets/base.py`). Those of an image are in one order, whatever is asked. Raises InputError where what the data set
    says is wrong."""

    def boxes(self, index: int) -> np.ndarray:
        """float32 [n, 4]: x1, y1, x2, y2 in pixels of the stored image, borders from 0 on."""

    def box_labels(self, index: int) -> np.ndarray:
        """int64 [n]: positions in `classes`."""

    def difficult(self, index: int) -> np.ndarray:
        """bool [n]: which count neither for nor against, and are not learnt from."""

    def object_masks(self, index: int) -> np.ndarray:
        """bool [n, H, W], of the image's size."""


class CaptionedDataset(ImageDataset, Protocol):
    """One that has words beside its images; most have none, and no such method."""

    def text(self, index: int) -> str:
        """All that is said of the image; several captions are its lines. Raises BrokenImage where there is nothing."""


class Clip(NamedTuple):
    """The frames `first` to `last` - 1 of a data set, in order."""

    name: str
    first: int
    last: int


class ClipDataset(ImageDataset, Protocol):
    """One whose images are the frames of `clips`; `classes` and `labels` are None."""

    clips: tuple[Clip, ...]

    def mask(self, index: int) -> np.ndarray:
        """uint8 [H, W], as large as the frame: 0 background, the number of an object, 255 void. Raises BrokenImage."""


class Query(NamedTuple):
    """A search among the first images of a `QueryDataset`: which of these are relevant, positions among them, int64;
    all others are not."""

    image: int  # what is searched with, a position in the data set
    box: tuple[float, float, float, float] | None  # x1, y1, x2, y2 in its pixels: what is looked for
    easy: np.ndarray
    hard: np.ndarray
    junk: np.ndarray  # counts neither for nor against


class QueryDataset(ImageDataset, Protocol):
    """One to be searched; `classes` and `labels` are None."""

    database: int  # how many of its images are searched: the first; those of the queries follow
    queries: tuple[Query, ...]


class CopyDataset(ImageDataset, Protocol):
    """One of images and copies of some of them; `classes` and `labels` are None. Its train split has other images, or
    none, and neither of both attributes."""

    database: int  # how many of its images are searched: the first; the copies follow
    originals: tuple[np.ndarray, ...]  # of each copy, int64: which of these it was made of


def tags_of(dataset: ImageDataset) -> np.ndarray | None:
    """As `TaggedDataset` has them; None of others."""
    return getattr(dataset, "tags", None)


def remarks(*datasets: ImageDataset | None) -> list[str]:
    """What a person should know of how images are read, a line each. Most data sets have nothing to say, and no such
    attribute."""
    return list(dict.fromkeys(line for each in datasets for line in getattr(each, "remarks", ())))


class BrokenImage(Exception):
    """An image that cannot be decoded: which one (`name`) and why (`reason`)."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)  # both in args, so that it survives pickling between processes
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"
