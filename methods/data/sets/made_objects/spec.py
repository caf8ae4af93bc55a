"""Objects pasted on the embedded photographs, as far as the launcher knows them."""

from dataclasses import dataclass
from typing import ClassVar

from launcher.errors import InputError
from launcher.spec.fields import check_ranges
from methods.data.sets.base import DataSet

FEWEST, MOST = 76, 100_000


@dataclass
class MadeObjectsData(DataSet):
    """One to three labelled objects an image, pasted on patches of the embedded photographs; `reader.py` says how."""

    truth: ClassVar = ("tags", "boxes", "masks", "pixels")
    name: str = "made/objects"
    images: int = 608  # train images; the test split has a quarter of them
    side: int = 64  # of an image, in pixels
    seed: int = 0  # of what is made, whatever the run's own is
    max_broken: float = 0.01

    def check(self, field: str, *, at_hand: bool) -> None:
        check_ranges(self, prefix=f"{field}.")
        for name, least, most in (("images", FEWEST, MOST), ("side", 48, 64), ("seed", 0, 2**31 - 1)):
            value = getattr(self, name)
            if not least <= value <= most:
                raise InputError.of(f"{field}.{name}", value, "out of range", f"give {least} to {most}")
