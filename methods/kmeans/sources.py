"""Where the features of a clustering come from: shards in a folder, or the backbone of a run. Each rank holds a block
of neighbouring samples; the blocks of all ranks, in turn, are the data set, whatever the number of ranks."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from launcher.errors import InputError
from launcher.run import pins, waiting
from launcher.run.folder import RunDir
from launcher.runtime.dist import World
from launcher.runtime.store import Store
from launcher.spec.runspec import InitFrom, RunSpec
from methods import backbones
from methods.backbones.spec import BACKBONES
from methods.data import build
from methods.data.broken import probe
from methods.data.dataset import ImageDataset
from methods.engine.features import digest_of, extract
from methods.engine.initialise import load_backbone
from methods.engine.job import Job
from methods.kmeans.folder import FeatureFolder, Shard, scan

NUMPY = {"fp64": np.float64, "fp32": np.float32, "fp16": np.float16, "bf16": np.int16}  # numpy has no bf16: its bits
WRITTEN = 4096  # rows at a time
ASSEMBLED = "assembled"  # in a run's folder `features`


def open_source(run: RunDir, spec: RunSpec, world: World) -> "Source":
    """The source of a run. Collective; rank 0 looks first: it keeps an index that the others then read."""
    if spec.init_from is None:
        # One rank reads the headers of all shards: thousands of files, and 512 ranks.
        told = world.broadcast(_folder(spec).to_json() if world.is_main else None)
        return FolderSource(run, FeatureFolder.from_json(told))
    dataset = _dataset(spec) if world.is_main else None
    world.barrier()
    taken = waiting.patiently(lambda: pins.taken(run.path, "init_from", spec.init_from)) if world.is_main else None
    told = world.broadcast(taken and [taken.path, taken.digest])
    return RunSource(spec, dataset or _dataset(spec), InitFrom(*told))


class FolderSource:
    """Memory-mapped shards: of a block only what the engine works on is in memory. `dataset`: with a length, and with
    names of its samples; `labels`: int64 [N], of all samples, where they are known."""

    labels = None

    def __init__(self, run: RunDir, folder: FeatureFolder):
        self.dataset = folder
        self._scratch = run.path / "features" / ASSEMBLED

    def key(self) -> dict[str, Any]:
        """What the features depend on."""
        return {"features": self.dataset.content}

    def needed(self, d_centroids: int) -> int:
        """Bytes that the work takes on disk while it goes on. d_centroids: numbers of all centroids."""
        return 8 * d_centroids

    def features(self, job: Job, store: Store) -> tuple[torch.Tensor, np.ndarray]:
        """(this rank's features [n, d], the positions of their samples in the data set, int64 [n]). Collective."""
        folder, world = self.dataset, job.world
        first, last = (folder.rows * r // world.size for r in (world.rank, world.rank + 1))
        pieces = [mapped(shard, a, b) for shard, a, b in folder.pieces(first, last)]
        if not pieces:
            return mapped(folder.shards[0], 0, 0), np.empty(0, np.int64)
        if len(pieces) > 1:
            size = sum(piece.nbytes for piece in pieces)
            scratch = self._scratch / f"rank{world.rank}.bin"
            pieces = [torch.cat(pieces) if 4 * size < _free_memory() else _assembled(pieces, scratch)]
        return pieces[0], np.arange(first, last)

    def files(self) -> list[tuple[str, int, int]]:
        """(name, first, last sample) of what assignments are written of, a file each."""
        shards = self.dataset.shards
        ends = list(itertools.accumulate(shard.rows for shard in shards))
        return [(s.path.stem, end - s.rows, end) for s, end in zip(shards, ends, strict=True)]


class RunSource:
    """The backbone of a run, on images; else as `FolderSource`."""

    def __init__(self, spec: RunSpec, dataset: ImageDataset, weights: InitFrom):
        self._spec, self.dataset, self.labels, self._weights = spec, dataset, dataset.labels, weights

    def key(self) -> dict[str, Any]:
        return {"weights": self._weights.digest, "layer": self._spec.method.layer}

    def needed(self, d_centroids: int) -> int:
        d = BACKBONES[self._spec.method.backbone].feature_dim
        return 8 * d_centroids + 4 * len(self.dataset) * d

    def features(self, job: Job, store: Store) -> tuple[torch.Tensor, np.ndarray]:
        backbone = backbones.build(job.config.backbone, dropout=0.0)
        load_backbone(backbone, job)
        backbone = backbone.to(job.world.device).eval()
        if job.world.is_main:
            print(f"backbone of {self._weights.path}: {digest_of(backbone.state_dict())[:12]}", flush=True)
        encode = at_layer(backbone, self._spec.method.layer)
        return extract(job, self.dataset, encode, stage="features", store=store)

    def files(self) -> list[tuple[str, int, int]]:
        return [("images", 0, len(self.dataset))]


Source = FolderSource | RunSource


def at_layer(backbone: nn.Module, layer: str | None) -> Callable[[torch.Tensor], torch.Tensor]:
    """images uint8 [B, C, H, W] -> what the module called `layer` gives, [B, d] with all else flattened; None: the
    backbone's output. Raises InputError where there is no such module."""
    if layer is None:
        return backbone
    modules = {name.removeprefix("trunk."): module for name, module in backbone.named_modules() if name}
    if layer not in modules:
        known = ", ".join(name for name in modules if name.count(".") <= 1)
        raise InputError.of("layer", layer, "the backbone has no such module", f"it has: {known}")
    caught: list[torch.Tensor] = []
    modules[layer].register_forward_hook(lambda _module, _given, output: caught.append(output))

    def encode(images: torch.Tensor) -> torch.Tensor:
        caught.clear()
        backbone(images)
        return caught[-1].flatten(1)

    return encode


def mapped(shard: Shard, first: int, last: int) -> torch.Tensor:
    """Rows [first, last) of a shard, [n, d] in its dtype; read when they are looked at, and never written back."""
    rows, kind = last - first, np.dtype(NUMPY[shard.kind])
    if not rows:
        found = torch.from_numpy(np.empty((0, shard.dim), kind))
    else:
        offset = shard.offset + first * shard.dim * kind.itemsize
        array = np.memmap(shard.path, kind, mode="c", offset=offset, shape=(rows, shard.dim))
        found = torch.from_numpy(array)
    return found.view(torch.bfloat16) if shard.kind == "bf16" else found


def _assembled(pieces: list[torch.Tensor], target: Path) -> torch.Tensor:
    """One memory-mapped tensor of all pieces: the engine reads one, and memory cannot hold it. A file, made anew."""
    rows, (_, d) = sum(map(len, pieces)), pieces[0].shape
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            for piece in pieces:
                for rows in piece.split(WRITTEN):
                    file.write(rows.contiguous().view(torch.uint8).numpy().tobytes())
    except OSError as error:
        target.unlink(missing_ok=True)
        reason = f"its shards fit neither in memory nor, in one piece, in {target.parent} ({error.strerror})"
        raise InputError.of("features", target, reason, "use more nodes") from None
    whole = torch.from_file(str(target), shared=False, size=rows * d, dtype=pieces[0].dtype)
    return whole.view(rows, d)


def _free_memory() -> float:
    """Bytes that this rank may fill: its share of what the machine has left."""
    with open("/proc/meminfo") as file:
        available = next((int(line.split()[1]) for line in file if line.startswith("MemAvailable:")), 0)
    tasks = os.environ.get("SLURM_NTASKS_PER_NODE") or os.environ.get("WORLD_SIZE", "1")
    return 1024 * available / max(1, int(tasks))


def _folder(spec: RunSpec) -> FeatureFolder:
    found = waiting.patiently(lambda: scan(Path(spec.method.features)))
    if found.content != spec.method.content:
        reason = "its shards changed since this was submitted"
        raise InputError.of("features", spec.method.features, reason, "ask again: that is another clustering")
    return found


def _dataset(spec: RunSpec) -> ImageDataset:
    dataset = build(spec.data, "train")
    probe(dataset)
    return dataset
