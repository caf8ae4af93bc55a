"""What lies where in a folder of tars: made by reading their headers once, kept in a file beside them, mapped.

A sample is a group of neighbouring members with one key, as WebDataset groups them: the name up to the first dot behind
the last slash. Its image is the first member whose extension is an image's, its label the integer in KEY.cls; other
members are left alone. A sample costs 21 bytes and its name, and a read of it needs nothing but the index.
"""

import io
import os
import re
import tarfile
import zlib
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from launcher.errors import InputError
from methods.data import mapped, tars
from methods.data.index import digit
from methods.data.spec import IMAGE_SUFFIXES, split_folders
from methods.data.survey import survey

LOST = 2**32 - 1  # the size of what cannot be read
UNLABELLED = -1
WORTH_A_PROCESS = 16  # tars
_KINDS = {
    "blocks": np.uint32,  # [N] where each image begins in its tar, in blocks of 512 bytes
    "sizes": np.uint32,  # [N] bytes
    "headers": np.uint32,  # [N] crc32 of the block before the image, in which its tar names it
    "labels": np.int32,  # [N]
    "ends": np.uint32,  # [N] where its name ends among the names of its tar
    "digits": np.uint8,  # [N] a stable hash of the name, 0 to 9
    "blob": np.uint8,  # the names, one after the other
}
_NAME = re.compile(rb"^(?:\./)*((?:.*/)?[^/.]+)\.([^/]+)$", re.DOTALL)

Progress = Callable[[int, int], None]  # (tars read, tars)


class Where(NamedTuple):
    """One image."""

    tar: int  # its number
    offset: int  # bytes
    size: int
    header: int


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """The samples of all tars of a folder, in the order of the tars' names, then as they lie."""

    tars: list[list]  # as tars.foreign wants them
    samples: list[int]  # of each tar
    damaged: list[list[str]]  # [tar, what is wrong with it]
    labelled: bool  # whether every sample that can be read has a label
    arrays: dict[str, np.ndarray]
    depth: dict[str, list]  # what methods.data.survey found

    def __len__(self) -> int:
        return len(self.arrays["blocks"])

    @cached_property
    def _starts(self) -> np.ndarray:
        """int64: the first sample of each tar, and N."""
        return np.cumsum([0, *self.samples])

    @cached_property
    def _names(self) -> np.ndarray:
        """int64: where the names of each tar begin."""
        last = self._starts[1:] - 1
        lengths = [int(self.arrays["ends"][i]) if n else 0 for i, n in zip(last, self.samples, strict=True)]
        return np.cumsum([0, *lengths])

    def where(self, position: int) -> Where:
        """Raises IndexError outside 0 to N - 1."""
        if not 0 <= position < len(self):
            raise IndexError(f"image {position} of {len(self)}")
        tar = int(np.searchsorted(self._starts, position, side="right")) - 1
        blocks, sizes, headers = (int(self.arrays[name][position]) for name in ("blocks", "sizes", "headers"))
        return Where(tar, blocks * tars.BLOCK, sizes, headers)

    def name(self, position: int) -> bytes:
        """The image's path: in a tar of `sslrun shards`, that in the folder it came from."""
        tar, ends = self.where(position).tar, self.arrays["ends"]
        begin = int(ends[position - 1]) if position > self._starts[tar] else 0
        offset = int(self._names[tar])
        return self.arrays["blob"][offset + begin : offset + int(ends[position])].tobytes()


def open_shards(folder: str | Path) -> ShardIndex:
    """The index of the tars in `folder`; made, and kept where there is room for it, if there is none.

    Raises InputError where it is not that of the tars which lie there, or there are none.
    """
    known, problem = tars.fitting(folder)
    if problem:
        raise InputError.of("data.path", repr(os.fspath(folder)), *problem)
    found = existing(known)[0]
    return make(folder)[0] if found is None else found


def make(
    folder: str | Path, *, workers: int = 1, progress: Progress = lambda done, of: None
) -> tuple[ShardIndex, Path]:
    """Read the headers of all tars and keep the index: (it, its file), the latter beside the tars or in the cache.

    workers: processes, at most. Raises InputError where a tar cannot be opened or the index can be kept nowhere.
    """
    there = tars.names(folder)
    parts = []
    for part in _scanned([os.path.join(folder, name) for name in there], workers):
        parts.append(part)
        progress(len(parts), len(there))
    arrays = {
        name: np.concatenate([np.frombuffer(part.arrays[name], kind) for part in parts] or [np.empty(0, kind)])
        for name, kind in _KINDS.items()
    }
    # Beside damage the label may be what is lost.
    lost = arrays["sizes"] == LOST
    certain = ~(lost | np.append(lost[1:], False) | np.append(False, lost[:-1]))
    labels = arrays["labels"][certain]
    found = ShardIndex(
        [[name, part.size, part.mtime_ns, part.members()] for name, part in zip(there, parts, strict=True)],
        [len(part.arrays["blocks"]) for part in parts],
        [[name, problem] for name, part in zip(there, parts, strict=True) for problem in part.damage],
        bool(len(labels) and (labels != UNLABELLED).all()),
        arrays,
        {},
    )
    found.depth.update(survey(len(found), found.name, lambda i: _opened(folder, found, i)))
    told = {key: getattr(found, key) for key in ("tars", "samples", "damaged", "labelled", "depth")}
    trouble = None
    for file in tars.index_files(folder):
        try:
            mapped.save(file, tars.MAGIC, told, arrays)
            again = _load(file)  # mapped: one copy a node instead of one a process
            return found if again is None else again, file
        except OSError as error:
            trouble = error
    reason = f"its index can be kept neither there nor in {mapped.cache_folder()} ({trouble.strerror})"
    raise InputError.of("data.path", repr(os.fspath(folder)), reason, "make room in one of them")


def index_all(
    root: str | Path, *, workers: int, anew: bool, progress: Callable[[str, int, int], None]
) -> dict[str, Any]:
    """Index the tars of each split of `root`: {"images", "shards", "bytes", "damaged" [tar, what], "index" (files)}.

    anew: also where there is an index that is theirs. Raises InputError as `make` does, and where there is no tar.
    """
    found: dict[str, Any] = {"images": 0, "shards": 0, "bytes": 0, "damaged": [], "index": []}
    for folder in filter(None, split_folders(os.fspath(root))):
        if not (os.path.isdir(folder) and tars.names(folder)):
            fix = "give a folder of tars, or say OUT, too, to make some of images"
            raise InputError.of("data.path", repr(folder), "no .tar file in it", fix)
        index, file = (None, None) if anew else existing(tars.fitting(folder)[0])
        if index is None:
            index, file = make(folder, workers=workers, progress=lambda done, of: progress("tars indexed", done, of))
        prefix = os.path.relpath(folder, root) + "/" if folder != os.fspath(root) else ""
        found["images"] += len(index)
        found["shards"] += len(index.tars)
        found["bytes"] += sum(each[1] for each in index.tars)
        found["damaged"] += [[prefix + tar, problem] for tar, problem in index.damaged]
        found["index"].append(str(file))
    return found


def existing(known: list[tuple[Path, dict]]) -> tuple[ShardIndex | None, Path | None]:
    """The first index of those that `tars.fitting` found which is whole, and its file."""
    for file, _ in known:
        found = _load(file)
        if found is not None:
            return found, file
    return None, None


def _load(file: Path) -> ShardIndex | None:
    found = mapped.load(file, tars.MAGIC)
    if found is None:
        return None
    header, arrays = found
    return ShardIndex(**header, arrays={name: np.frombuffer(arrays[name], kind) for name, kind in _KINDS.items()})


def _opened(folder: str | Path, index: ShardIndex, position: int) -> BinaryIO:
    where = index.where(position)
    with open(os.path.join(folder, index.tars[where.tar][0]), "rb") as tar:
        tar.seek(where.offset)
        return io.BytesIO(b"" if where.size == LOST else tar.read(where.size))


def _scanned(files: list[str], workers: int) -> "Iterator[Scan]":
    processes = min(workers, len(files) // WORTH_A_PROCESS)
    if processes < 2:
        yield from map(scan, files)
        return
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        yield from pool.map(scan, files)


# -- one tar -----------------------------------------------------------------------------------------------------------


@dataclass
class Scan:
    """What the headers of one tar say."""

    size: int
    mtime_ns: int
    damage: list[str] = field(default_factory=list)
    arrays: dict[str, Any] = field(default_factory=lambda: {n: array(np.dtype(k).char) for n, k in _KINDS.items()})

    def add(self, name: bytes, offset: int, size: int, header: int, label: int) -> None:
        values = (offset // tars.BLOCK, min(size, LOST), header, label)
        for kind, value in zip(("blocks", "sizes", "headers", "labels"), values, strict=True):
            self.arrays[kind].append(value)
        self.arrays["blob"].frombytes(name)
        self.arrays["ends"].append(len(self.arrays["blob"]))
        self.arrays["digits"].append(digit(name))

    def lost(self, offset: int, problem: str) -> None:
        """Nobody knows how many samples: it counts as one, so that a run which meets it says so."""
        self.damage.append(f"{problem} at byte {offset}")
        self.add(b"byte %d" % offset, offset, LOST, 0, UNLABELLED)

    def members(self) -> list[tuple[int, int]]:
        """(block, crc32) of the headers of the first and the last image."""
        good = [i for i, size in enumerate(self.arrays["sizes"]) if size != LOST]
        return [(self.arrays["blocks"][i] - 1, self.arrays["headers"][i]) for i in good[:1] + good[1:][-1:]]


def scan(file: str) -> Scan:
    """Read the headers of one tar: ustar, GNU or PAX. Damage is passed over, up to the next header that is whole.

    Raises InputError where it cannot be read at all.
    """
    try:
        with open(file, "rb") as stream:
            status = os.fstat(stream.fileno())
            found = Scan(status.st_size, status.st_mtime_ns)
            _group(stream, found)
            return found
    except OSError as error:
        reason = f"{file!r} cannot be read ({error.strerror})"
        raise InputError.of("data.path", ..., reason, "make it readable") from None


def _group(stream: BinaryIO, found: Scan) -> None:
    """Members -> samples."""
    key: bytes | None = None
    image: tuple | None = None
    label = UNLABELLED

    def close() -> None:
        if image is not None:
            found.add(*image, label)

    for member in _members(stream, found):
        if isinstance(member, int):  # damage: the samples on its two sides are not one
            close()
            key, image = None, None
            found.lost(member, "damaged")
            continue
        parts = _NAME.match(os.fsencode(member.name))
        if not parts:
            continue
        if parts[1] != key:
            close()
            key, image, label = parts[1], None, UNLABELLED
        extension = parts[2].lower()
        if image is None and b"." + extension in _IMAGES:
            stream.seek(member.offset_data - tars.BLOCK)
            header = zlib.crc32(stream.read(tars.BLOCK))
            image = (original(key, parts[2]), member.offset_data, member.size, header)
        elif extension == b"cls":
            stream.seek(member.offset_data)
            label = _label(stream.read(min(member.size, 32)))
    close()


_IMAGES = {suffix.encode() for suffix in IMAGE_SUFFIXES}


def _label(content: bytes) -> int:
    text = content.strip()
    return int(text) if text.isdigit() and len(text) < 10 else UNLABELLED


def _members(stream: BinaryIO, found: Scan) -> Iterator[tarfile.TarInfo | int]:
    """The files of a tar, and where between them it is damaged (bytes)."""
    begin = end = 0  # where to read on; where the last member ends
    while begin < found.size:
        stream.seek(begin)
        try:
            # ignore_zeros: what is no header is passed over instead of taken for the end.
            archive = tarfile.TarFile(fileobj=stream, ignore_zeros=True, encoding="utf-8", errors="surrogateescape")
            while (member := archive.next()) is not None:
                if member.offset != end and not _harmless(stream, end, member.offset):
                    yield end
                end = archive.offset
                archive.members.clear()  # it would keep all of them
                if member.isreg() and not member.issparse():
                    yield member
        except (tarfile.TarError, ValueError, OverflowError):  # in what follows a header: a long name, PAX records
            begin = max(begin, end) + tars.BLOCK
        else:
            break
    # Empty blocks are its end; without any, nobody knows what else there was.
    if end + tars.BLOCK > found.size or not _harmless(stream, end, found.size):
        yield min(end, found.size)


def _harmless(stream: BinaryIO, begin: int, end: int) -> bool:
    """Whether nothing lies there but zeros and PAX records that are about the whole tar."""
    while begin < end:
        stream.seek(begin)
        content = stream.read(min(end - begin, 1 << 20))
        if content.count(0) == len(content):
            begin += len(content) or end
            continue
        try:
            record = tarfile.TarInfo.frombuf(content[: tars.BLOCK], "utf-8", "surrogateescape")
        except tarfile.TarError:
            return False
        if record.type != tarfile.XGLTYPE:
            return False
        begin += tars.BLOCK + record.size + -record.size % tars.BLOCK
    return True


# -- names -------------------------------------------------------------------------------------------------------------


def escaped(path: bytes, twin: bool) -> tuple[bytes, bytes]:
    """(key, extension) of an image's path: a key holds no dot behind its last slash, and is no other image's.

    twin: another image of its folder has this name with another suffix, and comes before it.
    """
    folder, slash, name = path.rpartition(b"/")
    stem, _, suffix = name.rpartition(b".")
    key = stem.replace(b"%", b"%25").replace(b".", b"%2E") + (b"%" + suffix if twin else b"")
    return folder + slash + key, suffix


def original(key: bytes, extension: bytes) -> bytes:
    """The inverse."""
    folder, slash, name = key.rpartition(b"/")
    name = name.removesuffix(b"%" + extension).replace(b"%2E", b".").replace(b"%25", b"%")
    return folder + slash + name + b"." + extension
