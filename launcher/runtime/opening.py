"""Where the time of a start goes, until its first step is done; the ledger gets it with the event `first_step`."""

import time


class Opening:
    """Seconds of each part of a start, one behind the other, by this rank's watch. It begins when it is made."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic()

    def passed(self, part: str) -> None:
        """What was done since the part before, or since the begin, was `part`."""
        now = time.monotonic()
        self.seconds[part] = round(self.seconds.get(part, 0.0) + now - self._since, 3)
        self._since = now
