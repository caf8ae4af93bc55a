"""What lies where in a folder of tars: made by reading their headers once, kept in a file beside them, mapped.

`shard_scan` says what a sample is. It costs 21 bytes and its name, and a read of it needs nothing but the index.
"""

import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from launcher.errors import InputError
from launcher.run.files import cache_folder
from methods.data import mapped, tars
from methods.data.shard_scan import KINDS, LOST, SPARSE, UNLABELLED, Scan, scan
from methods.data.splits import split_folders
from methods.data.survey import survey

WORTH_A_PROCESS = 16  # tars

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
    counts: list[dict]  # of each tar, as tars.total adds them up

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
        for name, kind in KINDS.items()
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
        [part.counts for part in parts],
    )
    found.depth.update(survey(len(found), found.name, lambda i: _opened(folder, found, i)))
    told = {key: getattr(found, key) for key in ("tars", "samples", "damaged", "labelled", "depth", "counts")}
    trouble = None
    for file in tars.index_files(folder):
        try:
            mapped.save(file, tars.MAGIC, told, arrays)
            again = _load(file)  # mapped: one copy a node instead of one a process
            return found if again is None else again, file
        except OSError as error:
            trouble = error
    reason = f"its index can be kept neither there nor in {cache_folder()} ({trouble.strerror})"
    raise InputError.of("data.path", repr(os.fspath(folder)), reason, "make room in one of them")


def index_all(
    root: str | Path, *, workers: int, anew: bool, progress: Callable[[str, int, int], None]
) -> dict[str, Any]:
    """Index the tars of each split of `root`: {"images", "shards", "bytes", "damaged" [tar, what], "index" (files),
    "tars" [tar, counts as tars.told has them], "beside" (compressed tars that are called otherwise)}.

    anew: also where there is an index that is theirs. Raises InputError as `make` does, and where there is no tar.
    """
    found: dict[str, Any] = {"images": 0, "shards": 0, "bytes": 0, "damaged": [], "index": [], "tars": [], "beside": []}
    for folder in filter(None, split_folders(os.fspath(root))):
        there = tars.names(folder) if os.path.isdir(folder) else []
        problem = os.path.isdir(folder) and tars.packed(folder, there)
        if not (problem or there):
            problem = "no .tar file in it", "give a folder of tars, or say OUT, too, to make some of images"
        if problem := problem or tars.packed_inside(folder, there):
            raise InputError.of("data.path", repr(folder), *problem)
        index, file = (None, None) if anew else existing(tars.fitting(folder)[0])
        if index is None:
            index, file = make(folder, workers=workers, progress=lambda done, of: progress("tars indexed", done, of))
        prefix = os.path.relpath(folder, root) + "/" if folder != os.fspath(root) else ""
        found["images"] += len(index)
        found["shards"] += len(index.tars)
        found["bytes"] += sum(each[1] for each in index.tars)
        found["damaged"] += [[prefix + tar, problem] for tar, problem in index.damaged]
        found["tars"] += [[prefix + tar, counts] for (tar, *_), counts in zip(index.tars, index.counts, strict=True)]
        found["beside"] += [prefix + name for name, *_ in tars.packed_beside(folder, there)]
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
    try:
        return ShardIndex(**header, arrays={name: np.frombuffer(arrays[name], kind) for name, kind in KINDS.items()})
    except (LookupError, TypeError, ValueError):  # whole, and not written by us
        return None


def _opened(folder: str | Path, index: ShardIndex, position: int) -> BinaryIO:
    where = index.where(position)
    with open(os.path.join(folder, index.tars[where.tar][0]), "rb") as tar:
        tar.seek(where.offset)
        return io.BytesIO(b"" if where.size >= SPARSE else tar.read(where.size))


def _scanned(files: list[str], workers: int) -> "Iterator[Scan]":
    processes = min(workers, len(files) // WORTH_A_PROCESS)
    if processes < 2:
        yield from map(scan, files)
        return
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        yield from pool.map(scan, files)
