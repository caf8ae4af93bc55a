"""Programs and libraries of a copy find their own libraries there, and not where they were packed."""

import struct
from io import BytesIO

import pytest

from launcher.start.elf import with_own_libraries


def elf(search_path: bytes) -> bytes:
    """A file of 64 bits with one segment, which is loaded at 0x1000, and a dynamic one."""
    strings = b"\0" + search_path + b"\0after\0"
    table, dynamic = 64, 64 + 2 * 56
    entries = struct.pack("<qQqQqQ", 5, 0x1000 + dynamic + 48, 29, 1, 0, 0)
    size = dynamic + 48 + len(strings)
    head = b"\x7fELF\x02\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, 0, table, 0, 0, 64, 56, 2, 0, 0, 0
    )
    load = struct.pack("<IIQQQQQQ", 1, 4, 0, 0x1000, 0x1000, size, size, 8)
    return head + load + struct.pack("<IIQQQQQQ", 2, 4, dynamic, 0x1000 + dynamic, 0, 48, 48, 8) + entries + strings


@pytest.mark.parametrize(
    "old, new",
    [
        (b"/shared/python/lib", b"$ORIGIN/../.."),
        (b"/opt/cuda/lib:/shared/python/lib:/x", b"/opt/cuda/lib:$ORIGIN/../..:/x"),
        (b"$ORIGIN/../lib:/shared/python2/lib", None),
        (b"/shared/python/lib/very", None),  # there is no room for what is longer
    ],
)
def test_libraries_are_found_from_the_file_on(old, new):
    content, places = elf(old), {"/shared/python": "base"}
    name = "base/lib/python3.11/lib-dynload/_ssl.so" if new else "base/a/b/c/d/e/f/_ssl.so"
    file = BytesIO(content)
    moved = with_own_libraries(file, name, places)
    assert moved is not None or file.tell() == 0
    assert moved == (None if new is None else content.replace(old, new.ljust(len(old), b"\0")))


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF\x02\x01", elf(b"/shared/python/lib")[:90]])
def test_what_is_no_whole_program_stays_as_it_is(content):
    assert with_own_libraries(BytesIO(content), "base/x", {"/shared/python": "base"}) is None
