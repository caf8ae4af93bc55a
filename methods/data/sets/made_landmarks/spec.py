"""Places to be found again, made of the embedded photographs, as far as the launcher knows them."""

from dataclasses import dataclass
from typing import ClassVar

from launcher.errors import InputError
from methods.data.sets.base import DataSet


@dataclass
class MadeLandmarksData(DataSet):
    """Test tiles of the photographs, each a place with views of it; `reader.py` says how. All judge: nothing is learnt
    for a search."""

    truth: ClassVar = ("queries",)
    name: str = "made/landmarks"
    queries: int = 24
    others: int = 96  # images of places that nobody looks for
    seed: int = 0  # of what is made, whatever the run's own is
    max_broken: float = 0.01

    def check(self, field: str, *, at_hand: bool) -> None:
        for name, least, most in (("queries", 2, 72), ("others", 0, 10_000), ("seed", 0, 2**31 - 1)):
            value = getattr(self, name)
            if not least <= value <= most:
                raise InputError.of(f"{field}.{name}", value, "out of range", f"give {least} to {most}")
