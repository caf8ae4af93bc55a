"""What a clustering says while it goes on: iteration, inertia, share reassigned, empty clusters, share of comparisons
that bounds spared, time left."""

import time

from launcher.kmeans.lloyd import Iteration
from launcher.runtime.store import Store, StoreSlot
from methods.engine.job import Job

SAID_EVERY_S = 10.0  # between two words in the ledger that work is kept


class Progress:
    """The engine's safe point, its listener, and the slots that it keeps its state in."""

    def __init__(self, job: Job, store: Store):
        self._job, self._store = job, store
        self._stage, self._first, self._done, self._began = "k-means", 0, 0, time.monotonic()
        self._names: list[str] = []
        self._kept, self._said = 0, 0.0

    def slot(self, name: str) -> StoreSlot:
        """Where the engine keeps one state."""
        self._names.append(name)
        return self._store.slot(name)

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

    def iterated(self, told: Iteration) -> None:
        """After each iteration, on every rank; rank 0 speaks."""
        figures = {"inertia": told.inertia, "reassigned": round(told.reassigned, 6), "empty": told.empty}
        figures["skipped"] = round(told.skipped, 6)
        self._job.reporter.progress(**figures)
        self._job.reporter.log(told.number, **figures)
        if self._job.world.is_main:
            said = f"inertia {told.inertia:.6g}, {told.reassigned:.2%} reassigned, {told.empty} empty clusters"
            said += f", {told.skipped:.0%} skipped"
            print(f"{self._stage}, iteration {told.number}: {said}", flush=True)
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
