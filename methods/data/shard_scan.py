"""What the headers of one tar say: its samples, as WebDataset's own reader groups them, and what is left out of it.

A sample is a group of neighbouring members with one key: the name up to the first dot behind the last slash. Its image
is the first member whose whole extension is an image's; where there is none, each member that ends in one is an image
by itself, since names like IMG.2021.1.png make one key of many. Its label is the integer in the .cls member of the same
name, which may lie elsewhere in the tar. Beyond that reader's: links to members of the same tar are what they lead to.
"""

import os
import posixpath
import tarfile
import zlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from launcher.errors import InputError
from methods.data import tars
from methods.data.decoding import OF_THE_MACHINE
from methods.data.folder import printable
from methods.data.index import digit
from methods.data.listing import IMAGE_SUFFIXES
from methods.data.shard_names import original

LOST = 2**32 - 1  # the size of what cannot be read
SPARSE = LOST - 1  # and of what lies in pieces: its header comes first
UNLABELLED = -1
KINDS = {
    "blocks": np.uint32,  # [N] where each image begins in its tar, in blocks of 512 bytes
    "sizes": np.uint32,  # [N] bytes
    "headers": np.uint32,  # [N] crc32 of the block before the image, in which its tar names it
    "labels": np.int32,  # [N]
    "ends": np.uint32,  # [N] where its name ends among the names of its tar
    "digits": np.uint8,  # [N] a stable hash of the name, 0 to 9
    "blob": np.uint8,  # the names, one after the other
}
_LARGEST = 1 << 30  # bytes of a sparse file: of one that is damaged any size may be said
_OF_LABEL = 1 << 10
_OF_HEADERS = 1 << 20  # of one member: a long name, PAX records, a map of pieces
_EMPTY = 64  # blocks, behind which more are looked for at once
_IMAGES = {suffix.encode()[1:] for suffix in IMAGE_SUFFIXES}


class Extent(NamedTuple):
    """Where a member's content lies."""

    offset: int  # bytes; of a sparse one, of the block behind its first header
    size: int


@dataclass
class Scan:
    """What the headers of one tar say."""

    size: int
    mtime_ns: int
    links: Mapping[bytes, Extent | None] = field(default_factory=dict)  # what is known of them from a scan before
    labels: Mapping[bytes, int] = field(default_factory=dict)  # and of labels that lie apart from their images
    damage: list[str] = field(default_factory=list)
    arrays: dict[str, Any] = field(default_factory=lambda: {n: array(np.dtype(k).char) for n, k in KINDS.items()})
    files: int = 0
    images: int = 0  # files that are called so
    left: dict[str, list] = field(default_factory=dict)  # why -> [how many, the first]
    targets: dict[bytes, bytes] = field(default_factory=dict)  # of links, by their names
    apart: dict[bytes, int] = field(default_factory=dict)  # labels without an image in their sample
    joined: set[bytes] = field(default_factory=set)  # of `labels`, those that an image elsewhere got
    used: int = 0

    def add(self, name: bytes, place: Extent, header: int, label: int) -> None:
        values = (place.offset // tars.BLOCK, min(place.size, LOST), header, label)
        for kind, value in zip(("blocks", "sizes", "headers", "labels"), values, strict=True):
            self.arrays[kind].append(value)
        self.arrays["blob"].frombytes(name)
        self.arrays["ends"].append(len(self.arrays["blob"]))
        self.arrays["digits"].append(digit(name))

    def lost(self, offset: int, problem: str) -> None:
        """Nobody knows how many samples: it counts as one, so that a run which meets it says so."""
        self.damage.append(f"{problem} at byte {offset}")
        self.add(b"byte %d" % offset, Extent(offset, LOST), 0, UNLABELLED)

    def leave(self, why: str, name: bytes) -> None:
        self.left.setdefault(why, [0, printable(name)])[0] += 1

    @property
    def counts(self) -> dict[str, Any]:
        """For the index, and for a person."""
        labels = len(self.arrays["labels"]) - self.arrays["labels"].count(UNLABELLED)
        return {"files": self.files, "images": self.images, "used": self.used, "labels": labels, "left": self.left}

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

            def look(**known: Mapping) -> Scan:
                found = Scan(status.st_size, status.st_mtime_ns, **known)
                _group(stream, found)
                return found

            found, links = look(), {}
            if found.targets:  # once more, with what they lead to: few tars have any
                links = _followed(stream, found)
                found = look(links=links)
            if found.apart and UNLABELLED in found.arrays["labels"]:
                found = look(links=links, labels=found.apart)
            for name in sorted(found.apart.keys() - found.joined):
                found.leave("labels of no image", name + b".cls")
            found.links = found.labels = found.targets = found.apart = {}  # it may travel to another process
            return found
    except OSError as error:
        if error.errno in OF_THE_MACHINE:  # no fault of the tar's: whoever starts waits for it
            raise
        reason = f"{file!r} cannot be read ({error.strerror})"
        raise InputError.of("data.path", ..., reason, "make it readable") from None


class _Sample:
    """Neighbours of one key."""

    def __init__(self, found: Scan, key: bytes, first: bytes):
        self._found, self._key, self._first = found, key, first
        self._images: list[tuple[bytes, bytes, Extent, int]] = []  # (name without its suffix, suffix, where, crc32)
        self._labels: dict[bytes, int] = {}

    def put(self, stream: BinaryIO, extensions: bytes, place: Extent) -> None:
        """One of its members."""
        more, dot, suffix = extensions.rpartition(b".")
        stem = self._key + dot + more
        if suffix.lower() in _IMAGES:
            stream.seek(place.offset - tars.BLOCK)
            self._images.append((stem, suffix, place, zlib.crc32(stream.read(tars.BLOCK))))
        elif suffix.lower() == b"cls":
            self._labels[stem] = _label(stream, place)

    def close(self) -> None:
        found, key = self._found, self._key
        plain = [number for number, image in enumerate(self._images) if image[0] == key][:1]
        for number, (stem, suffix, place, header) in enumerate(self._images):
            if plain and number not in plain:
                found.leave("further images of a sample", stem + b"." + suffix)
                continue
            name = original(stem, suffix) if stem == key else stem + b"." + suffix
            found.add(name, place, header, self._label_of(stem))
            found.used += 1
        own = {key, *(image[0] for image in self._images)} if self._images else set()
        for stem, label in self._labels.items():
            if stem in own:
                continue
            if found.apart.setdefault(stem, label) != label:  # then none is known
                found.apart[stem] = UNLABELLED
                found.leave("labels that contradict others", stem + b".cls")
        if not (self._images or self._labels):
            found.leave("samples without an image", self._first)

    def _label_of(self, stem: bytes) -> int:
        found = self._found
        for labels in (self._labels, found.labels):
            for name in (stem, self._key):
                if name in labels:
                    found.joined |= {name} if labels is found.labels else set()
                    return labels[name]
        return UNLABELLED


def _group(stream: BinaryIO, found: Scan) -> None:
    """Members -> samples."""
    key: bytes | None = None
    sample: _Sample | None = None
    for member in _members(stream, found.size):
        name = b"" if isinstance(member, int) else os.fsencode(member.name)
        parts = _parted(name)
        if sample and (isinstance(member, int) or (parts and parts[0] != key)):
            sample.close()
            key = sample = None
        if isinstance(member, int):  # damage: the samples on its two sides are not one
            found.lost(member, "damaged")
            continue
        is_image = name.rpartition(b".")[2].lower() in _IMAGES
        found.files += 1
        found.images += is_image
        if not parts:
            if is_image:
                found.leave("hidden files", name)
            continue
        place = _place(found, member)
        if place is None:
            continue
        if sample is None:
            key, sample = parts[0], _Sample(found, parts[0], name)
        sample.put(stream, parts[1], place)
    if sample:
        sample.close()


def _parted(name: bytes) -> tuple[bytes, bytes] | None:
    """(key, extensions) of a member; None where it has none of the two."""
    begin = 0
    while name.startswith(b"./", begin):
        begin += 2
    folder, slash, last = name[begin:].rpartition(b"/")
    stem, _, extensions = last.partition(b".")
    return (folder + slash + stem, extensions) if stem and extensions else None


def _place(found: Scan, member: tarfile.TarInfo) -> Extent | None:
    """Where its content lies; None of a link that leads nowhere, as far as is known."""
    if member.isreg():
        if member.issparse():
            return Extent(member.offset + tars.BLOCK, SPARSE)
        return Extent(member.offset_data, member.size if member.size < SPARSE else LOST)
    name = os.fsencode(member.name)
    if name not in found.links:
        folder = os.path.dirname(name) if member.issym() else b""
        found.targets[name] = _normal(os.path.join(folder, os.fsencode(member.linkname)))
    elif found.links[name] is None:
        found.leave("links to what this tar does not hold", name)
    return found.links.get(name)


def _followed(stream: BinaryIO, found: Scan) -> dict[bytes, Extent | None]:
    """Where the links of a tar lead, through other links, too."""
    links = {_normal(name): target for name, target in found.targets.items()}
    ends, known = {}, {}
    for name, target in found.targets.items():
        passed = dict[bytes, None]()
        while target in links and target not in passed and target not in known:  # some lead in a circle
            passed[target] = None
            target = links[target]
        ends[name] = known.get(target, target)
        known |= dict.fromkeys(passed, ends[name])
    wanted, places = set(ends.values()), {}
    for member in _members(stream, found.size):
        if not isinstance(member, int) and member.isreg() and (name := _normal(os.fsencode(member.name))) in wanted:
            places[name] = _place(found, member)
    return {name: places.get(end) for name, end in ends.items()}


def _normal(name: bytes) -> bytes:
    return posixpath.normpath(name)


def pieces(stream: BinaryIO, place: Extent, most: int = _LARGEST) -> bytes:
    """The content of a sparse member, of at most so many bytes. Raises tarfile.TarError or ValueError where it is
    damaged."""
    stream.seek(place.offset - tars.BLOCK)
    archive = _archive(_Headers(stream), ignore_zeros=False)
    member = archive.next()
    if member is None or not member.isreg() or not 0 <= member.size <= most:
        raise ValueError("it is no sparse file any more")
    archive.fileobj = stream
    return archive.extractfile(member).read()


def _label(stream: BinaryIO, place: Extent) -> int:
    stream.seek(place.offset)
    try:
        content = pieces(stream, place, _OF_LABEL) if place.size == SPARSE else stream.read(min(place.size, 32))
    except (tarfile.TarError, ValueError, LookupError, OverflowError, RecursionError):
        return UNLABELLED
    text = content.strip()
    return int(text) if text.isdigit() and len(text) < 10 else UNLABELLED


class _Headers:
    """A tar as tarfile reads its headers, which would read whatever size they say. ValueError where those of one member
    go on for too long, and behind many empty blocks; the tar is then where there may be another header."""

    def __init__(self, stream: BinaryIO):
        self._stream, self.seek, self.tell = stream, stream.seek, stream.tell
        self.begin()

    def begin(self) -> None:
        """Another member."""
        self._left, self._empty = _OF_HEADERS, _EMPTY

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self._left:
            if size > tars.BLOCK:
                self._stream.seek(min(size, 1 << 40), os.SEEK_CUR)
            raise ValueError("longer than any header")
        found = self._stream.read(size)
        if not _empty(found):
            self._left -= len(found)
        elif self._empty:
            self._empty -= 1
        else:
            while (found := self._stream.read(1 << 20)) and _empty(found):
                pass
            self._stream.seek(-len(found.lstrip(b"\0")), os.SEEK_CUR)
            raise ValueError("empty")
        return found


def _archive(stream: _Headers, *, ignore_zeros: bool) -> tarfile.TarFile:
    return tarfile.TarFile(fileobj=stream, ignore_zeros=ignore_zeros, encoding="utf-8", errors="surrogateescape")


def _members(stream: BinaryIO, size: int) -> Iterator[tarfile.TarInfo | int]:
    """The files of a tar, and where between them it is damaged (bytes)."""
    begin = end = 0  # where to read on; where the last member ends
    while begin < size:
        stream.seek(begin)
        headers = _Headers(stream)
        try:
            # ignore_zeros: what is no header is passed over instead of taken for the end.
            archive = _archive(headers, ignore_zeros=True)
            while (member := archive.next()) is not None:
                headers.begin()
                if member.size < 0 or archive.offset <= member.offset:
                    raise ValueError("it ends before it begins")
                if member.offset != end and not _harmless(stream, end, member.offset):
                    yield end
                end = archive.offset
                archive.offset = min(end, size)  # what is cut off may be said to end anywhere
                archive.members.clear()  # it would keep all of them
                if member.isreg() or member.islnk() or member.issym():
                    yield member
        # In what follows a header: a long name, PAX records, one header behind another without end.
        except (tarfile.TarError, ValueError, LookupError, OverflowError, RecursionError):
            begin = max(begin + tars.BLOCK, end, stream.tell() // tars.BLOCK * tars.BLOCK)
        else:
            break
    # Empty blocks are its end; without any, nobody knows what else there was.
    if end + tars.BLOCK > size or not _harmless(stream, end, size):
        yield min(end, size)


def _harmless(stream: BinaryIO, begin: int, end: int) -> bool:
    """Whether nothing lies there but zeros and PAX records that are about the whole tar."""
    while begin < end:
        stream.seek(begin)
        block = stream.read(tars.BLOCK)
        if _empty(block):
            begin += len(block) or end
            while begin < end and (more := stream.read(min(end - begin, 1 << 20))) and _empty(more):
                begin += len(more)
            continue
        try:
            record = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.TarError, ValueError):
            return False
        if record.type != tarfile.XGLTYPE or record.size < 0:
            return False
        begin += tars.BLOCK + record.size + -record.size % tars.BLOCK
    return True


def _empty(content: bytes) -> bool:
    return content == bytes(len(content))
