"""The list of a folder's images: walked once, kept in a cache file, mapped by every process of a node.

Made for 10^8 files: a path costs its own bytes and nine more, and no Python object outlives its folder's listing.
Whoever walks it also looks into some of the images (`survey`).
The cache is believed while the root and its first-level sub-folders keep their modification times. Changes further down
do not show there: `touch` the folder, and the next run walks again.
"""

import contextlib
import hashlib
import os
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from launcher.errors import InputError
from launcher.run.files import cache_folder
from methods.data import mapped
from methods.data.decoding import OF_THE_MACHINE
from methods.data.listing import listing
from methods.data.survey import survey

_MAGIC = b"sslrun index 4\n\0"
_KINDS = {"ends": np.uint64, "digits": np.uint8, "blob": np.uint8}


class FolderPart(NamedTuple):
    """The root itself (name "") or a first-level sub-folder; its images are contiguous in the index."""

    name: str
    mtime_ns: int
    images: int


@dataclass(frozen=True, eq=False)
class FolderIndex:
    """Relative paths, root's own images first, then those of each first-level sub-folder, sorted by bytes."""

    folders: list[FolderPart]
    ends: np.ndarray  # uint64 [N]: where each path ends in `blob`
    digits: np.ndarray  # uint8 [N]: a stable hash of each path, 0 to 9
    blob: np.ndarray  # uint8: the paths, one after the other, as the file system's bytes
    depth: dict[str, list] = field(default_factory=dict)  # what methods.data.survey found
    left: dict[str, int] = field(default_factory=dict)  # suffix -> how many pictures have one that is not read

    def __len__(self) -> int:
        return len(self.ends)

    def path(self, position: int) -> bytes:
        if not 0 <= position < len(self):
            raise IndexError(f"image {position} of {len(self)}")
        return self.blob[self.ends[position - 1] if position else 0 : self.ends[position]].tobytes()


def open_index(root: str | Path, cache: Path | None = None) -> FolderIndex:
    """The index of `root`, from the cache where it is still true, else by walking.

    `cache` is a folder, by default `$XDG_CACHE_HOME/sslrun` or `~/.cache/sslrun`; one that cannot be written means no
    cache. Raises InputError where a folder cannot be listed, and OSError where that is the machine's fault.
    """
    root = os.path.realpath(root)
    key = hashlib.blake2b(os.fsencode(root), digest_size=12).hexdigest()
    file = (cache or cache_folder()) / f"images-{key}.index"
    index = _load(file)
    if index is not None and _still_true(index, root):
        return index
    index = _walk(root)

    def opened(position: int) -> BinaryIO:
        return open(os.path.join(os.fsencode(root), index.path(position)), "rb")

    index.depth.update(survey(len(index), index.path, opened))
    told = {"folders": index.folders, "depth": index.depth, "left": index.left}
    with contextlib.suppress(OSError):
        mapped.save(file, _MAGIC, told, {name: getattr(index, name) for name in _KINDS})
    return _load(file) or index  # mapped: one copy a node instead of one a process


def digit(path: bytes) -> int:
    """0 to 9, the same for a path wherever it lies."""
    return int.from_bytes(hashlib.blake2b(path, digest_size=8).digest()) % 10


def _walk(root: str) -> FolderIndex:
    folders = []
    ends, digits, blob = array("Q"), bytearray(), bytearray()
    seen: set[tuple[int, int]] = set()
    left: dict[str, int] = {}

    def take(folder: bytes, prefix: bytes) -> list[bytes]:
        """Append the images that lie directly in `folder`; return its sub-folders."""
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # reached twice through symlinks, perhaps its own parent
            return []
        seen.add((status.st_dev, status.st_ino))
        images, inner = [], []
        for name, is_folder in listing(folder, left):
            (inner if is_folder else images).append(name)
        for name in sorted(images):
            path = prefix + name
            blob.extend(path)
            ends.append(len(blob))
            digits.append(digit(path))
        return sorted(inner)

    def mtime(folder: bytes) -> int:
        return os.stat(folder).st_mtime_ns

    top = os.fsencode(root)
    try:
        # Times are read before the listing: what changes meanwhile makes the index stale, not wrong.
        changed = mtime(top)
        names = take(top, b"")
        folders.append(FolderPart("", changed, len(ends)))
        for name in names:
            changed, before = mtime(os.path.join(top, name)), len(ends)
            pending = [name]
            while pending:  # depth first; reversed, so that the stack pops in sorted order
                relative = pending.pop()
                inner = take(os.path.join(top, relative), relative + b"/")
                pending += [relative + b"/" + each for each in reversed(inner)]
            folders.append(FolderPart(os.fsdecode(name), changed, len(ends) - before))
    except OSError as error:
        if error.errno in OF_THE_MACHINE:  # no fault of the folder's: whoever starts waits for it
            raise
        place = os.fsdecode(error.filename or top)
        reason = f"cannot list {place!r} ({error.strerror})"
        raise InputError.of("data.path", repr(root), reason, "make it readable") from error
    arrays = np.frombuffer(ends, np.uint64), np.frombuffer(digits, np.uint8), np.frombuffer(blob, np.uint8)
    return FolderIndex(folders, *arrays, left=left)


def _still_true(index: FolderIndex, root: str) -> bool:
    try:
        return all(os.stat(os.path.join(root, each.name)).st_mtime_ns == each.mtime_ns for each in index.folders)
    except OSError:
        return False


def _load(file: Path) -> FolderIndex | None:
    found = mapped.load(file, _MAGIC)
    if found is None:
        return None
    header, arrays = found
    typed = {name: np.frombuffer(arrays[name], kind) for name, kind in _KINDS.items()}
    return FolderIndex(
        [FolderPart(*each) for each in header["folders"]], **typed, depth=header["depth"], left=header["left"]
    )
