"""Copies of parts of the embedded photographs, as far as the launcher knows them."""

from dataclasses import dataclass
from typing import ClassVar

from launcher.errors import InputError
from methods.data.sets.base import DataSet


@dataclass
class MadeCopiesData(DataSet):
    """Test tiles of the photographs, copies of some of them, and other images to learn a whitening from; `reader.py`
    says how."""

    truth: ClassVar = ("copies",)
    name: str = "made/copies"
    originals: int = 48
    copies: int = 2  # of each
    distractors: int = 48  # test tiles without a copy
    images: int = 512  # train images, of which a whitening is learnt
    seed: int = 0  # of what is made, whatever the run's own is
    max_broken: float = 0.01

    def check(self, field: str, *, at_hand: bool) -> None:
        ranges = {"originals": (2, 72), "copies": (1, 100), "distractors": (0, 72), "images": (0, 100_000)}
        for name, (least, most) in {**ranges, "seed": (0, 2**31 - 1)}.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise InputError.of(f"{field}.{name}", value, "out of range", f"give {least} to {most}")
