"""Any folder of images, recursively: its splits, its labels, and what it calls them."""

import os
import shlex
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from launcher.errors import InputError
from methods.data.dataset import BrokenImage
from methods.data.decoding import decode, why_broken
from methods.data.depth import Depth
from methods.data.index import FolderIndex, open_index
from methods.data.listing import MAX_PIXELS, absolute, told_not_read
from methods.data.splits import split_folders, unlabelled_reason


class ImageFolder:
    """The images under `path`, as RGB, in an order that depends on their names alone.

    Splits: `train/` with `val/`, or what `split_folders` takes for it, unless splits="none". Otherwise, a folder with
    labels gives a fixed tenth of its images, chosen by a hash of their relative paths, to the test split; without
    labels all images train.
    Labels: the first-level sub-folders' names for labels="folders"; "auto" takes them where there are at least two and
    no image lies outside them; none for "none". A test split that is one flat folder has none.

    The first process to open a large folder walks it, the others read its cache: open it on one rank first.
    Raises InputError where the labels asked for are not there.
    """

    channels = 3

    def __init__(
        self, path: str | Path, split: str, *, labels: str = "auto", splits: str = "auto", max_pixels: int = MAX_PIXELS
    ):
        root = absolute(path)
        train, test = split_folders(root, splits)
        self._root = test if test and split == "test" else train
        self._index = open_index(self._root)
        trained = self._index if self._root == train else open_index(train)
        self._depth, self._max_pixels = Depth(trained.depth), max_pixels  # one range for both splits
        self._prefix = os.path.relpath(self._root, root) + "/" if train != root else ""
        self._rows: np.ndarray | None = None  # int64: the index's rows that belong to this split; None: all of them
        self._auto = labels == "auto"
        known = classes_of(trained, train, labels)
        self.classes: tuple[str, ...] | None = known
        if test is None:
            self._rows = split_rows(self._index.digits, split, labelled=known is not None)
        elif split == "test" and known is not None:
            self.classes = known_classes(self._index, test, known)

    def __len__(self) -> int:
        return len(self._index) if self._rows is None else len(self._rows)

    @property
    def remarks(self) -> list[str]:
        """What a person should know of how these images are read: a line each."""
        return [*self._depth.remarks, *told_not_read(self._index.left)]

    @cached_property
    def labels(self) -> np.ndarray | None:
        """int64 [N], or None."""
        labels = labels_of(self._index, self.classes)
        return labels if labels is None or self._rows is None else labels[self._rows]

    @property
    def unlabelled(self) -> str:
        """Why what looks like classes is not taken for them; empty where there are labels, or nothing looks like it."""
        folders, outside = [each.name for each in self._index.folders[1:] if each.images], self._index.folders[0].images
        if self.classes is not None or not self._auto or not folders:
            return ""
        first = printable(self._index.path(0))
        if outside:
            return f"{first} lies beside the folders that could be classes" if len(folders) > 1 else ""
        if first.count("/") < 2:  # one folder of images is no two classes
            return ""
        inner = shlex.quote(printable(os.fsencode(os.path.join(self._root, folders[0]))))
        return f"all images lie in one folder, in which there are others; data.path={inner} takes these for classes"

    def image(self, index: int) -> Image.Image:
        """RGB, at the size stored. The EXIF orientation is ignored, as in torchvision; alpha is dropped.

        Decoded at full size: PIL's `draft` needs to know how small a crop may be, and changes its pixels.
        """
        file = os.path.join(os.fsencode(self._root), self._path(index))
        try:
            with open(file, "rb") as stream:
                return decode(stream, self._depth, self._max_pixels)
        except Exception as error:  # damaged bytes lead a decoder anywhere: OSError, SyntaxError, IndexError, ...
            raise BrokenImage(self.name_of(index), why_broken(error)) from error

    def text(self, index: int) -> str:
        """What KEY.txt says, in UTF-8, beside an image KEY.jpg; several captions are its lines."""
        file = os.path.join(os.fsencode(self._root), os.path.splitext(self._path(index))[0] + b".txt")
        try:
            with open(file, encoding="utf-8") as stream:
                return stream.read()
        except (OSError, UnicodeError) as error:
            raise BrokenImage(self.name_of(index), f"no text beside it ({why_broken(error)})") from error

    def name_of(self, index: int) -> str:
        return self._prefix + printable(self._path(index))

    def _path(self, index: int) -> bytes:
        if self._rows is None:
            return self._index.path(index)
        if not 0 <= index < len(self._rows):
            raise IndexError(f"image {index} of {len(self._rows)}")
        return self._index.path(int(self._rows[index]))


def classes_of(index: FolderIndex, folder: str, labels: str, option: str = "data.labels") -> tuple[str, ...] | None:
    """The names of the first-level sub-folders that hold images, where `labels` wants them and they are classes.

    option: what a person who reads an error knows `labels` by. Raises InputError.
    """
    if labels == "none":
        return None
    names = tuple(each.name for each in index.folders[1:] if each.images)
    outside = index.folders[0].images
    if labels == "auto":
        return names if len(names) > 1 and not outside else None
    if not names or outside:
        reason = unlabelled_reason(folder) or f"no sub-folder of {folder!r} holds an image"
        fix = f"give every class a sub-folder, or set {option}=none"
        raise InputError.of(option, "'folders'", reason, fix)
    return names


def known_classes(
    index: FolderIndex, folder: str, known: tuple[str, ...], option: str = "data.labels"
) -> tuple[str, ...] | None:
    """`known`, the training split's classes, or None where the test split is flat. As `classes_of`."""
    if index.folders[0].images:
        return None
    strange = {each.name for each in index.folders if each.images} - set(known)
    if strange:
        reason = f"{folder!r} has images of {min(strange)!r}, which is no class of the training split"
        raise InputError.of("data.path", ..., reason, f"remove them, or set {option}=none")
    return known


def labels_of(index: FolderIndex, classes: tuple[str, ...] | None) -> np.ndarray | None:
    """int64 [N]: the positions in `classes` of the sub-folders that the images lie in; None without classes."""
    if classes is None:
        return None
    number = {name: label for label, name in enumerate(classes)}
    counts = [(number[each.name], each.images) for each in index.folders if each.images]
    return np.repeat(*np.array(counts, np.int64).reshape(-1, 2).T)


def split_rows(digits: np.ndarray, split: str, *, labelled: bool) -> np.ndarray | None:
    """Rows of one split of a folder that has no splits of its own: int64, or None for all."""
    if not labelled:
        return None if split == "train" else np.empty(0, np.int64)
    held = digits == digits.min()  # the digit 0, but a folder of a few images may have none
    if held.all():
        held[1:] = False
    return np.flatnonzero(held if split == "test" else ~held)


def printable(path: bytes) -> str:
    """A path as part of one line."""
    text = path.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
