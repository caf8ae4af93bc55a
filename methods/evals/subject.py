"""What a protocol judges: a backbone, labelled images, and the features of these, extracted once for all protocols."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from launcher.runtime.store import Item, Store
from methods.data.dataset import ImageDataset, tags_of
from methods.engine.features import Encode, extract, refuse_unless_finite
from methods.engine.job import Job
from methods.evals.spec import PROTOCOLS

KEEP_EVERY_S = 10.0  # seconds of work that a kill may cost
# What is kept of an evaluation on disk until it is done; a store has a number, of a step where there are any.
WORKS = ("train", "test", *(name + split for name in PROTOCOLS for split in ("", " train", " test")))


class Subject:
    """A backbone to be judged on the (train, test) images of `job.labelled`, frozen and on the device of its rank.

    weights: digest of where the backbone's weights come from; what is kept on disk depends on it. known: scores that
    the run has already, by protocol. step: of a run that trains on, where the work is kept until a later checkpoint;
    None: in an evaluation of its own. keeps: whether it is; not where one protocol alone is asked for, and is short.
    """

    def __init__(
        self,
        job: Job,
        backbone: nn.Module,
        weights: str,
        known: Mapping[str, Any] | None = None,
        *,
        step: int | None = None,
        keeps: bool = True,
    ):
        self.job, self.backbone, self.known = job, backbone.requires_grad_(False), known or {}
        self.weights, self.step, self.keeps = weights, step, keeps
        self.so_far: Callable[[Mapping[str, Any]], None] = lambda scores: None  # judge's: for rank 0 to tell
        self._made: dict[str, tuple[torch.Tensor, np.ndarray]] = {}

    @property
    def splits(self) -> dict[str, ImageDataset]:
        return dict(zip(("train", "test"), self.job.labelled, strict=True))

    @property
    def classes(self) -> int:
        return len(self.job.labelled[0].classes)

    def features(self, split: str, among: np.ndarray | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """(features float32 [n, d], labels int64 [n]) of this rank's block of `split`, centre crops, in host memory.
        Extracted once, whatever protocols ask for them; collective. among: of these positions in the data set alone."""
        if split not in self._made:
            self._made[split] = self.extracted(split, self.backbone, self.job.config.image_size)
        features, ids = self._made[split]
        if among is not None:
            kept = np.flatnonzero(np.isin(ids, among))
            features, ids = features[torch.from_numpy(kept)], ids[kept]
        return features, self.labels(split, ids)

    def let_go(self) -> None:
        """Of the features, where nothing is kept and so nobody asks for them again."""
        if not self.keeps:
            self._made.clear()

    def numbers(self, split: str) -> np.ndarray:
        """The number in the data set of each row that `features` gives this rank, int64 [n]."""
        return self._made[split][1]

    def extracted(
        self, split: str, encode: Encode, key: Any, *, work: str | None = None, width: int | None = None
    ) -> tuple[torch.Tensor, np.ndarray]:
        """(what `encode` makes of this rank's images [n, d], their ids), kept on disk as it is made, so that a start
        after a stop goes on. `key`: what else it depends on. Collective; raises Stopped, and Diverged where they are no
        finite numbers."""
        dataset, work = self.splits[split], work or split
        needed = 4 * len(dataset) * (width or self.backbone.feature_dim)
        with self.keeping(work, key, needed=needed) as store:
            features, ids = extract(self.job, dataset, encode, stage=f"features, {work}", store=store)
        refuse_unless_finite(self.job, features, f"features, {work}")
        return features, ids

    def labels(self, split: str, ids: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.splits[split].labels[ids]))

    def tags(self, split: str, ids: np.ndarray) -> torch.Tensor:
        """int8 [n, classes] of the samples `ids`: 1 there, -1 not there, 0 not counted. Where an image has one label,
        that class against all others."""
        dataset = self.splits[split]
        if (found := tags_of(dataset)) is None:
            found = np.where(dataset.labels[ids, None] == np.arange(self.classes), np.int8(1), np.int8(-1))
        else:
            found = found[ids]
        return torch.from_numpy(np.ascontiguousarray(found))

    def keeping(self, work: str, key: Any, *, needed: int) -> AbstractContextManager[Store]:
        """Where a protocol keeps its work until the evaluation is done. `key`: JSON, what it depends on beside the
        weights and the images; needed: bytes. Collective."""
        if not self.keeps:
            return nullcontext(Store(None, every_s=0.0))
        given = {"weights": self.weights, "work": [work, key], "size": self.job.config.image_size}
        number = WORKS.index(work)
        place = {"step": number} if self.step is None else {"step": self.step, "part": number}
        return self.job.keeping(key=lambda: given, needed=needed, every_s=KEEP_EVERY_S, **place)

    def restored(self, store: Store, name: str) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """(first, last, its tensors and values) of each item of `name` that an earlier start kept and that is sound;
        the ranks share the reading. Collective."""
        world = self.job.world
        told = world.broadcast([(i.first, i.last, str(i.path)) for i in store.items(name)] if world.is_main else [])
        for first, last, path in told[world.rank :: world.size]:
            found = store.read(Item(first, last, Path(path)))
            if found is not None:
                yield first, last, found

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks of a tensor on the device, in place. Collective."""
        if self.job.world.size > 1:
            torch.distributed.all_reduce(values)
        return values


def percent(right: Any, total: Any = 1) -> float:
    """A share in percent, as scores are written down."""
    return round(100 * float(right) / float(total), 2)
