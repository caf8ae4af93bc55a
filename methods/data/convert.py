"""A folder of images -> tars of about one size: resumable, always the same bytes.

    OUT/[train/|val/]shard-000000.tar ...   key.cls (where there are labels), then the image's file as it is
    OUT/classes.json                        the names of the labels
    OUT/.conversion/                        lock; plan.json: which images go into which tar; done.jsonl: finished tars

A tar appears under its name when it is complete and on the disk. Whoever starts again goes by the plan, keeps the tars
that are as they were when they were finished, and makes the others. Others may write in OUT: the plan and the journal
are believed because .conversion is closed to them, and a tar that is not the user's is compared with the journal.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tarfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from launcher.errors import InputError
from launcher.run.files import (
    NotOurs,
    append,
    object_in,
    opened,
    own_folder,
    read,
    read_json,
    refuse_not_ours,
    replacing,
    write_json,
)
from methods.data.folder import classes_of, known_classes, labels_of, printable
from methods.data.index import FolderIndex, open_index
from methods.data.listing import absolute
from methods.data.shard_names import escaped
from methods.data.shards import CLASSES
from methods.data.splits import refuse_hidden_splits, split_folders
from methods.data.tars import BLOCK

FORMAT = 1
STATE = ".conversion"
DONE = {"split", "number", "bytes", "mtime_ns", "blake2b"}  # what a line of the journal says of a tar
LONGEST_NAME = 100  # bytes in a tar's header; a longer one takes blocks of its own
LOOKED_AT = 1000  # files between two words of progress

Progress = Callable[[str, int, int], None]  # (what is done, of it so far, all of it), from the calling thread


class TarPart(NamedTuple):
    """One tar: the images [first, last) of a split's folder."""

    split: str  # the name of its folder: "train", "val", ...; "" where there are no splits
    number: int  # in its split
    first: int
    last: int
    size: int  # bytes

    @property
    def name(self) -> str:
        return os.path.join(self.split, f"shard-{self.number:06d}.tar")


@dataclass(eq=False)
class Split:
    """One folder of images, and the labels of its first-level sub-folders."""

    folder: str
    index: FolderIndex
    classes: tuple[str, ...] | None
    labels: np.ndarray | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.labels = labels_of(self.index, self.classes)

    def images(self, first: int, last: int) -> Iterator[tuple[bytes, bytes, bytes]]:
        """(file, key, extension) of each."""
        for position in range(first, last):
            path = self.index.path(position)
            yield os.path.join(os.fsencode(self.folder), path), *escaped(path, self._is_twin(position, path))

    def _is_twin(self, position: int, path: bytes) -> bool:
        """Whether an image before it has its name, with another suffix: names that begin alike lie side by side."""
        stem = path.rpartition(b".")[0]
        while position and (before := self.index.path(position - 1)).startswith(stem + b"."):
            if before.rpartition(b".")[0] == stem:
                return True
            position -= 1
        return False


def convert(
    source: str | Path,
    out: str | Path,
    *,
    size_mb: float = 1000,
    labels: str = "auto",
    splits: str = "auto",
    threads: int = 8,
    progress: Progress = lambda stage, done, of: None,
) -> dict[str, Any]:
    """Write the images of the folder `source` as tars of about `size_mb` MB into `out`, or go on doing so.

    labels, splits: as of data=image_folder. Returns {"images", "shards", "bytes", "kept" (shards that were there),
    "classes", "not_read" (suffix -> how many pictures are left where they are)}. Raises InputError where something else
    lies in `out`, somebody else writes there, an image cannot be read, or `out` cannot be written, as on a full disk;
    what is finished then stays.
    """
    root, target = absolute(source), Path(absolute(out))
    found = _splits(root, target, labels, splits)
    try:
        with _lock(target):
            parts = _planned(target, found, size_mb, labels, threads, progress)
            done = _finished(target / STATE / "done.jsonl")
            kept = [part for part in parts if _is_kept(target / part.name, done.get((part.split, part.number)))]
            todo = sorted(set(parts) - set(kept))
            _write(target, found, parts, todo, threads, progress)
        total = sum((target / part.name).stat().st_size for part in parts)
    except NotOurs as error:
        raise InputError.of("OUT", target, str(error), "or give another folder") from None
    except OSError as error:  # of a write, it names no file
        reason = f"cannot go on there ({error.strerror or error})"
        raise InputError.of("OUT", target, reason, "mend that, and start it again: what is finished stays") from None
    classes = next(iter(found.values())).classes
    counts = {"images": sum(len(split.index) for split in found.values()), "shards": len(parts), "bytes": total}
    left = dict(sum((Counter(split.index.left) for split in found.values()), Counter()))
    return {**counts, "kept": len(kept), "classes": classes and len(classes), "not_read": left}


# -- what goes where ---------------------------------------------------------------------------------------------------


def _splits(root: str, target: Path, labels: str, chosen: str) -> dict[str, Split]:
    if not os.path.isdir(root):
        raise InputError.of("FOLDER", root, "there is no such folder", "give a folder of images")
    for inner, outer, what in ((target, root, "lies in FOLDER"), (Path(root), target, "holds FOLDER")):
        if inner.resolve().is_relative_to(Path(outer).resolve()):
            raise InputError.of("OUT", target, f"it {what}", "give a folder beside it")
    train, test = split_folders(root, chosen)
    if test is None and chosen == "auto":
        refuse_hidden_splits(train, field="FOLDER", value=root, none="--splits none")
    try:
        index = open_index(train)
        classes = classes_of(index, train, labels, "--labels")
        if test is None:
            splits = {"": Split(train, index, classes)}
        else:
            theirs = open_index(test)
            known = classes and known_classes(theirs, test, classes, "--labels")
            splits = {"train": Split(train, index, classes), os.path.basename(test): Split(test, theirs, known)}
    except InputError as error:  # of a run's data, `data.path` is the folder
        raise error if error.field == "--labels" else error.about("FOLDER") from None
    for split in splits.values():
        if not len(split.index):
            raise InputError.of("FOLDER", split.folder, "no image found", "give a folder of images")
    return splits


def _planned(
    target: Path, splits: dict[str, Split], size_mb: float, labels: str, threads: int, progress: Progress
) -> list[TarPart]:
    """The tars of this conversion: as planned before, or by the sizes of the images now."""
    names = hashlib.sha256()
    for name, split in splits.items():
        names.update(json.dumps([name, len(split.index), split.classes]).encode())
        names.update(split.index.blob)
    given = {"format": FORMAT, "images": names.hexdigest(), "size_mb": size_mb, "labels": labels}
    file = target / STATE / "plan.json"
    with contextlib.suppress(FileNotFoundError):
        found = read_json(file)
        for key, value in given.items():
            if found.get(key) != value:
                what = f"a conversion with {key}={found.get(key)}"
                if key == "images":
                    what = "shards of other images, or FOLDER has changed since they were begun"
                raise InputError.of("OUT", target, f"it holds {what}", "give another folder, or the same again")
        return _parts(file, found.get("tars"), splits)
    total, before, parts = sum(len(split.index) for split in splits.values()), 0, []
    for name, split in splits.items():
        parts += _cut(
            name, split, size_mb * 1e6, threads, lambda n, m=before: progress("images measured", m + n, total)
        )
        before += len(split.index)
    write_json(file, {**given, "tars": parts})
    return parts


def _parts(file: Path, tars: Any, splits: dict[str, Split]) -> list[TarPart]:
    """The tars of a plan: those of each split, in turn, hold all of its images. Raises NotOurs for any other list."""
    with contextlib.suppress(TypeError, ValueError):
        parts, ends = [TarPart(*part) for part in tars], {name: (0, 0) for name in splits}
        for part in parts:
            whole = all(type(number) is int for number in part[1:])
            if not whole or (part.number, part.first) != ends.get(part.split) or part.last < part.first:
                raise ValueError
            ends[part.split] = (part.number + 1, part.last)
        if all(ends[name][1] == len(split.index) for name, split in splits.items()):
            return parts
    raise NotOurs(f"{file}: it is no plan of a conversion; delete {file.parent}, and all tars are made again")


def _cut(name: str, split: Split, limit: float, threads: int, progress: Callable[[int], None]) -> list[TarPart]:
    parts, first, size = [], 0, 0
    with ThreadPoolExecutor(threads) as pool:
        for begin in range(0, len(split.index), LOOKED_AT):
            end = min(begin + LOOKED_AT, len(split.index))
            images = list(split.images(begin, end))
            for position, (_, key, extension), content in zip(
                range(begin, end), images, pool.map(_size, [image[0] for image in images]), strict=True
            ):
                more = _blocks(len(key) + 1 + len(extension), content)
                if split.labels is not None:
                    more += _blocks(len(key) + 4, len(str(split.labels[position])))
                if size + more > limit and position > first:
                    parts.append(TarPart(name, len(parts), first, position, size))
                    first, size = position, 0
                size += more
            progress(end)
    return [*parts, TarPart(name, len(parts), first, len(split.index), size)]


def _size(file: bytes) -> int:
    try:
        return os.stat(file).st_size
    except OSError as error:
        raise _unreadable(file, error) from None


def _blocks(name: int, content: int) -> int:
    """Bytes that a member takes."""
    longer = 2 * BLOCK + (name // BLOCK) * BLOCK if name > LONGEST_NAME else 0
    return longer + BLOCK + content + -content % BLOCK


# -- writing -----------------------------------------------------------------------------------------------------------


def _write(
    target: Path, splits: dict[str, Split], parts: list[TarPart], todo: list[TarPart], threads: int, progress: Progress
) -> None:
    needed = sum(part.size + tarfile.RECORDSIZE for part in todo)
    free = shutil.disk_usage(target).free
    if needed > free:
        reason = f"the shards take {needed / 1e9:.1f} GB more, and {free / 1e9:.1f} GB are free"
        raise InputError.of("OUT", target, reason, "give a folder on another disk, or make room")
    classes = next(iter(splits.values())).classes
    if classes is not None:
        write_json(target / CLASSES, classes, by_umask=True)
    total, sizes = sum(part.size for part in parts), dict.fromkeys(todo, 0)
    before = total - sum(part.size for part in todo)
    stop, turn = threading.Event(), threading.Lock()
    for split in sorted({part.split for part in parts}):
        if split:
            own_folder(target / split, 0o777)
        for leftover in (target / split).glob(".shard-*.tar.*"):  # of one that was killed
            leftover.unlink()

    def work(part: TarPart) -> None:
        done = _tar(target / part.name, part, splits[part.split], sizes, stop)
        with turn:
            append(target / STATE / "done.jsonl", json.dumps(done).encode() + b"\n")

    with ThreadPoolExecutor(threads) as pool:
        pending = {pool.submit(work, part) for part in todo}
        try:
            while pending:
                finished, pending = wait(pending, timeout=0.2, return_when="FIRST_COMPLETED")
                for each in finished:
                    each.result()
                progress("bytes written", min(total, before + sum(sizes.values())), total)
        except BaseException as error:
            stop.set()
            pool.shutdown(cancel_futures=True)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                there = sum((target / part.name).exists() for part in parts)
                reason = f"the disk is full; {there} of {len(parts)} shards are finished and stay"
                raise InputError.of("OUT", target, reason, "make room, and start it again") from None
            raise


def _tar(file: Path, part: TarPart, split: Split, sizes: dict[TarPart, int], stop: threading.Event) -> dict[str, Any]:
    """Write one tar beside and rename it; what the journal is to say of it."""
    digest = hashlib.blake2b(digest_size=16)
    with replacing(file, by_umask=True) as out:

        def put(*pieces: bytes) -> None:
            for piece in pieces:
                out.write(piece)
                digest.update(piece)
                sizes[part] += len(piece)

        for position, (image, key, extension) in enumerate(split.images(part.first, part.last), part.first):
            if stop.is_set():
                raise InterruptedError("another thread failed")
            if split.labels is not None:  # first: a tar that is cut short has no image without its label
                put(*_member(key + b".cls", str(split.labels[position]).encode()))
            put(*_member(key + b"." + extension, _content(image)))
        end = 2 * BLOCK
        put(bytes(end + -(out.tell() + end) % tarfile.RECORDSIZE))
    status = file.stat()
    place = {"split": part.split, "number": part.number}
    return {**place, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "blake2b": digest.hexdigest()}


def _member(name: bytes, content: bytes) -> tuple[bytes, ...]:
    """Nothing of it depends on who writes it and when."""
    info = tarfile.TarInfo(os.fsdecode(name))
    info.size, info.mode = len(content), 0o644
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"), content, bytes(-len(content) % BLOCK)


def _content(file: bytes) -> bytes:
    try:
        with open(file, "rb", buffering=0) as stream:
            return stream.readall()
    except OSError as error:
        raise _unreadable(file, error) from None


def _unreadable(file: bytes, error: OSError) -> InputError:
    fix = "make it readable, or put an empty file there, which counts as a broken image; then start again"
    return InputError.of("FOLDER", printable(file), f"cannot be read ({error.strerror})", fix)


# -- what is there -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _lock(target: Path) -> Iterator[None]:
    """Be the one who writes into `target`, a folder that is empty or holds a conversion."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        if not (target / STATE).is_dir() and any(target.iterdir()):
            raise InputError.of("OUT", target, "it holds something else", "give a folder that is empty or not there")
        own_folder(target / STATE)
        lock = open(opened(target / STATE / "lock", os.O_RDWR | os.O_CREAT), "rb")  # noqa: SIM115
    except OSError as error:
        raise InputError.of("OUT", target, f"cannot write there ({error.strerror})", "give another folder") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fix = "wait for it, or stop it"
            raise InputError.of("OUT", target, "another process converts into it", fix) from None
        except OSError as error:
            reason = f"no file locks there ({error.strerror})"
            raise InputError.of("OUT", target, reason, "give a folder on another file system") from None
        yield


def _is_kept(file: Path, done: dict[str, Any] | None) -> bool:
    """Whether a tar is as it was when it was finished: the user's, untouched since, or else with the same content."""
    if done is None:
        return False
    with contextlib.suppress(OSError, NotOurs), open(opened(file), "rb") as stream:
        status = os.fstat(stream.fileno())
        if status.st_size != done["bytes"]:
            return False
        with contextlib.suppress(NotOurs):
            refuse_not_ours(file, status)
            if status.st_mtime_ns == done["mtime_ns"]:
                return True
        digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16))
        return digest.hexdigest() == done["blake2b"]
    return False


def _finished(file: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """(split, number) of a tar -> what the journal says of it."""
    done: dict[tuple[str, int], dict[str, Any]] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in read(file).splitlines():
            told = object_in(line) or {}  # none: the one that was being written when it was killed
            if told.keys() >= DONE and isinstance(told["number"], int):
                done[str(told["split"]), told["number"]] = told
    return done
