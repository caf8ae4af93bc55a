"""COCO, as far as the launcher knows it."""

import os
from dataclasses import dataclass, field
from typing import ClassVar

from methods.data.listing import MAX_PIXELS, absolute
from methods.data.sets.base import DataSet, file_of, folder_of, wrong

PARTS = {"train": "train2017", "test": "val2017"}  # the labels of test2017 were never published
LAID = (
    "unpack train2017.zip, val2017.zip and annotations_trainval2017.zip into one folder, which makes "
    "{train2017,val2017}/000000000139.jpg and annotations/{instances_train2017,instances_val2017}.json"
)


@dataclass
class CocoData(DataSet):
    """COCO 2017: 80 classes, several an image, with boxes and masks. `path` holds annotations/, train2017/ and
    val2017/. An image of more than `max_pixels` is a broken one."""

    truth: ClassVar = ("tags", "boxes", "masks")
    name: str = "coco"
    path: str | None = None
    max_broken: float = 0.01
    max_pixels: int = field(default=MAX_PIXELS, metadata={"science": "given"})

    def check(self, field: str, *, at_hand: bool) -> None:
        if not at_hand:
            return
        folder_of(self.path, field, "the folder with annotations/, train2017/ and val2017/")
        for part in PARTS.values():
            file_of(coco_list(self.path, part), field, self.path, LAID)
            folder = coco_images(self.path, part)
            if not os.path.isdir(folder):
                raise wrong(field, self.path, f"{folder!r} is missing", LAID)


def coco_list(path, part):
    """The file that says what is on the images of a part ("train2017", "val2017")."""
    return os.path.join(absolute(path), "annotations", f"instances_{part}.json")


def coco_images(path, part):
    """The folder of its images."""
    return os.path.join(absolute(path), part)
