"""Arrays in one file that the processes of a node share by mapping it: checksummed, with a header, replaced whole.

A file: magic (16 bytes), crc32 of all that follows (uint64), length of the header (uint64), header (JSON), arrays.
Standard library alone, so that the launcher can read a header.
"""

import json
import mmap
import os
import zlib
from pathlib import Path
from typing import Any

from launcher.run.files import NotOurs, object_in, opened, replacing

_START = 32  # bytes before the header
_ALIGN = 64
_CHUNK = 16 << 20  # bytes a checksum is fed with


def save(file: Path, magic: bytes, header: dict[str, Any], arrays: dict[str, Any]) -> None:
    """A reader sees the old file or the new one. `arrays`: name -> any one-dimensional buffer.

    Raises OSError where that is not possible; nothing is left behind then.
    """
    views = {name: memoryview(array) for name, array in arrays.items()}
    spans, offset = {}, 0
    for name, view in views.items():
        offset += -offset % _ALIGN
        spans[name] = [offset, view.nbytes]
        offset += view.nbytes
    # json escapes the lone surrogates that stand for bytes which are not UTF-8
    head = json.dumps({**header, "arrays": spans}).encode()
    head += b" " * (-(_START + len(head)) % _ALIGN)
    parts: list[Any] = [len(head).to_bytes(8, "little"), head]
    written = 0
    for name, view in views.items():
        if view.nbytes:
            parts += [bytes(spans[name][0] - written), view.cast("B")]
            written = sum(spans[name])
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file, durable=False, by_umask=True) as out:
        out.writelines([magic, crc.to_bytes(8, "little"), *parts])


def load(file: Path, magic: bytes) -> tuple[dict[str, Any], dict[str, memoryview]] | None:
    """(header, bytes of each array) of a file, mapped; None where there is none, or its checksum is not that of its
    content."""
    header = head(file, magic)
    if header is None:
        return None
    try:
        with open(opened(file), "rb") as stream:
            data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError):
        return None
    crc = 0
    for start in range(len(magic) + 8, len(data), _CHUNK):
        crc = zlib.crc32(data[start : start + _CHUNK], crc)
    if crc != int.from_bytes(data[len(magic) : len(magic) + 8], "little"):
        return None
    begin = _START + int.from_bytes(data[len(magic) + 8 : _START], "little")
    try:
        return header, {name: data[begin + at : begin + at + size] for name, (at, size) in header.pop("arrays").items()}
    except (TypeError, ValueError):  # whole, and not written by `save`
        return None


def head(file: Path, magic: bytes) -> dict[str, Any] | None:
    """The header alone, unchecked; None where there is none."""
    try:
        with open(opened(file), "rb") as stream:
            start = stream.read(_START)
            length = int.from_bytes(start[len(magic) + 8 :], "little")
            if start[: len(magic)] != magic or length > os.fstat(stream.fileno()).st_size:
                return None
            header = object_in(stream.read(length))
    except (OSError, NotOurs):
        return None
    return header if header and isinstance(header.get("arrays"), dict) else None
