"""Where the wall time of a rank goes."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator

from launcher.runtime.health import Heart


class Clock:
    """`with clock("data"):` books the time of a block, and is a sign of life under that name."""

    def __init__(self, heart: Heart):
        self._heart = heart
        self._seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """Book the wall time of a block under `what`, without what blocks inside it book for themselves."""
        start, inside, outer = time.perf_counter(), sum(self._seconds.values()), self._heart.stage
        self._heart.mark(what)
        try:
            yield
        finally:
            self._heart.mark(outer)
            booked = sum(self._seconds.values()) - inside
            self._seconds[what] += time.perf_counter() - start - booked

    def seconds(self) -> dict[str, float]:
        """What was booked so far, by what it went into."""
        return {name: round(value, 3) for name, value in self._seconds.items()}
