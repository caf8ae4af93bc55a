"""MATLAB's files of variables (.mat, versions 5 to 7), of which a few are read; none of them runs code."""

import io
import math
import os
import struct
import zlib
from collections.abc import Collection
from typing import Any, BinaryIO

import numpy as np

from launcher.run import files
from methods.data.decoding import OF_THE_MACHINE
from methods.data.sets.base import wrong

HEADER = b"MATLAB 5.0 MAT-file".ljust(116) + bytes(8) + b"\x00\x01IM"  # as x86 writes it
MATRIX, COMPRESSED = 14, 15
MOST = 256 << 20  # bytes of a variable, unpacked
HEAD = 512  # bytes in which a variable's name is found


def variables(file: str, wanted: Collection[str], laid: str) -> dict[str, Any]:
    """Those variables of `file` as scipy.io.loadmat gives them, dimensions of one left out; all others, such as
    features of a gigabyte, are passed over.

    laid: how the data set lays it. Raises InputError where the file is missing, is none of MATLAB's, lacks a variable,
    or has one of more than MOST bytes; OSError where it cannot be read now.
    """
    try:
        with open(files.opened(os.path.realpath(file)), "rb") as stream:
            parts = _parts(stream, wanted)
    except FileNotFoundError:
        raise wrong("data", None, f"{file!r} is missing", laid) from None
    except (OSError, files.NotOurs) as error:
        if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:
            raise
        raise wrong("data", None, f"{file!r} cannot be read ({error})", "make it readable") from None
    except (ValueError, struct.error, zlib.error) as error:
        raise wrong("data", None, f"{file!r} is no sound MATLAB file ({error})", laid) from None
    if missing := [name for name in wanted if name not in parts]:
        raise wrong("data", None, f"{file!r} has no variable {missing[0]!r}", laid)
    return _loaded(file, parts, laid)


def numbers(file: str, found: Any, least: int, most: int, laid: str) -> np.ndarray:
    """int64 [n]: a variable that holds whole numbers from `least` to `most`. Raises InputError where it does not."""
    values = np.atleast_1d(found)
    good = values.dtype.kind in "iuf" and values.ndim == 1
    if not good or not ((values == np.round(values)) & (values >= least) & (values <= most)).all():
        raise wrong("data", None, f"{file!r} has something else than numbers from {least} to {most}", laid)
    return values.astype(np.int64)


def _loaded(file: str, parts: dict[str, bytes], laid: str) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        found = loadmat(io.BytesIO(HEADER + b"".join(parts.values())), squeeze_me=True)
        return {name: found[name] for name in parts}
    except Exception as error:  # damaged bytes lead it anywhere
        said = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise wrong("data", None, f"{file!r} is no sound MATLAB file ({said})", laid) from None


def _parts(stream: BinaryIO, wanted: Collection[str]) -> dict[str, bytes]:
    """The elements with these variables, unpacked. Raises ValueError, struct.error or zlib.error."""
    if stream.read(len(HEADER))[124:] != HEADER[124:]:
        raise ValueError("its version is not 5 to 7")
    parts: dict[str, bytes] = {}
    while len(tag := stream.read(8)) == 8:
        kind, size = struct.unpack("<II", tag)
        behind = stream.tell() + size
        start = stream.read(min(size, 4 * HEAD))
        head = zlib.decompressobj().decompress(start, HEAD) if kind == COMPRESSED else tag + start
        name = _name(head) if kind in (MATRIX, COMPRESSED) else None
        if name in wanted:
            if size > MOST:
                raise ValueError(f"{name} has more than {MOST:,} bytes")
            body = start + stream.read(size - len(start))
            parts[name] = _whole(name, body) if kind == COMPRESSED else tag + body
            if math.prod(_sides(head)) > len(parts[name]):  # room for them would be made
                raise ValueError(f"{name} is said to be larger than it is")
        stream.seek(behind)
    return parts


def _whole(name: str, body: bytes) -> bytes:
    unpacking = zlib.decompressobj()
    whole = unpacking.decompress(body, MOST)
    if not unpacking.eof:
        raise ValueError(f"{name} is cut short, or has more than {MOST:,} bytes")
    return whole


def _sides(head: bytes) -> tuple[int, ...]:
    """Of an array, whose element begins so: behind its tag and its flags, 8 bytes of tag and one number a side."""
    (size,) = struct.unpack_from("<I", head, 28)
    return struct.unpack_from(f"<{min(size // 4, 32)}i", head, 32)


def _name(head: bytes) -> str:
    """Of a variable, whose element begins so; the name is behind the sides, which fill 8 bytes."""
    (size,) = struct.unpack_from("<I", head, 28)
    at = 32 + (size + 7) // 8 * 8
    first, size = struct.unpack_from("<II", head, at)
    begin = at + 4 if first >> 16 else at + 8  # a name of up to four bytes is in the tag itself
    return head[begin : begin + (first >> 16 or size)].decode("latin-1")
