"""Features of a whole dataset, each rank its block of neighbouring samples: the ranks in turn are the dataset in order,
whatever their number."""

import contextlib
import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from launcher.errors import Diverged
from launcher.runtime.preempt import Stopped
from launcher.runtime.store import Item, Store
from methods.augment.views import CentreView
from methods.data.dataset import ImageDataset
from methods.data.loader import Request
from methods.engine.job import Job

BATCH = 256  # images a forward pass without gradients
NAME = "features"  # in a store
LARGEST_FILE = 64 << 20  # bytes; a stop waits for one to be written
UNKNOWN, GOOD, BROKEN = range(3)  # what is known of a sample

Encode = Callable[[torch.Tensor], torch.Tensor]


class NotFinite(Diverged):
    """Features are no finite numbers: so are the weights of the backbone."""


@torch.no_grad()
def extract(
    job: Job, dataset: ImageDataset, encode: Encode, *, stage: str, store: Store | None = None
) -> tuple[torch.Tensor, np.ndarray]:
    """(features float32 [n, d] in host memory, sample ids int64 [n]) of this rank's block, in order, centre crops,
    broken images left out. `encode`: uint8 [B, C, H, W] on the device -> [B, d].

    store: where features go as they are made, and where those of an earlier start are found. Collective: raises Stopped
    between batches, after keeping what it has.
    """
    block = _Block(job, dataset, stage)
    try:
        _extract(job, dataset, encode, block, store or Store(None, every_s=0.0))
    except Stopped:
        block.tell(store)
        raise
    block.tell(store)
    return block.finished(encode)


def refuse_unless_finite(job: Job, features: torch.Tensor, stage: str) -> None:
    """features: of this rank [n, d]. Collective; raises NotFinite on all ranks where those of an image are no finite
    numbers on some rank: whatever is scored with them says nothing."""
    bad = sum(int((~rows.isfinite()).any(1).sum()) for rows in features.split(BATCH))
    bad, images = (sum(each) for each in zip(*job.world.gather((bad, len(features))), strict=True))
    if bad:
        raise NotFinite(f"{stage}: the features of {bad} of {images} images are not finite numbers; nothing is judged")


def digest_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 of their names and bits."""
    hasher = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        hasher.update(name.encode())
        hasher.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return hasher.hexdigest()


def _extract(job: Job, dataset: ImageDataset, encode: Encode, block: "_Block", store: Store) -> None:
    block.restore(store)
    missing = block.missing()
    todo = max(job.world.gather(len(missing)))  # all ranks meet at the same safe points
    requests = (Request(np.arange(*batch), 0, {}) for batch in missing)
    stream = job.load(CentreView.of(job.config, dataset), requests, dataset=dataset, drop=True)
    with contextlib.closing(stream), _Keeping(block, store) as keeping, job.autocast():
        for number in range(todo):
            block.safe_point(block.batches - todo + number)
            if number < len(missing):
                batch = next(stream)
                block.put(*missing[number], batch.ids.numpy(), encode, batch.images)
                keeping.note(*missing[number])
    block.safe_point(block.batches)


class _Block:
    """The samples of one rank, and what is known of them. Positions count from the block's first sample."""

    def __init__(self, job: Job, dataset: ImageDataset, stage: str):
        size, world = len(dataset), job.world
        self.job, self.dataset, self.stage = job, dataset, stage
        self.first, self.last = (size * rank // world.size for rank in (world.rank, world.rank + 1))
        self.batches = math.ceil(math.ceil(size / world.size) / BATCH)  # of the longest block
        self.known = np.full(self.last - self.first, UNKNOWN, np.uint8)
        self.features: torch.Tensor | None = None
        self.dtype = torch.float32  # that the encoder gave; float32 holds each of them exactly
        self.restored = self.made = 0  # samples

    def safe_point(self, done: int) -> None:
        self.job.safe_point(self.stage, done, self.batches)

    def restore(self, store: Store) -> None:
        """Take over what is sound of the files that touch the block. Collective; stops between two files."""
        items = store.items(NAME) if self.job.world.is_main else ()
        told = self.job.world.broadcast([(item.first, item.last, str(item.path)) for item in items])
        items = [Item(first, last, Path(path)) for first, last, path in told]
        mine = [item for item in items if item.first < self.last and item.last > self.first]
        for number in range(max(self.job.world.gather(len(mine)))):
            self.safe_point(0)
            found = store.read(mine[number]) if number < len(mine) else None
            if found is not None:
                self._take(mine[number], found["ids"].numpy(), found["features"])
        self.restored = int((self.known != UNKNOWN).sum())

    def _take(self, item: Item, ids: np.ndarray, features: torch.Tensor) -> None:
        self.dtype = features.dtype
        here = (ids >= self.first) & (ids < self.last)
        self.known[max(item.first - self.first, 0) : item.last - self.first] = BROKEN
        self._write(ids[here], features[torch.from_numpy(here)])

    def missing(self) -> list[tuple[int, int]]:
        """(first, last) sample of each batch of which something is unknown. They are always the same batches, because
        what a network makes of an image may depend, in rounding, on the size of its batch."""
        starts = range(0, len(self.known), BATCH)
        batches = [(self.first + s, self.first + min(s + BATCH, len(self.known))) for s in starts]
        return [(a, b) for a, b in batches if (self.known[a - self.first : b - self.first] == UNKNOWN).any()]

    def put(self, first: int, last: int, ids: np.ndarray, encode: Encode, images: torch.Tensor) -> None:
        """The images of samples [first, last) that could be decoded, and their `ids`."""
        self.known[first - self.first : last - self.first] = BROKEN
        self.made += last - first
        if len(ids):
            encoded = encode(images.to(self.job.world.device, non_blocking=True))
            self.dtype = encoded.dtype
            self._write(ids, encoded)

    def _write(self, ids: np.ndarray, features: torch.Tensor) -> None:
        if not len(ids):
            return
        if self.features is None:  # the whole block at once: a list to join would need the memory twice
            self.features = torch.empty(len(self.known), features.shape[1])
        positions = ids - self.first
        self.known[positions] = GOOD
        if positions[-1] - positions[0] == len(ids) - 1:  # none is broken
            self.features[positions[0] : positions[-1] + 1] = features
        else:
            self.features[torch.from_numpy(positions)] = features.float().cpu()

    def part(self, first: int, last: int) -> dict[str, torch.Tensor]:
        """What a file holds of samples [first, last)."""
        good = np.flatnonzero(self.known[first - self.first : last - self.first] == GOOD) + first
        if self.features is None:
            return {"ids": torch.from_numpy(good), "features": torch.empty(0, 0)}
        features = self.features[first - self.first : last - self.first]
        if len(good) < last - first:
            features = features[torch.from_numpy(good - first)]
        return {"ids": torch.from_numpy(good), "features": features.to(self.dtype)}

    def tell(self, store: Store | None) -> None:
        """How many images this start found, and how many it worked on, over all ranks. Collective."""
        if store is None:
            return
        restored, made = np.array(self.job.world.gather((self.restored, self.made))).sum(axis=0).tolist()
        store.figures |= {"images": len(self.dataset), "restored": restored, "extracted": made}
        if store.active and self.job.world.is_main:
            print(f"{self.stage}: {restored} images restored, {made} extracted", flush=True)

    def finished(self, encode: Encode) -> tuple[torch.Tensor, np.ndarray]:
        """(features, ids), broken images left out."""
        good = np.flatnonzero(self.known == GOOD)
        if self.features is None:  # a block without an image: but its d is wanted
            size, channels = self.job.config.image_size, self.dataset.channels
            blank = torch.zeros(1, channels, size, size, dtype=torch.uint8)
            with self.job.autocast():
                return encode(blank.to(self.job.world.device)).float().cpu()[:0], np.empty(0, np.int64)
        for start in range(0, len(good), BATCH) if len(good) < len(self.known) else ():
            rows = torch.from_numpy(good[start : start + BATCH])  # never before where they go
            self.features[start : start + len(rows)] = self.features[rows]
        return self.features[: len(good)], good + self.first


class _Keeping:
    """Writes what a block got to know, a file at a time: when it is due, when it is large, and before a stop."""

    def __init__(self, block: _Block, store: Store):
        self._block, self._store = block, store
        self._first = self._last = 0  # samples that are not given to the store yet

    def __enter__(self) -> "_Keeping":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None or issubclass(kind, Stopped):
            self._give()
        self._store.wait()  # the features change once they are complete

    def note(self, first: int, last: int) -> None:
        """Samples [first, last) are known now."""
        if first != self._last:
            self._give()
            self._first = first
        self._last = last
        features = self._block.features
        size = (last - self._first) * (features.shape[1] if features is not None else 0) * 4
        if size >= LARGEST_FILE or self._store.due():
            self._give()

    def _give(self) -> None:
        first, last, self._first = self._first, self._last, self._last
        if last > first and self._store.active:
            self._store.keep(NAME, first, last, self._block.part(first, last), {})
