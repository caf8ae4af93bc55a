"""Checkpoints: folders of safetensors and one JSON manifest, committed by one rename, never half-seen.

    checkpoints/step_00000300/
        manifest.json              step, digest, and for each file its size and sha256
        shared.safetensors         what is equal on every rank; written by rank 0
        group_003.safetensors ...  what a group or a rank owns; written by one rank that holds it

Whatever changes during training is registered under a name with `state()` and `load_state()`. Tensors go into the file
as they are, other JSON values into its header. Reading one executes no code.
"""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save

from launcher.errors import RunFailed
from launcher.manifest import digest, sha256, verify
from launcher.rundir import RunDir, read_json
from launcher.runtime.dist import World

SHARED = "shared"


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


class Registry:
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
    """Saves and restores a Registry in a run's folder. Every method is collective."""

    def __init__(self, run: RunDir, world: World, registry: Registry, *, keep: int, generation: int):
        self._run, self._world, self._registry = run, world, registry
        self._folder = run.path / "checkpoints"
        self._keep, self._generation = keep, generation

    def save(self, step: int, steps: int) -> Path:
        """Commit the registered state as that of `step`. Raises SaveFailed, on all ranks alike, and leaves no trace."""
        target = self._folder / f"step_{step:08d}"
        if self._world.broadcast(target.exists()):
            return target
        beside = Path(self._world.broadcast(str(self._folder / f".saving-{step:08d}-{uuid.uuid4().hex[:8]}")))
        written: dict[str, Any] = {}
        reason = ""
        if self._world.is_main:
            try:
                beside.mkdir()
            except OSError as error:
                reason = f"rank 0: {error.strerror or error}"
        reason = self._world.broadcast(reason)
        if reason:
            raise SaveFailed(reason)
        try:
            for shard, entries in sorted(self._registry.shards().items()):
                if any(entry.writes for entry in entries.values()):
                    written[f"{shard}.safetensors"] = _write(beside / f"{shard}.safetensors", entries)
        except OSError as error:
            reason = f"rank {self._world.rank}: {error.strerror or error}"
        reports = self._world.gather((reason, written))
        files = {name: entry for _, part in reports for name, entry in part.items()}
        reason = "; ".join(text for text, _ in reports if text)
        if self._world.is_main and not reason:
            try:
                _commit(beside, target, {"step": step, "steps": steps, "generation": self._generation, "files": files})
            except OSError as error:
                reason = f"rank 0: {error.strerror or error}"
        reason = self._world.broadcast(reason)
        if self._world.is_main:
            shutil.rmtree(beside, ignore_errors=True)  # gone already when it was committed
        if reason:
            raise SaveFailed(reason)
        if self._world.is_main:
            self._prune()
        return target

    def restore(self) -> int:
        """Load the newest intact checkpoint on every rank and return its step; 0 where none was ever committed.

        A broken one is set aside before any state is touched. Raises RunFailed when there are some and all are broken.
        """
        found: Any = None
        if self._world.is_main:
            found = self._newest_intact()
        found = self._world.broadcast(found)
        if isinstance(found, str):
            raise RunFailed(found)
        if found is None:
            return 0
        step, path = found
        for shard, entries in self._registry.shards().items():
            stored = _read(Path(path) / f"{shard}.safetensors")
            for name, entry in entries.items():
                entry.owner.load_state(stored.get(name, {}))
        return step

    def last(self) -> Path | None:
        """The newest committed checkpoint."""
        return next(reversed(self._run.checkpoints()), None)

    def _newest_intact(self) -> Any:
        for leftover in self._folder.glob(".saving-*"):  # of a life that was killed while it saved
            shutil.rmtree(leftover, ignore_errors=True)
        saved = self._run.checkpoints()
        for path in reversed(saved):
            broken = verify(path)
            if not broken:
                return read_json(path / "manifest.json")["step"], str(path)
            aside = path.with_name(f"broken-{path.name}-{uuid.uuid4().hex[:4]}")
            path.rename(aside)
            print(f"checkpoint {path.name} is set aside as {aside.name}: {broken}", flush=True)
        if saved or any(self._folder.glob("broken-step_*")):  # never start over in silence
            where = f"they are broken-* in {self._folder}; delete these to begin anew"
            return f"no checkpoint of {self._run.id} can be read; {where}"
        return None

    def _prune(self) -> None:
        """Delete all but the newest `keep`; they are older than the one that was verified a moment ago."""
        for path in self._run.checkpoints()[: -self._keep]:
            doomed = path.with_name(f".saving-pruned-{path.name}")
            with contextlib.suppress(OSError):
                path.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)


def load_tensors(path: Path, owner: str, shard: str = SHARED) -> dict[str, torch.Tensor]:
    """The tensors that `owner` saved in the checkpoint at `path`."""
    state = _read(path / f"{shard}.safetensors").get(owner, {})
    return {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}


def _write(path: Path, entries: Mapping[str, _Entry]) -> dict[str, Any]:
    """Write one shard to the disk, read it back, and return its entry of the manifest."""
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, Any] = {}
    for name, entry in entries.items():
        for key, value in entry.owner.state().items():
            if isinstance(value, torch.Tensor):
                tensors[f"{name}/{key}"] = value.detach().cpu().contiguous()
            else:
                values[f"{name}/{key}"] = value
    content = save(tensors, metadata={"values": json.dumps(values, sort_keys=True)})
    expected = hashlib.sha256(content).hexdigest()
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if sha256(path) != expected:
        raise OSError(f"{path.name} reads back otherwise than it was written")
    return {"size": len(content), "sha256": expected}


def _commit(beside: Path, target: Path, manifest: dict[str, Any]) -> None:
    manifest["digest"] = digest(manifest["files"])
    with (beside / "manifest.json").open("w") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(OSError):
        _sync(beside)
    beside.rename(target)
    with contextlib.suppress(OSError):  # it is committed; that the rename survives a power cut is a bonus
        _sync(target.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """owner -> {key: tensor or JSON value} of one shard."""
    state: dict[str, dict[str, Any]] = {}
    with safe_open(path, framework="pt") as file:
        items = [(key, file.get_tensor(key)) for key in file.keys()]  # noqa: SIM118 (not a dict)
        items += json.loads((file.metadata() or {}).get("values", "{}")).items()
    for key, value in items:
        owner, _, inner = key.partition("/")
        state.setdefault(owner, {})[inner] = value
    return state
