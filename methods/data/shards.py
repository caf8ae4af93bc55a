"""Images in tars of WebDataset's layout: random access by sample id, one read an image, one file for 10^4 of them."""

import io
import json
import os
import tarfile
import zlib
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from launcher.errors import InputError, SslrunError
from launcher.run.files import refuse_not_ours
from methods.data import tars
from methods.data.dataset import BrokenImage
from methods.data.decoding import decode, why_broken
from methods.data.depth import Depth
from methods.data.folder import printable, split_rows
from methods.data.listing import MAX_PIXELS, absolute
from methods.data.shard_index import ShardIndex, open_shards
from methods.data.shard_scan import LOST, SPARSE, UNLABELLED, Extent, pieces
from methods.data.splits import split_folders

CLASSES = "classes.json"  # in the data folder: the names of the labels, a list
OPEN = 128  # tars that a process keeps open


class ImageShards:
    """The images of the `.tar` files in `path`, as RGB, in the order of the tars' names, then as they lie.

    Splits: `train/` with `val/`, or what `split_folders` takes beside it, unless splits="none". Otherwise, samples with
    labels give a fixed tenth, chosen by a hash of their names, to the test split, the same that a folder of these
    images would give; without labels all images train. Labels: the integers of KEY.cls for labels="cls"; "auto"
    takes them where every sample has one; none for "none". `classes.json` names them, else they are called by their
    numbers, which are then less than the number of samples (larger ones are ids, and no labels).

    A sample that is cut off, or that the tar has damaged, is a broken image, called `file.tar: name`. The first process
    to open a folder without an index makes it, the others read it: open it on one rank first. Raises InputError where
    the index is not that of the tars, or the labels asked for are not there.
    """

    channels = 3

    def __init__(
        self, path: str | Path, split: str, *, labels: str = "auto", splits: str = "auto", max_pixels: int = MAX_PIXELS
    ):
        root, self._wanted = absolute(path), labels
        train, test = split_folders(root, splits)
        self.folder = test if test and split == "test" else train  # of the tars
        self._from = self.folder  # where they are read: there, or where they are staged
        self._index = open_shards(self.folder)
        self._prefix = os.path.relpath(self.folder, root) + "/" if train != root else ""
        self._files: dict[int, BinaryIO] = {}
        self._rows: np.ndarray | None = None  # the index's rows that belong to this split; None: all of them
        trained = self._index if self.folder == train else open_shards(train)
        self._depth, self._max_pixels = Depth(trained.depth), max_pixels  # one range for both splits
        known = _classes(trained, root, labels)
        self.classes: tuple[str, ...] | None = known
        if test is None:
            rows = split_rows(self._index.arrays["digits"], split, labelled=known is not None)
            self._rows = rows if rows is None else rows.astype(np.uint32)  # an index has no more: 4 bytes a sample
        elif split == "test" and known is not None:
            self.classes = _of_test(self._index, known)

    def __len__(self) -> int:
        return len(self._index) if self._rows is None else len(self._rows)

    @property
    def remarks(self) -> list[str]:
        """As an ImageFolder's."""
        counts = tars.total(zip(self.tars, self._index.counts, strict=True))
        said = [f"of the tars: {tars.told(counts)}"] if counts["left"] else []
        if self.classes is None and self._wanted == "auto" and counts["labels"]:
            problem = "data.labels=cls says what is the matter with the others"
            said.append(f"{counts['labels']:,} of {counts['used']:,} images have a label, and none is used; {problem}")
        packed = [name for name, *_ in tars.packed_beside(self.folder, self.tars)]
        said += [f"{self._prefix}{name} is compressed, and no part of the data" for name in packed]
        return [*self._depth.remarks, *said]

    @cached_property
    def labels(self) -> np.ndarray | None:
        """int64 [N], or None."""
        if self.classes is None:
            return None
        labels = self._index.arrays["labels"] if self._rows is None else self._index.arrays["labels"][self._rows]
        return np.maximum(labels, 0).astype(np.int64)  # without one only where the tar is damaged, which no image is

    @property
    def tars(self) -> list[str]:
        """The names of the files."""
        return [each[0] for each in self._index.tars]

    def read_from(self, folder: str) -> None:
        """From now on, where copies of the tars, the user's own, lie in `folder`."""
        self._from = folder
        self._files.clear()

    def image(self, index: int) -> Image.Image:
        """RGB, at the size stored; decoded as those of a folder are."""
        try:
            return decode(io.BytesIO(self.read(index)), self._depth, self._max_pixels)
        except (BrokenImage, SslrunError):
            raise
        except Exception as error:  # damaged bytes lead a decoder anywhere
            raise BrokenImage(self.name_of(index), why_broken(error)) from error

    def read(self, index: int) -> bytes:
        """The image's file. Raises BrokenImage where the tar does not hold it any more."""
        row = self._row(index)
        where = self._index.where(row)
        if where.size == LOST:
            raise BrokenImage(self.name_of(index), "the tar is damaged here, and what it held cannot be told")
        if self.classes is not None and self._index.arrays["labels"][row] == UNLABELLED:
            raise BrokenImage(self.name_of(index), "the tar is damaged beside it, and its label is lost")
        try:
            file, size = self._file(where.tar), 0 if where.size == SPARSE else where.size
            content = os.pread(file.fileno(), tars.BLOCK + size, where.offset - tars.BLOCK)
        except OSError as error:
            raise BrokenImage(self.name_of(index), why_broken(error)) from error
        if len(content) < tars.BLOCK + size:
            raise BrokenImage(self.name_of(index), "the tar is cut short before its end")
        if zlib.crc32(content[: tars.BLOCK]) != where.header:
            raise BrokenImage(self.name_of(index), "the tar is damaged, or has changed since its index was made")
        if where.size == SPARSE:
            return self._pieces(index, Extent(where.offset, where.size))
        return content[tars.BLOCK :]

    def _pieces(self, index: int, place: Extent) -> bytes:
        try:
            return pieces(self._file(self._index.where(self._row(index)).tar), place)
        except (tarfile.TarError, ValueError, LookupError, ArithmeticError, RecursionError, OSError) as error:
            raise BrokenImage(self.name_of(index), f"its pieces are damaged ({why_broken(error)})") from error

    def name_of(self, index: int) -> str:
        row = self._row(index)
        tar = self._index.tars[self._index.where(row).tar][0]
        return printable(os.fsencode(f"{self._prefix}{tar}: ") + self._index.name(row))

    def _row(self, index: int) -> int:
        if self._rows is None:
            return index
        if not 0 <= index < len(self._rows):
            raise IndexError(f"image {index} of {len(self._rows)}")
        return int(self._rows[index])

    def _file(self, tar: int) -> BinaryIO:
        """Kept open; an object, not a descriptor, so that it outlives being forgotten in the middle of a read."""
        file = self._files.get(tar)
        if file is None:
            if len(self._files) >= OPEN:
                del self._files[next(iter(self._files))]
            path = os.path.join(self._from, self._index.tars[tar][0])
            file = open(path, "rb", buffering=0)  # noqa: SIM115 closed with the last that uses it
            if self._from != self.folder:  # where the copies lie others may write, and put another folder in its place
                refuse_not_ours(path, os.fstat(file.fileno()))
            self._files[tar] = file
        return file


def _classes(index: ShardIndex, root: str, labels: str) -> tuple[str, ...] | None:
    """The names of the labels, where `labels` wants them and they are there."""
    if labels == "none" or (labels == "auto" and not index.labelled):
        return None
    if not index.labelled:
        found = np.flatnonzero(index.arrays["labels"] == UNLABELLED)
        example = f", {printable(index.name(int(found[0])))} among them" if len(found) else ""
        reason = f"{len(found)} of {len(index)} samples have no KEY.cls with an integer{example}"
        raise InputError.of("data.labels", "'cls'", reason, "give every sample one, or set data.labels=none")
    count = int(index.arrays["labels"].max()) + 1
    names = _names(Path(root, CLASSES))
    if names is None:
        if count <= len(index):
            return tuple(map(str, range(count)))
        if labels == "auto":  # ids of something, up to 10^9
            return None
        reason = f"label {count - 1} is there, and {len(index)} samples: these are no numbers of classes"
        raise InputError.of("data.labels", "'cls'", reason, f"name them in {CLASSES}, or set data.labels=none")
    if count > len(names):
        reason = f"label {count - 1} is there, and {CLASSES} names {len(names)} classes"
        fix = "name the others in it, too, or set data.labels=none"
        raise InputError.of("data.path", repr(root), reason, fix)
    return names


def _names(file: Path) -> tuple[str, ...] | None:
    try:
        names = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError.of("data.path", ..., f"{file} cannot be read ({error})", "mend it, or take it away") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError.of("data.path", ..., f"{file} is not a list of names", "mend it, or take it away")
    return tuple(names)


def _of_test(index: ShardIndex, known: tuple[str, ...]) -> tuple[str, ...] | None:
    """`known`, the training split's classes, or None where the test split has no labels."""
    if not index.labelled:
        return None
    largest = int(index.arrays["labels"].max())
    if largest >= len(known):
        reason = f"its test split has label {largest}, and the training split {len(known)} classes"
        raise InputError.of("data.path", ..., reason, "mend the labels, or set data.labels=none")
    return known
