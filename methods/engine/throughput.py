"""Images a second and time left, from the steps of the last while."""

import time
from collections import deque

WINDOW = 50  # steps


class Throughput:
    """Counts optimiser steps of `global_batch` images. Between `restart` and the first step is not training time."""

    def __init__(self, global_batch: int):
        self._batch = global_batch
        self._durations: deque[float] = deque(maxlen=WINDOW)
        self._last = time.perf_counter()

    def restart(self) -> None:
        self._last = time.perf_counter()

    def count(self) -> None:
        now = time.perf_counter()
        self._durations.append(now - self._last)
        self._last = now

    def seconds(self, steps: int) -> float:
        """Time that `steps` more steps will take."""
        return round(steps * sum(self._durations) / max(1, len(self._durations)), 1)

    @property
    def rate(self) -> float:
        """Images a second over all ranks."""
        return round(self._batch * len(self._durations) / max(1e-9, sum(self._durations)), 1)
