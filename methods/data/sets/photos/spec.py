"""The embedded photographs, as far as the launcher knows them."""

from dataclasses import dataclass
from typing import ClassVar

from launcher.errors import InputError
from launcher.spec.fields import check_ranges, choice, later
from methods.data.sets.base import DataSet

PHOTOGRAPHS = 19  # in methods.data.photos, which cuts four patches of each at least
# A side in pixels, by what is held out: half a tile; half of what both leave of the lowest photograph.
LARGEST_PATCH = {"test": 48, "validation": 36}


@dataclass
class PhotosData(DataSet):
    """Patches of the photographs that come with installed Python packages: real images without a download."""

    class_count: ClassVar = PHOTOGRAPHS
    listed: ClassVar = False
    name: str = "photos"
    images: int = 6080  # train patches; the test split has a quarter of them
    patch: int = 32  # side in pixels
    colour: bool = False
    # What k-NN and its like are measured on: "validation" is cut from the train area, to choose recipes by.
    held_out: str = later(choice("test", "validation"))
    max_broken: float = 0.01

    def check(self, field: str, *, at_hand: bool) -> None:
        check_ranges(self, prefix=f"{field}.")
        for name, least, most in (("images", 4 * PHOTOGRAPHS, 10**6), ("patch", 8, LARGEST_PATCH[self.held_out])):
            value = getattr(self, name)
            if not least <= value <= most:
                raise InputError.of(f"{field}.{name}", value, "out of range", f"give {least} to {most}")
