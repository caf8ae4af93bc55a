"""Checkpoints: folders of safetensors and one JSON manifest, committed by one rename, never half-seen.

    checkpoints/step_00000300/
        manifest.json              step, digest, and for each file its size and sum
        shared.safetensors         what is equal on every rank; written by rank 0
        group_003.safetensors ...  what a group or a rank owns; written by one rank that holds it

Whatever changes during training is registered under a name with `state()` and `load_state()`. Tensors go into the file
as they are, other JSON values into its header. Reading one executes no code.

A periodic save is read back from the disk, or its server, and not from memory, before it is committed; older ones are
deleted only then. It gives way to all others that want a core or the disk. One in haste, which a kill follows, waits
for nothing but the disk: it is verified when it is read, and nothing is deleted for it. A file that would hold what it
held in the checkpoint before becomes a hard link of that one, which is read back as well; and is written anew after
LINKS of them, so that damage to one file takes few checkpoints with it.
"""

import contextlib
import json
import os
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from launcher.errors import Damaged, Superseded, Unreadable
from launcher.run import waiting
from launcher.run.files import names, sweep, sync_names, write_json
from launcher.run.folder import RunDir
from launcher.run.manifest import digest, read, verify
from launcher.runtime import shard, store
from launcher.runtime.dist import World

SHARED = "shared"
TAKEN_OVER = "taken over"
DROPPED = "dropped: the run was told to stop while it was being written"
LINKS = 3  # of one file in later checkpoints
WRITERS = 8  # files that a rank writes at once in haste: more than one disk or server may be behind them
LOWEST = 19  # the nicest that a thread can be
Shard = tuple[str, dict[str, torch.Tensor], dict[str, Any]]  # file, tensors, values


class Stateful(Protocol):
    """An owner of changing state. Values are tensors or JSON; `load_state` gets exactly what `state` gave."""

    def state(self) -> Mapping[str, Any]: ...

    def load_state(self, state: Mapping[str, Any]) -> None: ...


class SaveFailed(Exception):
    """A checkpoint could not be committed; what was there before stands. The text says why, on every rank."""


@dataclass(frozen=True)
class _Entry:
    owner: Stateful
    shard: str
    writes: bool


class Owners:
    """Every piece of changing state under its owner's name, and the file that it goes into."""

    def __init__(self, world: World):
        self._world = world
        self._entries: dict[str, _Entry] = {}

    def add(self, name: str, owner: Stateful, *, shard: str = SHARED, writes: bool | None = None) -> None:
        """Register `owner`. `shard`: its file, written by the rank that says `writes`; by default by rank 0."""
        if name in self._entries:
            raise ValueError(f"state {name!r} is registered twice")
        self._entries[name] = _Entry(owner, shard, self._world.is_main if writes is None else writes)

    def shards(self) -> dict[str, dict[str, _Entry]]:
        """shard -> {name: entry} of this rank."""
        shards: dict[str, dict[str, _Entry]] = {}
        for name, entry in self._entries.items():
            shards.setdefault(entry.shard, {})[name] = entry
        return shards


class Checkpointer:
    """Saves the state of its Owners in a run's folder, and restores it. Every method is collective.

    `begin` copies the state, and returns; a thread of every rank writes the copy, and the threads agree among
    themselves, over a group of their own, whether it is committed. `settle` waits for them.
    """

    def __init__(self, run: RunDir, world: World, owners: Owners, *, keep: int, generation: int):
        self._run, self._world, self._owners = run, world, owners
        self._behind = world.apart()  # for the threads
        self._folder = run.path / "checkpoints"
        self._keep, self._generation = keep, generation
        self._show = waiting.shown_by(run.path, generation) if world.is_main else None
        self._copies: dict[str, torch.Tensor] = {}
        self._elders: dict[str, shard.Elder] = {}  # this rank's files of the newest one that it has read back
        self._under_way: _Save | None = None
        # That the latest save took, from its copy until it was on the disk, but for what it waited to let others go on.
        self.seconds: float | None = None

    def save(self, step: int, steps: int) -> Path:
        """`begin` and `settle`. Raises SaveFailed, on all ranks alike, and leaves no trace."""
        self.begin(step, steps)
        return self.settle()

    def begin(self, step: int, steps: int, *, haste: bool = False) -> None:
        """Copy the registered state as that of `step` and start to write it. The one before must be settled.

        haste: a deadline is near. It is not read back before it is committed; no older one is deleted for it; and what
        is on the CPU is not copied: it must not change before `settle`.
        """
        assert self._under_way is None
        save = _Save(self._folder / f"step_{step:08d}", step, steps, haste)
        self._under_way = save
        there, save.reason = self._world.broadcast(self._there(save) if self._world.is_main else None)
        if there:  # where that cannot be told, the save fails, and says so
            return
        name = f".saving-{step:08d}-{uuid.uuid4().hex[:8]}"
        save.beside = Path(self._world.broadcast(str(self._folder / name)))
        shards = [self._copied(save, file, entries) for file, entries in sorted(self._owners.shards().items())]
        if self._world.device.type == "cuda":
            save.copied = torch.cuda.Event()
            save.copied.record()
        save.thread = threading.Thread(target=self._write, args=(save, [s for s in shards if s]), daemon=True)
        save.thread.start()

    def settle(self, *, drop: bool = False) -> Path | None:
        """Wait for the save under way and return its folder; None where there is none. Raises SaveFailed, or Superseded
        where the run has been started again meanwhile.

        drop: give it up unless every rank has written its part already.
        """
        save, self._under_way = self._under_way, None
        if save is None:
            return None
        if drop:
            save.dropped.set()
        if save.thread is not None:
            save.thread.join()
            self.seconds = save.seconds or self.seconds
        if save.reason.startswith(TAKEN_OVER):
            raise Superseded(save.reason)
        if save.reason:
            raise SaveFailed(save.reason)
        return save.target

    def _there(self, save: "_Save") -> tuple[bool, str]:
        """Whether that step is on the disk, and why it is not this start's to say so."""
        if not os.path.exists(save.target):
            return False, ""
        try:
            return True, self._taken_over(save)
        except (Unreadable, OSError) as error:
            return True, f"rank 0: {error}"

    def _taken_over(self, save: "_Save") -> str:
        """Whether this process stood still, and the run was started again since: a line. Raises Unreadable, OSError."""
        # The grace is too short to wait for a ledger that cannot be read.
        newest = (RunDir(self._run.path) if save.haste else self._run).generation()
        said = f"{TAKEN_OVER}: start {newest} of this run has begun, and this is start {self._generation}"
        return said if newest > self._generation else ""

    def _copied(self, save: "_Save", file: str, entries: Mapping[str, _Entry]) -> Shard | None:
        """(file, tensors, values) as they are now, where this rank writes any of them. Buffers are used again.

        From a GPU the copies are queued behind the steps so far, and before the next one: only the thread waits.
        """
        if not any(entry.writes for entry in entries.values()):
            return None
        tensors: dict[str, torch.Tensor] = {}
        values: dict[str, Any] = {}
        for name, entry in entries.items():
            for key, value in entry.owner.state().items():
                if not isinstance(value, torch.Tensor):
                    values[f"{name}/{key}"] = value
                elif save.haste and not value.is_cuda:
                    tensors[f"{name}/{key}"] = value.detach().contiguous()
                else:
                    tensors[f"{name}/{key}"] = self._copy(f"{file}/{name}/{key}", value)
        return file, tensors, json.loads(json.dumps(values))

    def _copy(self, name: str, value: torch.Tensor) -> torch.Tensor:
        copy = self._copies.get(name)
        if copy is None or (copy.shape, copy.dtype) != (value.shape, value.dtype):
            copy = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
            self._copies[name] = copy
        return copy.copy_(value.detach(), non_blocking=True)

    def _write(self, save: "_Save", shards: list[Shard]) -> None:
        """In the thread: write this rank's part, agree, and have rank 0 commit."""
        if not save.haste:
            _give_way()
        try:
            if save.copied is not None:
                save.copied.synchronize()
            save.reason = self._written_and_committed(save, shards)
        except Exception as error:  # a peer died; the main thread will meet the same
            save.reason = f"rank {self._world.rank}: {type(error).__name__}: {error}"

    def _written_and_committed(self, save: "_Save", shards: list[Shard]) -> str:
        world, reason = self._behind, ""
        if world.is_main:
            try:
                save.beside.mkdir()
            except OSError as error:
                reason = f"rank 0: {error.strerror or error}"
        reason = world.broadcast(reason)
        if reason:
            return reason
        mine: dict[str, shard.Elder] = {}
        try:
            mine = self._written(save, shards)
        except OSError as error:
            reason = f"rank {world.rank}: {error.strerror or error}"
        except shard.Abandoned:
            reason = DROPPED
        except Exception as error:  # the others wait for this rank's word, whatever it met
            reason = f"rank {world.rank}: {type(error).__name__}: {error}"
        reports = world.gather((reason, {name: file.entry for name, file in mine.items()}))
        files = {name: entry for _, part in reports for name, entry in part.items()}
        reason = "; ".join(dict.fromkeys(text for text, _ in reports if text))
        if world.is_main and not reason:
            reason = self._commit(save, files)
        reason = world.broadcast(reason)
        self._elders = {} if reason or save.haste else mine
        if world.is_main:
            shutil.rmtree(save.beside, ignore_errors=True)  # gone already when it was committed
            if not reason and not save.haste:
                self._prune()
                store.discard(self._run, before=save.step)
        return reason

    def _written(self, save: "_Save", shards: list[Shard]) -> dict[str, shard.Elder]:
        """This rank's files, as the next save may link them. Raises OSError, shard.Abandoned, and as `shard.write`."""

        def written(each: Shard) -> tuple[str, shard.Elder]:
            file, tensors, values = each
            name = f"{file}.safetensors"
            elder = self._elders.get(name) if not save.haste else None
            if elder and elder.links == LINKS:
                elder = None
            entry, linked = shard.write(save.beside / name, tensors, values, abandon=save.dropped.is_set, elder=elder)
            return name, shard.Elder(save.target / name, entry, elder.links + 1 if linked else 0)

        if save.haste:
            with ThreadPoolExecutor(WRITERS) as pool:
                files = dict(pool.map(written, shards))
        else:  # by this thread, of which it is known what it waited for
            files = dict(map(written, shards))
        save.seconds = time.monotonic() - save.begun - (0 if save.haste else _waited_for_a_core())
        for name, file in files.items() if not save.haste else ():
            if not file.links:
                shard.read_back(save.beside / name, file.entry, abandon=save.dropped.is_set)
        return files

    def _commit(self, save: "_Save", files: Mapping[str, Any]) -> str:
        """On rank 0; returns why it could not be, or nothing."""
        manifest = {"step": save.step, "steps": save.steps, "generation": self._generation, "files": files}
        try:
            if reason := self._taken_over(save):
                return reason
            write_json(save.beside / "manifest.json", {**manifest, "digest": digest(files)})
            sync_names(save.beside)
            save.beside.rename(save.target)
        except Unreadable as error:
            return f"rank 0: {error}"
        except OSError as error:
            return f"rank 0: {error.strerror or error}"
        sync_names(save.target.parent)
        return ""

    def restore(self) -> int:
        """Load the newest intact checkpoint on every rank and return its step; 0 where none was ever committed.

        A broken one is set aside before any state is touched. What cannot be read is waited for. Raises Damaged when
        there are some and all are broken, Unreadable where it is not known what they are.
        """
        step, path, wrong, said = self._world.broadcast(self._newest() if self._world.is_main else None)
        if wrong:
            raise (Unreadable if wrong == Unreadable.cause else Damaged)(said)
        if not path:
            return 0
        if self._world.is_main:
            store.discard(self._run, before=step)
        self.load(Path(path))
        return step

    def load(self, path: Path) -> None:
        """The state that the checkpoint at `path` holds, of this run or of one like it."""
        for file, entries in self._owners.shards().items():
            stored = waiting.patiently(partial(shard.read, path / f"{file}.safetensors"), self._show)
            for name, entry in entries.items():
                entry.owner.load_state(stored.get(name, {}))

    def strange(self, path: Path) -> str:
        """What the checkpoint at `path` holds that has no owner here, or where it lacks a file; empty where it fits.
        Collective."""
        shards = self._owners.shards()
        mine = [name for name, entries in shards.items() if any(entry.writes for entry in entries.values())]
        files = {f"{name}.safetensors" for each in self._world.gather(mine) for name in each}
        there = set(waiting.patiently(partial(read, path), self._show)["files"])
        problem = f"of its files only one has {min(files ^ there)}" if files != there else ""
        for name, entries in shards.items() if not problem else ():
            found = waiting.patiently(partial(shard.owners, path / f"{name}.safetensors"), self._show)
            left = sorted(found - entries.keys())
            problem = problem or (f"nothing here takes its {left[0]}" if left else "")
        return next(filter(None, self._world.gather(problem)), "")

    def last(self) -> Path | None:
        """The newest committed checkpoint, for the last word of a run: a save under way is waited for. Collective;
        raises Superseded as `settle`."""
        with contextlib.suppress(SaveFailed):
            self.settle()
        return next(reversed(self._run.checkpoints()), None)

    def _newest(self) -> tuple[int, str, str, str]:
        """(step, path) of the newest intact checkpoint, empty where there is none, and (cause, message) of an error."""
        try:
            found = waiting.patiently(self._newest_intact, self._show)
        except (Damaged, Unreadable) as error:
            return 0, "", error.cause, str(error)
        return (*found, "", "") if found else (0, "", "", "")

    def _newest_intact(self) -> tuple[int, str] | None:
        """Raises Damaged, and OSError where something cannot be read: that is neither set aside nor passed over."""
        there = names(self._folder)
        for name in there:
            if name.startswith(".saving-"):  # of a start that was killed while it saved
                sweep(self._folder / name)
        saved = self._run.checkpoints()
        for path in reversed(saved):
            broken = verify(path)
            if not broken:
                return read(path)["step"], str(path)
            aside = path.with_name(f"broken-{path.name}-{uuid.uuid4().hex[:4]}")
            path.rename(aside)
            print(f"checkpoint {path.name} is set aside as {aside.name}: {broken}", flush=True)
        if saved or any(name.startswith("broken-step_") for name in there):  # never start over in silence
            where = f"they are broken-* in {self._folder}; delete these to begin anew"
            raise Damaged(f"no checkpoint of {self._run.id} can be read; {where}")
        return None

    def _prune(self) -> None:
        """Delete all but the newest `keep`; they are older than the one that was verified a moment ago. Where these
        cannot be listed they stay: the save stands, on every rank."""
        with contextlib.suppress(OSError, Unreadable):
            for path in self._run.checkpoints()[: -self._keep]:
                sweep(path, under=f".saving-pruned-{path.name}")


def _give_way() -> None:
    """Of this thread, and of those that it starts: whoever else wants a core goes first, and also to a disk, as Linux
    takes that from it (ioprio_set(2)). It cannot be taken back without privileges: a save in haste has a new thread."""
    if sys.platform == "linux":  # elsewhere it is the process that is meant
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)


def _waited_for_a_core() -> float:
    """Seconds in which this thread could have run and others did. proc(5): schedstat."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    return 0.0


def load_tensors(path: Path, owner: str, file: str = SHARED) -> dict[str, torch.Tensor]:
    """The tensors that `owner` saved in the checkpoint at `path`."""
    state = shard.read(path / f"{file}.safetensors").get(owner, {})
    return {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}


@dataclass
class _Save:
    """One save under way."""

    target: Path
    step: int
    steps: int
    haste: bool
    beside: Path | None = None
    thread: threading.Thread | None = None
    copied: torch.cuda.Event | None = None  # from the GPU
    begun: float = field(default_factory=time.monotonic)
    seconds: float = 0.0  # until it was on the disk
    dropped: threading.Event = field(default_factory=threading.Event)
    reason: str = ""  # why it is not there; written by the thread
