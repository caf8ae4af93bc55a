"""Places205 and Places365-Standard, as far as the launcher knows them."""

import os
from dataclasses import dataclass, field
from typing import ClassVar

from methods.data.listing import MAX_PIXELS, absolute
from methods.data.sets.base import DataSet, file_of, folder_of, wrong

LISTS_205 = {
    split: f"trainvalsplit_places205/{part}_places205.csv" for split, part in (("train", "train"), ("test", "val"))
}
IMAGES_205 = "data/vision/torralba/deeplearning/images256"
LAID_205 = (
    "unpack trainvalsplit_places205.tar.gz and imagesPlaces205_resize.tar.gz into one folder, which makes "
    f"{{{LISTS_205['train']},{LISTS_205['test']},{IMAGES_205}/a/abbey/...}}"
)
LISTS_365 = {"train": "places365_train_standard.txt", "test": "places365_val.txt"}
CLASSES_365 = "categories_places365.txt"
# As torchvision names what it unpacks: the archives of training images make data_256/ and data_large/.
FOLDERS_365 = {
    "train": ("data_256_standard", "data_256", "data_large_standard", "data_large"),
    "test": ("val_256", "val_large"),
}
LAID_365 = (
    "unpack filelist_places365-standard.tar, train_256_places365standard.tar and val_256.tar into one folder, which "
    f"makes {{{CLASSES_365},{LISTS_365['train']},{LISTS_365['test']},data_256/a/airfield/...,val_256/...}}"
)


@dataclass
class Places205Data(DataSet):
    """Places205 (Zhou et al. 2014), resized to 256 pixels; its validation images judge, as in the papers. An image of
    more than `max_pixels` is a broken one."""

    class_count: ClassVar = 205
    images: ClassVar[int] = 2_448_873
    name: str = "places205"
    path: str | None = None
    max_broken: float = 0.01
    max_pixels: int = field(default=MAX_PIXELS, metadata={"science": "given"})

    def check(self, field: str, *, at_hand: bool) -> None:
        if at_hand:
            root = folder_of(self.path, field, "the folder with trainvalsplit_places205/")
            for split in LISTS_205.values():
                file = file_of(os.path.join(root, split), field, self.path, LAID_205)
                first_is_there(file, os.path.join(root, IMAGES_205), field, self.path, LAID_205)


@dataclass
class Places365Data(DataSet):
    """Places365-Standard (Zhou et al. 2017) in 256 pixels or large; its validation images judge. As torchvision lays
    it, or as the archives unpack."""

    class_count: ClassVar = 365
    images: ClassVar[int] = 1_803_460
    name: str = "places365"
    path: str | None = None
    max_broken: float = 0.01
    max_pixels: int = field(default=MAX_PIXELS, metadata={"science": "given"})

    def check(self, field: str, *, at_hand: bool) -> None:
        if not at_hand:
            return
        root = folder_of(self.path, field, f"the folder with {CLASSES_365}")
        file_of(os.path.join(root, CLASSES_365), field, self.path, LAID_365)
        for split, name in LISTS_365.items():
            file = file_of(os.path.join(root, name), field, self.path, LAID_365)
            first_is_there(file, images_365(root, split), field, self.path, LAID_365)


def images_365(root: str, split: str) -> str:
    """The folder with the images of a split: the first of FOLDERS_365 that is there."""
    found = [os.path.join(absolute(root), name) for name in FOLDERS_365[split]]
    return next(filter(os.path.isdir, found), found[0])


def first_is_there(file: str, folder: str, field: str, path: str | None, laid: str) -> None:
    """Raises InputError where the first image that the list `file` names, `PATH LABEL`, is not in `folder`."""
    with open(file, "rb") as lines:
        words = os.fsdecode(lines.readline(1000)).split()
    name = words[0].lstrip("/") if words else ""
    if name and ".." not in name and not os.path.isfile(image := os.path.join(folder, name)):
        raise wrong(field, path, f"{image!r} is missing", laid)
