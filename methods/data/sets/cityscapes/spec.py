"""Cityscapes, as far as the launcher knows it."""

import os
from dataclasses import dataclass, field
from typing import ClassVar

from methods.data.listing import MAX_PIXELS, absolute
from methods.data.sets.base import DataSet, file_of, folder_of, unlisted, wrong

PARTS = {"train": "train", "test": "val"}  # what of the test images is seen was never published
IMAGES, MASKS = "leftImg8bit", "gtFine"
IMAGE_ENDS, MASK_ENDS = "_leftImg8bit.png", "_gtFine_labelIds.png"
LAID = (
    "unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip into one folder, which makes "
    "leftImg8bit/train/CITY/NAME_leftImg8bit.png and gtFine/train/CITY/NAME_gtFine_labelIds.png"
)


@dataclass
class CityscapesData(DataSet):
    """Cityscapes with fine masks: 19 classes. `path` holds leftImg8bit/ and gtFine/. Val judges. An image of more than
    `max_pixels` is a broken one."""

    truth: ClassVar = ("pixels",)
    name: str = "cityscapes"
    path: str | None = None
    max_broken: float = 0.01
    max_pixels: int = field(default=MAX_PIXELS, metadata={"science": "given"})

    def check(self, field: str, *, at_hand: bool) -> None:
        """Of each split the first image and its mask are looked for."""
        if not at_hand:
            return
        folder_of(self.path, field, "the folder with leftImg8bit/ and gtFine/")
        for part in PARTS.values():
            folder = os.path.join(absolute(self.path), IMAGES, part)
            if not os.path.isdir(folder):
                raise wrong(field, self.path, f"{folder!r} is missing", LAID)
            try:
                found = next(iter(names(self.path, part)), None)
            except OSError as error:
                raise unlisted(field, self.path, error) from None
            if not found:
                raise wrong(field, self.path, f"{folder!r} has no CITY/NAME{IMAGE_ENDS}", LAID)
            file_of(mask_file(self.path, part, found), field, self.path, LAID)


def names(path: str, part: str) -> list[str]:
    """CITY/NAME of each image of a part ("train", "val"), in order. Raises OSError."""
    folder = os.path.join(absolute(path), IMAGES, part)
    cities = sorted(city for city in os.listdir(folder) if os.path.isdir(os.path.join(folder, city)))
    return [
        f"{city}/{name.removesuffix(IMAGE_ENDS)}"
        for city in cities
        for name in sorted(os.listdir(os.path.join(folder, city)))
        if name.endswith(IMAGE_ENDS) and not name.startswith(".")
    ]


def image_file(path: str, part: str, name: str) -> str:
    return os.path.join(absolute(path), IMAGES, part, name + IMAGE_ENDS)


def mask_file(path: str, part: str, name: str) -> str:
    return os.path.join(absolute(path), MASKS, part, name + MASK_ENDS)
