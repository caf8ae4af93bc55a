"""Stanford Cars, as far as the launcher knows it."""

import os
from dataclasses import dataclass, field
from typing import ClassVar

from methods.data.listing import MAX_PIXELS, absolute
from methods.data.sets.base import DataSet, file_of, folder_of

INNER = "stanford_cars"  # as torchvision calls it
META = "devkit/cars_meta.mat"
LISTS = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
FOLDERS = {"train": "cars_train", "test": "cars_test"}
LAID = (
    "unpack car_devkit.tgz, cars_train.tgz and cars_test.tgz into one folder and put cars_test_annos_withlabels.mat "
    f"there, which makes {{{META},{LISTS['train']},{LISTS['test']},cars_train/00001.jpg,cars_test/00001.jpg}}"
)


@dataclass
class CarsData(DataSet):
    """Stanford Cars (Krause et al. 2013), 196 makes; whole images, without their boxes. An image of more than
    `max_pixels` is a broken one."""

    class_count: ClassVar = 196
    images: ClassVar[int] = 8_144
    name: str = "cars"
    path: str | None = None
    max_broken: float = 0.01
    max_pixels: int = field(default=MAX_PIXELS, metadata={"science": "given"})

    def check(self, field: str, *, at_hand: bool) -> None:
        if at_hand:
            folder_of(self.path, field, f"the folder with {META}")
            for name in (META, *LISTS.values(), *(f"{folder}/00001.jpg" for folder in FOLDERS.values())):
                file_of(os.path.join(cars_folder(self.path), name), field, self.path, LAID)


def cars_folder(path: str) -> str:
    """`path`, or the folder in it where torchvision lays the data set."""
    inside = os.path.join(absolute(path), INNER)
    return inside if os.path.isdir(inside) else absolute(path)
