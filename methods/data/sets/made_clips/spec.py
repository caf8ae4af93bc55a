"""Clips made of the embedded photographs, as far as the launcher knows them."""

from dataclasses import dataclass
from typing import ClassVar

from launcher.errors import InputError
from launcher.spec.fields import check_ranges
from methods.data.sets.base import DataSet


@dataclass
class MadeClipsData(DataSet):
    """A crop that moves over a photograph, and one to three objects that move on their own; `reader.py` says how. All
    judge: nothing learns from clips."""

    truth: ClassVar = ("clips",)
    name: str = "made/clips"
    clips: int = 8
    frames: int = 16  # of each
    side: int = 64  # of a frame, in pixels
    seed: int = 0  # of what is made, whatever the run's own is
    max_broken: float = 0.01

    def check(self, field: str, *, at_hand: bool) -> None:
        check_ranges(self, prefix=f"{field}.")
        ranges = {"clips": (1, 10_000), "frames": (3, 100), "side": (48, 64), "seed": (0, 2**31 - 1)}
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise InputError.of(f"{field}.{name}", value, "out of range", f"give {least} to {most}")
