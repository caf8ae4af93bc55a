"""The work of minutes or hours between two steps, kept on disk so that a stop or a kill costs little of it."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from launcher.run import waiting
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.dist import World
from launcher.runtime.preempt import Stopped
from launcher.runtime.store import Store, open_store
from methods.engine.data_state import DataState


class KeptWork:
    """`with keeping(step, key, ...) as store:`, and how much of such work no file holds yet."""

    def __init__(self, run: RunDir, world: World, ledger: Ledger, data: DataState):
        self._run, self._world, self._ledger, self._data = run, world, ledger, data
        self._save: Callable[[], None] = lambda: None
        self._store: Store | None = None  # of the work under way
        self._worked_at, self._unkept_s = -1, 0.0  # the step of the last such work, and how much of it no file holds

    def save_first(self, save: Callable[[], None]) -> None:
        """From now on call `save` before any work, to begin to save the state as it then is."""
        self._save = save

    @contextlib.contextmanager
    def __call__(
        self,
        step: int,
        key: Callable[[], Mapping[str, Any]],
        *,
        needed: int,
        every_s: float | None,
        part: int | None = None,
    ) -> Iterator[Store]:
        """Where the work between `step` and the next is kept until a checkpoint of a later step is committed, so that a
        stop or a kill in its middle costs `every_s` seconds of it. Collective.

        key: called on rank 0, what the work depends on, as JSON. needed: bytes that it will take. every_s: None keeps
        nothing; nor does a disk that is too small. What the next start must do again is booked as lost_seconds. part:
        which of several works at this step.
        """
        self._save()
        given = {"code": self._run.code()["digest"], "data": self._data.state()}
        reserve = int(2e9 * self._run.plan()["disk_gb"])  # the checkpoint after this one is written beside it
        store, why = open_store(
            self._run, self._world, step, lambda: {**given, **key()}, needed=needed, reserve=reserve, every_s=every_s,
            part=part, show=waiting.shown_by(self._run.path, self._ledger.generation) if self._world.is_main else None,
        )  # fmt: skip
        keeps = store.active
        if self._world.is_main and why:
            print(f"work at step {step} {'begins anew' if keeps else 'is not kept'}: {why}", flush=True)
        self._store, self._worked_at = store, step
        try:
            yield store
            store.wait()
        except Stopped:
            store.flush()
            raise
        finally:
            self._unkept_s, self._store = store.unkept_s, None
            store.close()
            if self._world.is_main or store.trouble:
                said = {"kept": keeps and not store.trouble, "why": store.trouble or why, "resumed": store.resumed}
                self._ledger.write("work", step=step, **said, **store.figures)

    def committed(self, step: int) -> None:
        """A checkpoint of `step` stands: nothing of the work before it can be lost any more."""
        if step > self._worked_at:
            self._unkept_s = 0.0

    @property
    def unkept_s(self) -> float:
        """Seconds of such work that would have to be done again if this process were killed now."""
        return round(self._store.unkept_s if self._store else self._unkept_s, 1)
