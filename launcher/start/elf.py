"""Where a program looks for its libraries, as ELF files say it: what is in the environment is found from the file on.

Python built with a shared library names the folder of that in itself, and in each of its extension modules: every
process would ask there, wherever its copy lies.
"""

import os
import struct
from collections.abc import Mapping
from typing import IO

HEAD = b"\x7fELF\x02\x01"  # 64 bits, little-endian
LOAD, DYNAMIC = 1, 2  # segments
STRINGS, RPATH, RUNPATH = 5, 15, 29  # entries of the dynamic one
LONGEST = 4096  # bytes of a search path


def with_own_libraries(file: IO[bytes], name: str, places: Mapping[str, str]) -> bytes | None:
    """The content of `file`, called `name` in a tree that has `places` under other names, with search paths that fit
    there; None where it is good as it is, and `file` at its beginning."""
    new = {}
    try:
        for offset, old in _search_paths(file):
            moved = os.fsencode(":".join(_moved(path, name, places) for path in os.fsdecode(old).split(":")))
            if moved != old and len(moved) <= len(old):
                new[offset] = moved.ljust(len(old), b"\0")
    except (struct.error, OverflowError):  # no ELF file after all
        new = {}
    file.seek(0)
    if not new:
        return None
    content = bytearray(file.read())
    for offset, moved in new.items():
        content[offset : offset + len(moved)] = moved
    return bytes(content)


def _moved(path: str, name: str, places: Mapping[str, str]) -> str:
    for known, place in places.items():
        if f"{path}/".startswith(f"{known}/"):
            there = os.path.normpath(place + path[len(known) :])
            return f"$ORIGIN/{os.path.relpath(there, os.path.dirname(name))}"
    return path


def _search_paths(file: IO[bytes]) -> list[tuple[int, bytes]]:
    """(where in the file it stands, what it says) of each."""
    head = file.read(64)
    if len(head) < 64 or not head.startswith(HEAD):
        return []
    (table,), (size, count) = struct.unpack_from("<Q", head, 32), struct.unpack_from("<HH", head, 54)
    rows = _at(file, table, size * count)
    segments = [struct.unpack_from("<IIQQQQ", rows, size * index) for index in range(count)]
    dynamic = next((segment for segment in segments if segment[0] == DYNAMIC), None)
    if dynamic is None:
        return []
    entries = list(struct.iter_unpack("<qQ", _at(file, dynamic[2], dynamic[5] // 16 * 16)))
    strings = next((value for tag, value in entries if tag == STRINGS), 0)
    start = next((s[2] + strings - s[3] for s in segments if s[0] == LOAD and s[3] <= strings < s[3] + s[5]), None)
    if start is None:
        return []
    where = [start + value for tag, value in entries if tag in (RPATH, RUNPATH)]
    return [(offset, _at(file, offset, LONGEST).partition(b"\0")[0]) for offset in where]


def _at(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
