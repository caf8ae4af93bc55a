"""Oxford Flowers-102, as far as the launcher knows it."""

import os
from dataclasses import dataclass, field
from typing import ClassVar

from methods.data.listing import MAX_PIXELS, absolute
from methods.data.sets.base import DataSet, file_of, folder_of

INNER = "flowers-102"  # as torchvision calls it
LABELS, SETS = "imagelabels.mat", "setid.mat"
LAID = f"put {LABELS} and {SETS} into one folder and unpack 102flowers.tgz there, which makes jpg/image_00001.jpg"


@dataclass
class FlowersData(DataSet):
    """Oxford 102 Flower Category Dataset (Nilsback and Zisserman 2008). Its training and validation images train, 20
    a class, and its test images judge, as in the papers. An image of more than `max_pixels` is a broken one."""

    class_count: ClassVar = 102
    images: ClassVar[int] = 2_040
    name: str = "flowers"
    path: str | None = None
    max_broken: float = 0.01
    max_pixels: int = field(default=MAX_PIXELS, metadata={"science": "given"})

    def check(self, field: str, *, at_hand: bool) -> None:
        if at_hand:
            folder_of(self.path, field, f"the folder with {LABELS}")
            for name in (LABELS, SETS, flower(1)):
                file_of(os.path.join(flowers_folder(self.path), name), field, self.path, LAID)


def flowers_folder(path: str) -> str:
    """`path`, or the folder in it where torchvision lays the data set."""
    inside = os.path.join(absolute(path), INNER)
    return inside if os.path.isdir(inside) else absolute(path)


def flower(number: int) -> str:
    """An image's path; they are counted from 1."""
    return f"jpg/image_{number:05d}.jpg"
