"""Work that no checkpoint holds yet: what happens between two steps for minutes or hours, kept so that it can go on.

    <run>/features/step_00000400/
        key.json                                                what the work starts from
        features.0000002048-0000004096.XXH3.safetensors         items 2048 to 4095 of `features`: one a sample
        super-clusters.0000000003-0000000004.XXH3.safetensors   the state of `super-clusters` after iteration 3
    <run>/features/step_00000400-002/                           another work at the same step: the second of its parts

A file's name holds the sum of its content (run/manifest.py): one rename commits it, and one that is truncated or
damaged is found when it is read, and deleted. Reading executes no code. The folder goes as soon as a checkpoint of a
later step is committed: that one holds what the work was for.
"""

import contextlib
import errno
import json
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from launcher.run import waiting
from launcher.run.files import NotOurs, inside, names, read_json, sweep, write_json
from launcher.run.folder import RunDir
from launcher.run.manifest import checked
from launcher.runtime import shard
from launcher.runtime.dist import World

FOLDER = "features"
OWNER = "kept"  # of the tensors in a file; see shard.read
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Item(NamedTuple):
    """Items `first` to `last` - 1 of one name, in one file."""

    first: int
    last: int
    path: Path


class Store:
    """One rank's access to the folder; `folder` None keeps nothing. A disk that refuses ends the keeping on all ranks,
    and not the work.

    every_s: seconds of work that a kill may cost; `due` tells when they are over. show: see waiting.patiently.
    """

    def __init__(self, folder: Path | None, *, every_s: float, show: Callable[[str], None] | None = None):
        self._folder, self._every_s, self._show = folder, every_s, show
        self._noted: dict[str, tuple[float, int, Mapping[str, torch.Tensor], Mapping[str, Any]]] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="keep") if folder else None
        self._writing: Future | None = None
        self._kept_at = self._written_at = time.monotonic()
        self.trouble = ""  # why nothing is kept any more
        self.resumed: dict[str, int] = {}  # name of a state -> the iteration in which it went on
        self.figures: dict[str, Any] = {}  # what the work has to say of itself

    @property
    def active(self) -> bool:
        return self._folder is not None and not self.trouble

    @property
    def unkept_s(self) -> float:
        """Seconds since the newest work that is on disk, as this rank knows."""
        return time.monotonic() - self._kept_at

    def due(self) -> bool:
        """Is it time to write what was done?"""
        return self.active and time.monotonic() - self._written_at >= self._every_s

    # -- items: each rank its own ----------------------------------------------------------------------------------

    def keep(
        self,
        name: str,
        first: int,
        last: int,
        tensors: Mapping[str, torch.Tensor],
        values: Mapping[str, Any],
        *,
        at: float | None = None,
    ) -> None:
        """Write items [first, last) of `name` in the background, once those before are written.

        tensors: contiguous, on the CPU, unchanged until `wait` or the next `keep`. values: JSON. at: the moment at
        which they were complete, on the monotonic clock; now by default.
        """
        self.wait()
        if self.active:
            now = self._written_at = time.monotonic()
            file = f"{name}.{first:010d}-{last:010d}"
            self._writing = self._thread.submit(self._write, file, tensors, values, now if at is None else at)

    def wait(self) -> None:
        """Until what was given is written."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except OSError as error:
            self.trouble = error.strerror or str(error)
            self._noted.clear()
            print(f"{FOLDER}: nothing is kept any more: {self.trouble}", flush=True)
            if error.errno in NO_ROOM:
                remove(self._folder)  # what is short of room now are the checkpoints; the other ranks meet the same

    def items(self, name: str) -> list[Item]:
        """What is there, by its first item. Whether it is sound shows when it is read. Raises Unreadable."""
        found = []
        for file in waiting.patiently(partial(names, self._folder), self._show) if self._folder else ():
            if file.startswith(f"{name}.") and file.endswith(".safetensors"):
                first, _, last = file.split(".")[-3].partition("-")
                found.append(Item(int(first), int(last), self._folder / file))
        return sorted(found)

    def read(self, item: Item) -> dict[str, Any] | None:
        """The tensors and values of an item; None where its file is not what was written: then it is deleted. Raises
        Unreadable."""

        def read() -> dict[str, Any] | None:
            entry = {shard.KIND: item.path.name.split(".")[-2]}
            return shard.read(item.path)[OWNER] if checked(item.path, entry) == entry else None

        try:
            found = waiting.patiently(read, self._show)
            if found is None:
                item.path.unlink()
                print(f"{FOLDER}: {item.path.name} is damaged: it is made again", flush=True)
            return found
        except OSError as error:
            print(f"{FOLDER}: {item.path.name}: {error.strerror or error}", flush=True)
        return None

    def _write(self, name: str, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any], at: float) -> None:
        beside = self._folder / f".writing-{uuid.uuid4().hex}"
        tensors = {f"{OWNER}/{key}": value for key, value in tensors.items()}
        values = {f"{OWNER}/{key}": value for key, value in values.items()}
        try:
            entry, _ = shard.write(beside, tensors, values, abandon=lambda: False)
            shard.read_back(beside, entry, abandon=lambda: False)
            beside.rename(self._folder / f"{name}.{entry[shard.KIND]}.safetensors")
        finally:
            beside.unlink(missing_ok=True)
        self._kept_at = max(self._kept_at, at)

    # -- states: one rank's word for all -----------------------------------------------------------------------------

    def slot(self, name: str) -> "StoreSlot":
        """Where one state is kept that replaces itself."""
        return StoreSlot(self, name)

    def note(self, name: str, number: int, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        """The state of `name` after iteration `number`; written when it is due, with those of other names."""
        if self.active:
            self._noted[name] = time.monotonic(), number, tensors, values
            if self.due():
                self.flush()

    def flush(self) -> None:
        """Write every state that was noted, now; and wait."""
        noted, self._noted = self._noted, {}
        for name, (at, number, tensors, values) in noted.items():
            older = self.items(name)
            tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
            self.keep(name, number, number + 1, tensors, values, at=at)
            self.wait()
            for item in older if self.active else ():
                if item.first < number:
                    item.path.unlink(missing_ok=True)
        self.wait()

    def close(self) -> None:
        """Wait for what is being written; nothing is kept from now on."""
        self.wait()
        if self._thread:
            self._thread.shutdown()
        self._folder = self._thread = None


class StoreSlot:
    """One name of a store, as `launcher.kmeans` wants it."""

    def __init__(self, store: Store, name: str):
        self._store, self._name = store, name

    def load(self) -> tuple[int, dict[str, Any]] | None:
        """(iteration, tensors and values) of the newest sound state; None where there is none."""
        for item in reversed(self._store.items(self._name)):
            found = self._store.read(item)
            if found is not None:
                self._store.resumed[self._name] = item.first
                print(f"{self._name}: goes on in iteration {item.first}", flush=True)
                return item.first, found
        return None

    def note(self, number: int, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        """The state after iteration `number`. The tensors are not changed any more."""
        self._store.note(self._name, number, tensors, values)


def open_store(
    run: RunDir,
    world: World,
    step: int,
    key: Callable[[], Mapping[str, Any]],
    *,
    needed: int,
    reserve: int,
    every_s: float | None,
    part: int | None = None,
    show: Callable[[str], None] | None = None,
) -> tuple[Store, str]:
    """(the store of the work at `step`, why it starts empty or keeps nothing). Collective; rank 0 decides for all.
    part: which of several works at this step, each in a folder of its own.

    key: called on rank 0, what the work starts from: JSON; what was kept from another start goes. needed: bytes that
    the store will take, reserve: that must stay free beside it. every_s: None keeps nothing.
    show: see waiting.patiently. Raises Unreadable, on rank 0.
    """
    folder = run.path / FOLDER / (f"step_{step:08d}" if part is None else f"step_{step:08d}-{part:03d}")
    decided = None
    if world.is_main:
        if every_s is None:
            decided = False, "as it was asked"
            remove(folder)
        else:
            made_from = dict(key())
            why = waiting.patiently(lambda: _differs(folder, made_from), show)
            decided = _prepare(folder, made_from, why, needed, reserve)
    keeps, why = world.broadcast(decided)
    return Store(folder if keeps else None, every_s=every_s or 0.0, show=show), why


def _prepare(folder: Path, key: dict[str, Any], why: str, needed: int, reserve: int) -> tuple[bool, str]:
    """(whether work is kept there, the reason against what lies there already or against keeping any). That goes where
    it is of no use, or takes room that is short; what cannot be reached stays."""
    try:
        folder.parent.mkdir(exist_ok=True)
        with inside(folder.parent):  # in a link's place nothing is kept: what lies behind it cannot be put right
            pass
        if why:
            remove(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".writing-*"):
            leftover.unlink()
        there = sum(path.stat().st_size for path in folder.iterdir())
        free = shutil.disk_usage(folder).free
        if free + there < needed + reserve:
            remove(folder)
            takes = f"it takes {(needed + reserve) / 1e9:.2f} GB with room for the next checkpoints"
            return False, f"the disk is too small: {takes}, {(free + there) / 1e9:.2f} are free"
        write_json(folder / "key.json", key)
    except NotOurs as error:
        return False, str(error)
    except OSError as error:
        if error.errno in NO_ROOM:
            remove(folder)
        return False, error.strerror or str(error)
    return True, why


def _differs(folder: Path, key: dict[str, Any]) -> str:
    """Why what lies there is of no use; empty when it is, or when nothing does. Raises OSError where it cannot be
    read."""
    if not names(folder):
        return ""
    try:
        found = read_json(folder / "key.json")
    except (FileNotFoundError, ValueError):
        return "what it was made from is unknown"
    changed = sorted(name for name in {*found, *key} if found.get(name) != json.loads(json.dumps(key)).get(name))
    return f"it was made from other {', '.join(changed)}" if changed else ""


def discard(run: RunDir, *, before: int) -> None:
    """Delete the stores of steps before `before`: a checkpoint of that step holds what they were for."""
    for folder in (run.path / FOLDER).glob("step_*"):
        if folder.name < f"step_{before:08d}":
            remove(folder)
    for folder in (run.path / FOLDER).glob(".gone-*"):
        sweep(folder)


def remove(folder: Path) -> None:
    """Out of sight by one rename, then gone: half a store must not be taken for a whole one."""
    sweep(folder, under=f".gone-{folder.name}-{uuid.uuid4().hex[:8]}")
    with contextlib.suppress(OSError):
        folder.parent.rmdir()
