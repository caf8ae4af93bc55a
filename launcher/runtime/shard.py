"""One file of a checkpoint in the safetensors format, written in pieces so that training goes on meanwhile.

safetensors' own writer holds the interpreter's lock for the whole file. Writing and summing a piece at a time releases
it, can be given up half-way, and needs no second copy in memory. Layout (8-byte length, JSON header, raw tensors):
https://huggingface.co/docs/safetensors/index#format

What is written goes past the system's memory where the file system can do that (O_DIRECT, open(2)): it takes a fraction
of the cores' time, fsync has little left to do, no data set is pushed out of memory for a checkpoint, and what reads it
back asks the disk, or its server, for it.
"""

import contextlib
import errno
import fcntl
import json
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open

from launcher.run.files import NotOurs, opened
from launcher.run.manifest import SUMS
from launcher.run.waiting import refuse_unanswered

PIECE = 8 << 20  # bytes; each costs some turns of the interpreter's lock, and is how soon a save can be given up
KIND = "xxh3"  # of manifest.SUMS: what is written now
NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


class Abandoned(Exception):
    """The writing was given up because somebody asked for it."""


class Elder(NamedTuple):
    """A file of a checkpoint, its entry of the manifest, and how often it was linked since it was written."""

    path: Path
    entry: Mapping[str, Any]
    links: int = 0


def write(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    values: Mapping[str, Any],
    *,
    abandon: Callable[[], bool],
    elder: Elder | None = None,
) -> tuple[dict[str, Any], bool]:
    """Write one shard to the disk; returns its entry of the manifest (size in bytes, xxh3), and whether it is a link.

    tensors: contiguous, on the CPU, not changed until this returns. values: JSON. elder: where it is to hold the same,
    and the disk, which is asked, still does, `path` becomes a hard link of it. Raises OSError where the disk does not
    hold it, Abandoned as soon as `abandon()` is true, TypeError for a dtype that the format does not have.
    """
    # Wide types first keeps every tensor aligned.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    pieces = list(_pieces(_header(order, tensors, values), [tensors[name] for name in order]))
    with ThreadPoolExecutor(1) as beside:
        summing = beside.submit(_sum, pieces, abandon)
        if elder and summing.result() == elder.entry[KIND] and _linked(elder, path, abandon):
            return dict(elder.entry), True
        _write(path, pieces, abandon)
        return {"size": sum(map(len, pieces)), KIND: summing.result()}, False


def read_back(path: Path, entry: Mapping[str, Any], *, abandon: Callable[[], bool]) -> None:
    """Raises OSError where `path` does not hold what `write` said of it, Abandoned as soon as `abandon()` is true."""
    if _sum(_stored(path), abandon) != entry[KIND]:
        raise OSError(f"{path.name} reads back otherwise than it was written")


def read(path: Path) -> dict[str, dict[str, Any]]:
    """owner -> {key: tensor or JSON value} of one shard, whose names are `owner/key`. Raises OSError."""
    state: dict[str, dict[str, Any]] = {}
    refuse_unanswered(path)
    with safe_open(path, framework="pt") as file:
        items = [(key, file.get_tensor(key)) for key in file.keys()]  # noqa: SIM118 (not a dict)
        items += json.loads((file.metadata() or {}).get("values", "{}")).items()
    for key, value in items:
        owner, _, inner = key.partition("/")
        state.setdefault(owner, {})[inner] = value
    return state


def owners(path: Path) -> set[str]:
    """The owners of what a shard holds; its tensors are not read. Raises OSError."""
    refuse_unanswered(path)
    with safe_open(path, framework="pt") as file:
        keys = [*file.keys(), *json.loads((file.metadata() or {}).get("values", "{}"))]
    return {key.partition("/")[0] for key in keys}


def _write(path: Path, pieces: list[memoryview], abandon: Callable[[], bool]) -> None:
    with path.open("wb", buffering=0) as file:
        _past_memory(file)
        for block in _blocks(pieces):
            if abandon():
                raise Abandoned
            while block:  # a raw file may take less than it was given
                block = block[_as_it_can(file, file.write, block) :]
            _out_of_memory(file)
        os.fsync(file.fileno())
        _out_of_memory(file)


def _blocks(pieces: Iterable[memoryview]) -> Iterator[memoryview]:
    """The bytes of `pieces`, PIECE at a time, each in the same memory."""
    block, filled = _pages(), 0
    for piece in pieces:
        rest = np.frombuffer(piece, np.uint8)
        while len(rest):
            taken = min(len(rest), PIECE - filled)
            np.copyto(block[filled : filled + taken], rest[:taken])  # which lets go of the interpreter's lock
            rest, filled = rest[taken:], filled + taken
            if filled == PIECE:
                yield memoryview(block)
                filled = 0
    if filled:
        yield memoryview(block)[:filled]


def _stored(path: Path) -> Iterator[memoryview]:
    """The pieces of what the disk holds."""
    block = memoryview(_pages())
    with open(opened(path), "rb", buffering=0) as file:
        _out_of_memory(file)  # what others have read of it meanwhile, where it is memory that will be asked
        _past_memory(file)
        while count := _as_it_can(file, file.readinto, block):
            yield block[:count]
        _out_of_memory(file)


def _pages() -> np.ndarray:
    """uint8 [PIECE] that begins with a page, as what goes past the system's memory must. Shared, as mmap makes it, or a
    fork meanwhile could take pages of it along: open(2)."""
    return np.frombuffer(mmap.mmap(-1, PIECE), np.uint8)


def _past_memory(file: IO[bytes], wanted: bool = True) -> bool:
    """Have what is read or written go past the system's memory, or not; returns whether that is another way now."""
    direct, flags = getattr(os, "O_DIRECT", 0), fcntl.fcntl(file, fcntl.F_GETFL)
    new = flags | direct if wanted else flags & ~direct
    with contextlib.suppress(OSError):  # a file system that cannot
        fcntl.fcntl(file, fcntl.F_SETFL, new)
        return new != flags
    return False


def _as_it_can(file: IO[bytes], call: Callable[[memoryview], int], block: memoryview) -> int:
    """`call(block)`, through the system's memory where this part of the file cannot go past it: one that fills no block
    of the disk, as the last one."""
    try:
        return call(block)
    except OSError as error:
        if error.errno != errno.EINVAL or not _past_memory(file, False):
            raise
    return call(block)


def _out_of_memory(file: IO[bytes]) -> None:
    """Begin to write to the disk what is not there yet; and forget what is. A hint: posix_fadvise(2)."""
    with contextlib.suppress(OSError, AttributeError):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _linked(elder: Elder, path: Path, abandon: Callable[[], bool]) -> bool:
    """Whether `path` is a hard link of `elder` now, which was read back."""
    with contextlib.suppress(OSError, NotOurs):  # a file system without links; or it is damaged, or no file any more
        read_back(elder.path, elder.entry, abandon=abandon)
        os.link(elder.path, path, follow_symlinks=False)
        return True
    return False


def _sum(pieces: Iterable[bytes | memoryview], abandon: Callable[[], bool]) -> str:
    hasher = SUMS[KIND]()
    for piece in pieces:
        if abandon():
            raise Abandoned
        hasher.update(piece)
    return hasher.hexdigest()


def _header(order: list[str], tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"values": json.dumps(values, sort_keys=True)}}
    offset = 0
    for name in order:
        tensor = tensors[name]
        if tensor.dtype not in NAMES:
            raise TypeError(f"state {name!r} has dtype {tensor.dtype}, which a checkpoint cannot hold")
        end = offset + tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _pieces(header: bytes, tensors: list[torch.Tensor]):
    yield memoryview(header)
    for tensor in tensors:
        raw = memoryview(tensor.reshape(-1).view(torch.uint8).numpy()) if tensor.numel() else memoryview(b"")
        for start in range(0, len(raw), PIECE):
            yield raw[start : start + PIECE]
