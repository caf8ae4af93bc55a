"""A folder of feature shards, as its files' headers describe it: what is in which file, and where. Imports no torch.

    features/part-0000.npy            [n, d] each, in fp64, fp32 or fp16
    features/part-0001.npy
or .safetensors, which may be bf16, too: the only tensor of a file, or the one that is called `features`. The rows of
all files, in the order of their names, are the data set. A shard may be empty.
"""

import ast
import errno
import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.errors import InputError

SUFFIXES = (".npy", ".safetensors")
NUMPY = {"<f8": "fp64", "<f4": "fp32", "<f2": "fp16"}
SAFETENSORS = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}
BYTES = {"fp64": 8, "fp32": 4, "fp16": 2, "bf16": 2}
TENSOR = "features"
LONGEST_HEADER = 100 << 20  # bytes, as the safetensors format allows


@dataclass(frozen=True)
class Shard:
    """[rows, dim] of `kind` (a key of BYTES) in a file, row after row from byte `offset` on."""

    path: Path
    rows: int
    dim: int
    kind: str
    offset: int


@dataclass(frozen=True)
class FeatureFolder:
    """All shards, by name. `content`: changes whenever a file is written anew."""

    path: Path
    shards: tuple[Shard, ...]
    content: str

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @property
    def dim(self) -> int:
        return self.shards[0].dim

    def __len__(self) -> int:
        return self.rows

    def to_json(self) -> dict[str, Any]:
        """For other ranks, which make it again with `from_json`."""
        shards = [{**vars(shard), "path": str(shard.path)} for shard in self.shards]
        return {"path": str(self.path), "shards": shards, "content": self.content}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> "FeatureFolder":
        shards = (Shard(**{**shard, "path": Path(shard["path"])}) for shard in told["shards"])
        return cls(Path(told["path"]), tuple(shards), told["content"])

    def name_of(self, row: int) -> str:
        """File and row in it of a row of the data set."""
        for shard in self.shards:
            if row < shard.rows:
                return f"row {row} of {shard.path.name}"
            row -= shard.rows
        raise IndexError(row)

    def pieces(self, first: int, last: int) -> list[tuple[Shard, int, int]]:
        """(shard, first, last row in it) of the rows [first, last) of the data set."""
        found = []
        for shard in self.shards:
            a, b = max(first, 0), min(last, shard.rows)
            if a < b:
                found.append((shard, a, b))
            first, last = first - shard.rows, last - shard.rows
        return found


def scan(path: Path) -> FeatureFolder:
    """Read the headers of all shards in `path`. Raises InputError where there are none, one is damaged or of another
    kind, or they do not go together; OSError where one cannot be read."""
    field = "features"
    try:
        files = sorted(f for f in path.iterdir() if f.suffix in SUFFIXES and not f.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError.of(field, path, f"cannot be read ({error.strerror})", "give a folder of shards") from None
    if not files:
        fix = f"give a folder of {' or '.join(SUFFIXES)} files"
        raise InputError.of(field, path, "there are no shards in it", fix)
    if len({f.suffix for f in files}) > 1:
        raise InputError.of(field, path, "it holds .npy and .safetensors", "leave files of one kind in it")
    hasher, shards = hashlib.sha256(), []
    for file in files:
        try:
            found, state = _shard(file), file.stat()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SyntaxError, struct.error) as error:
            if isinstance(error, OSError) and error.errno not in (errno.ENOENT, errno.EISDIR):
                raise  # it is there, and may be read in a moment: see run/waiting.py
            reason = getattr(error, "strerror", None) or f"it is damaged ({error})"
            raise InputError.of(field, file, reason, "write it anew") from None
        if state.st_size < found.offset + found.rows * found.dim * BYTES[found.kind]:
            raise InputError.of(field, file, "it is shorter than its header says", "write it anew")
        shards.append(found)
        hasher.update(f"{file.name}\0{found.rows}\0{found.dim}\0{found.kind}\0{state.st_size}\0".encode())
        hasher.update(f"{state.st_mtime_ns}\n".encode())
    first = shards[0]
    for other in shards[1:]:
        for what in ("dim", "kind"):
            here, there = getattr(first, what), getattr(other, what)
            if here != there:
                name = "d" if what == "dim" else "dtype"
                reason = f"it has {name}={there}, and {first.path.name} has {here}"
                raise InputError.of(field, other.path, reason, f"give every shard the same {name}")
    return FeatureFolder(path, tuple(shards), hasher.hexdigest())


def _shard(file: Path) -> Shard:
    with file.open("rb") as stream:
        read = _npy if file.suffix == ".npy" else _safetensors
        shape, kind, offset = read(file, stream)
    if len(shape) != 2 or shape[1] < 1:
        raise InputError.of("features", file, f"its shape is {list(shape)}", "give features of shape [n, d]")
    return Shard(file, *shape, kind, offset)


def _npy(file: Path, stream: Any) -> tuple[tuple[int, ...], str, int]:
    """(shape, kind, offset) by the header that numpy.lib.format documents."""
    if stream.read(6) != b"\x93NUMPY":
        raise ValueError("no .npy file")
    major, _ = stream.read(2)
    length, size = ("<H", 2) if major == 1 else ("<I", 4)
    (length,) = struct.unpack(length, stream.read(size))
    header = ast.literal_eval(stream.read(length).decode("latin1"))
    if header["fortran_order"]:
        fix = "save numpy.ascontiguousarray of it"
        raise InputError.of("features", file, "it lies column after column", fix)
    if header["descr"] not in NUMPY:
        raise InputError.of(
            "features", file, f"its dtype is {header['descr']}", "give float32, or float16, in little-endian"
        )
    return tuple(header["shape"]), NUMPY[header["descr"]], 8 + size + length


def _safetensors(file: Path, stream: Any) -> tuple[tuple[int, ...], str, int]:
    """(shape, kind, offset) of the only tensor, or of the one called `features`."""
    (length,) = struct.unpack("<Q", stream.read(8))
    if length > LONGEST_HEADER:
        raise ValueError("no .safetensors file")
    header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    name = TENSOR if TENSOR in header else next(iter(header)) if len(header) == 1 else None
    if name is None:
        reason = f"it holds {len(header)} tensors and none is called {TENSOR}"
        raise InputError.of("features", file, reason, f"call the one to cluster {TENSOR}")
    found = header[name]
    if found["dtype"] not in SAFETENSORS:
        raise InputError.of("features", file, f"its dtype is {found['dtype']}", "give F32, F16 or BF16")
    return tuple(found["shape"]), SAFETENSORS[found["dtype"]], 8 + length + found["data_offsets"][0]
