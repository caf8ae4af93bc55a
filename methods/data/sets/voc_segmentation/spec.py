"""PASCAL VOC's segmentation, as far as the launcher knows it."""

import os
from dataclasses import dataclass, field
from typing import ClassVar

from launcher.errors import InputError
from methods.data.listing import MAX_PIXELS
from methods.data.sets.base import DataSet, file_of, folder_of
from methods.data.sets.voc.spec import is_voc_id, voc_folder, voc_image

MASKS = ("SegmentationClass", "SegmentationClassAug")  # the first that has an image's counts
LAID = {
    "train": (
        "unpack VOCtrainval_11-May-2012.tar, which makes "
        "VOCdevkit/VOC2012/{JPEGImages/ID.jpg,SegmentationClass/ID.png,ImageSets/Segmentation/train.txt}"
    ),
    "trainaug": (
        "lay the masks of SBD beside VOC's, as PNG, and the list of their IDs: "
        "VOCdevkit/VOC2012/{SegmentationClassAug/ID.png,ImageSets/Segmentation/trainaug.txt}"
    ),
}


@dataclass
class VocSegmentationData(DataSet):
    """PASCAL VOC 2012, segmentation: 20 classes and background. `path` holds VOCdevkit/, or is that folder, or
    VOC2012/ in it. Val judges. An image of more than `max_pixels` is a broken one."""

    truth: ClassVar = ("pixels",)
    name: str = "voc_segmentation"
    path: str | None = None
    learn: str = "train"  # the list that is trained on: train | trainaug
    max_broken: float = 0.01
    max_pixels: int = field(default=MAX_PIXELS, metadata={"science": "given"})

    def check(self, field: str, *, at_hand: bool) -> None:
        if self.learn not in LAID:
            raise InputError.of(f"{field}.learn", self.learn, "no such list is read", f"give {' or '.join(LAID)}")
        if at_hand:
            folder_of(self.path, field, "the folder with VOCdevkit/")
            for part in (self.learn, "val"):
                self._check_files(field, part)

    def _check_files(self, field: str, part: str) -> None:
        """Of each list the first image and its mask are looked for by their names."""
        folder, laid = voc_folder(self.path, 2012), LAID.get(part, LAID["train"])
        with open(file_of(voc_list(folder, part), field, self.path, laid), "rb") as lines:
            identity = os.fsdecode(lines.readline(100)).strip()
        if is_voc_id(identity):
            file_of(voc_image(folder, identity), field, self.path, laid)
            file_of(voc_mask(folder, identity), field, self.path, laid)


def voc_list(folder: str, part: str) -> str:
    return os.path.join(folder, "ImageSets", "Segmentation", f"{part}.txt")


def voc_mask(folder: str, identity: str) -> str:
    files = [os.path.join(folder, masks, f"{identity}.png") for masks in MASKS]
    return next((file for file in files if os.path.exists(file)), files[0])
