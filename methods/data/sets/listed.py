"""Image files that a data set's own lists name, with one label each."""

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from launcher.errors import InputError
from launcher.run import files
from methods.data.dataset import BrokenImage
from methods.data.decoding import OF_THE_MACHINE, decode, why_broken
from methods.data.listing import MAX_PIXELS
from methods.data.sets.base import wrong

LONGEST = 400  # characters of a name


class ListedImages:
    """Images as RGB, in the order of their names.

    names: their paths in the folder `root`; labels: int64 [N], positions in `classes`.
    """

    channels = 3

    def __init__(
        self,
        root: str,
        names: Sequence[str],
        labels: Sequence[int] | np.ndarray,
        classes: Sequence[str],
        *,
        max_pixels: int = MAX_PIXELS,
    ):
        self._root, self._max_pixels = os.fsencode(root), max_pixels
        # Bytes in one array: two million strings would be copied into every worker as they are counted.
        self._names = np.array([name.encode() for name in names], np.bytes_)
        self.labels = np.array(labels, np.int64)
        self.classes = tuple(classes)

    def __len__(self) -> int:
        return len(self._names)

    def image(self, index: int) -> Image.Image:
        """RGB, at the size stored."""
        # A link leads to a plain file, or is broken: a pipe would be waited for.
        file = os.path.realpath(os.path.join(self._root, self._name(index)))
        try:
            with open(files.opened(os.fsdecode(file)), "rb") as stream:
                return decode(stream, max_pixels=self._max_pixels)
        except Exception as error:  # as in ImageFolder: damaged bytes lead a decoder anywhere
            raise BrokenImage(self.name_of(index), why_broken(error)) from error

    def name_of(self, index: int) -> str:
        return self._name(index).decode()

    def _name(self, index: int) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return bytes(self._names[index])


def is_inside(name: object) -> bool:
    """Whether a list may call a file so: one printable line that leads nowhere else.

    >>> is_inside("a/abbey/0001.jpg"), is_inside("../abbey.jpg"), is_inside("/abbey.jpg"), is_inside("a//b.jpg")
    (True, False, False, False)
    """
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST or not name.isprintable():
        return False
    return not {*name.split("/")} & {"", ".", ".."}


def content_of(file: str, most: int, laid: str) -> bytes:
    """What the list at `file` holds. laid: how the data set lays it. Raises InputError where it is missing, no plain
    file or has more than `most` bytes; OSError where it cannot be read now, which is the machine's fault."""
    try:
        return files.read(os.path.realpath(file), most)
    except FileNotFoundError:
        raise wrong("data", None, f"{file!r} is missing", laid) from None
    except (OSError, files.NotOurs) as error:
        if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:
            raise
        raise wrong("data", None, f"{file!r} cannot be read ({error})", "make it readable") from None


def named_and_labelled(file: str, most: int, laid: str, classes: int) -> tuple[list[str], list[int]]:
    """(paths, labels) of a text with a line `PATH LABEL` for each image, without the / that a path may begin with.
    Raises as `content_of`, and InputError with the first line that says something else, or a label of `classes` or
    more."""
    try:
        text = content_of(file, most, laid).decode()
    except UnicodeDecodeError:
        raise wrong("data", None, f"{file!r} is not plain text", laid) from None
    names, labels = [], []
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if not words:
            continue
        name = words[0].removeprefix("/")
        if len(words) != 2 or not is_inside(name) or not is_label(words[1], classes):
            reason = f"{file!r}: line {number}, {line.strip()[:60]!r}, is not `PATH LABEL`, LABEL 0 to {classes - 1}"
            raise wrong("data", None, reason, laid)
        names.append(name)
        labels.append(int(words[1]))
    if not names:
        raise wrong("data", None, f"{file!r} names no image", laid)
    return names, labels


def is_label(text: str, classes: int) -> bool:
    return len(text) < 10 and text.isascii() and text.isdigit() and int(text) < classes


def refuse_unless(holds: bool, file: str, reason: str, laid: str) -> None:
    """Raises InputError about what the file of a data set says."""
    if not holds:
        raise InputError.of("data.path", ..., f"{file!r}: {reason}", laid)
