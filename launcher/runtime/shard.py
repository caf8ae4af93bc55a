"""One file of a checkpoint in the safetensors format, written in pieces so that training goes on meanwhile.

safetensors' own writer holds the interpreter's lock for the whole file. Writing and hashing a piece at a time releases
it, can be given up half-way, and needs no second copy in memory. Layout (8-byte length, JSON header, raw tensors):
https://huggingface.co/docs/safetensors/index#format
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from launcher.run.waiting import refuse_unanswered

PIECE = 4 << 20  # bytes; still in a core's cache when it is hashed after it was written
READ = 1 << 20
NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


class Abandoned(Exception):
    """The writing was given up because somebody asked for it."""


def write(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    values: Mapping[str, Any],
    *,
    abandon: Callable[[], bool],
    haste: bool = False,
) -> dict[str, Any]:
    """Write one shard to the disk; returns its entry of the manifest: size in bytes, sha256.

    tensors: contiguous, on the CPU, not changed until this returns. values: JSON. haste: hash on another core.
    Raises OSError where the disk does not hold it, Abandoned as soon as `abandon()` is true, TypeError for a dtype that
    the format does not have.
    """
    # Wide types first keeps every tensor aligned.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    pieces, size = list(_pieces(_header(order, tensors, values), [tensors[name] for name in order])), 0
    hasher = hashlib.sha256()
    with path.open("wb", buffering=0) as file, ThreadPoolExecutor(1) as beside:
        hashing = beside.submit(_sha256, pieces, abandon) if haste else None
        for piece in pieces:
            if abandon():
                raise Abandoned
            rest = piece
            while rest:  # a raw file may take less than it was given
                written = file.write(rest)
                size, rest = size + written, rest[written:]
            if not hashing:
                hasher.update(piece)
        os.fsync(file.fileno())
        hashed = hashing.result() if hashing else hasher.hexdigest()
    return {"size": size, "sha256": hashed}


def read_back(path: Path, entry: Mapping[str, Any], *, abandon: Callable[[], bool]) -> None:
    """Raises OSError where `path` does not hold what `write` said of it, Abandoned as soon as `abandon()` is true."""
    if _sha256(_stored(path), abandon) != entry["sha256"]:
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


def _sha256(pieces: Iterable[bytes | memoryview], abandon: Callable[[], bool]) -> str:
    hasher = hashlib.sha256()
    for piece in pieces:
        if abandon():
            raise Abandoned
        hasher.update(piece)
    return hasher.hexdigest()


def _stored(path: Path) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(READ))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            yield buffer[:count]


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
