"""What a clustering says while it goes on: iteration, inertia, share reassigned, empty clusters, time left."""

import time
from collections.abc import Mapping
from typing import Any

import torch

from launcher.runtime.store import Slot, Store
from methods.job import Job

SAID_EVERY_S = 10.0  # between two words in the ledger that work is kept


class Progress:
    """The safe point and the slots that the engine is given, with an eye on what passes through them."""

    def __init__(self, job: Job, store: Store):
        self._job, self._store = job, store
        self._stage, self._done, self._began = "", 0, time.monotonic()
        self._names: list[str] = []
        self._kept, self._said = 0, 0.0

    def slot(self, name: str) -> "_Watched":
        """Where the engine keeps one state."""
        self._names.append(name)
        return _Watched(self._store.slot(name), self)

    def safe_point(self, stage: str, done: int, total: int) -> None:
        """Say how far it is; stop here, on every rank, if any rank was told to. Collective. Raises Stopped."""
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._first, self._done, self._began = stage, done, done, now
        elif done > self._done:
            self._done = done
            each = (now - self._began) / (done - self._first)
            self._job.reporter.progress(seconds_left=round(each * max(0, total - done), 1))
        self._job.reporter.progress(step=done, steps=total)
        self._job.heart.step = done
        self._job.safe_point(stage, done, total)

    def noted(self, values: Mapping[str, Any]) -> None:
        """A state after an iteration, as the engine keeps it; on rank 0."""
        inertia = list(values.get("inertia", ()))
        if not inertia:
            return
        figures = {"inertia": inertia[-1]}
        figures |= {name: values[name] for name in ("reassigned", "empty") if values.get(name) is not None}
        self._job.reporter.progress(**figures)
        self._job.reporter.log(len(inertia), **figures)
        print(f"{self._stage or 'k-means'}, iteration {len(inertia)}: {figures}", flush=True)
        self._tell_kept()

    def _tell_kept(self) -> None:
        """In the ledger: a run that gets on is started again however often it is killed."""
        now = time.monotonic()
        if now - self._said < SAID_EVERY_S or not self._store.active:
            return
        self._said = now
        kept = sum(max((item.first for item in self._store.items(name)), default=0) for name in self._names)
        if kept > self._kept:
            self._kept = kept
            self._job.ledger.write("checkpoint", step=kept, path="features")


class _Watched:
    """A slot of the store, and who wants to know what goes into it. On rank 0."""

    def __init__(self, slot: Slot, progress: Progress):
        self._slot, self._progress = slot, progress

    def load(self) -> tuple[int, dict[str, Any]] | None:
        return self._slot.load()

    def note(self, number: int, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        self._slot.note(number, tensors, values)
        self._progress.noted(values)
