"""What every plan says, whatever kind of work it is of: enough to make the run's folder and to start it."""

import dataclasses
from collections.abc import Sequence
from typing import Any


class Planned:
    """The base of the plans, which are frozen dataclasses made in launcher/plan/. In a run's folder they are JSON."""

    steps: int
    disk_gb: float  # what is saved at once; GB are 1e9 bytes
    signal_delay_s: int  # before the time limit, when the ranks are told
    waste: str | None
    warnings: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a person should hear before it runs."""
        return (*((f"wasteful: {self.waste}",) if self.waste else ()), *self.warnings)
