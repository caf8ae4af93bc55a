"""PASCAL VOC, as far as the launcher knows it."""

import os
from dataclasses import dataclass, field
from typing import ClassVar

from launcher.errors import InputError
from launcher.spec.fields import later
from methods.data.listing import MAX_PIXELS, absolute
from methods.data.sets.base import DataSet, folder_of

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
# Of a year: what is trained on and what judges, as ImageSets/Main/ calls it. The labels of the test images of 2012 were
# never published.
SPLITS = {2007: {"train": "trainval", "test": "test"}, 2012: {"train": "train", "test": "val"}}
ARCHIVES = {
    2007: "VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar",
    2012: "VOCtrainval_11-May-2012.tar",
}
LIST_BYTES = 4 << 20  # of a list, at most; the longest published one has 200 kB
BOXES_BYTES = 1 << 20  # of what Annotations/ has of an image, at most; published ones have a few kB


@dataclass
class VocData(DataSet):
    """PASCAL VOC, classification and detection: 20 classes, several an image. `path` holds VOCdevkit/, or is that
    folder, or the year's in it. An image of more than `max_pixels` is a broken one."""

    truth: ClassVar = ("tags", "boxes")
    name: str = "voc"
    path: str | None = None
    year: int = 2007  # 2007: trainval and test; 2012: train and val
    plus_2012: bool = later(False)  # train on trainval of 2012, too: VOC07+12
    max_broken: float = 0.01
    max_pixels: int = field(default=MAX_PIXELS, metadata={"science": "given"})

    def check(self, field: str, *, at_hand: bool) -> None:
        if self.year not in SPLITS:
            known = " or ".join(map(str, SPLITS))
            raise InputError.of(f"{field}.year", self.year, "no such year is read", f"give {known}")
        if self.plus_2012 and self.year != 2007:
            fix = "give year=2007, whose test images judge"
            raise InputError.of(f"{field}.plus_2012", "true", f"year={self.year} is what it would add", fix)
        if at_hand:
            folder_of(self.path, field, "the folder with VOCdevkit/")
            self._check_files(field)

    def _check_files(self, field: str) -> None:
        """Of each split the first image is looked for by its name."""
        parts = [each for split in ("train", "test") for each in voc_parts(self.path, self.year, split, self.plus_2012)]
        for folder, year, part in parts:
            for name in CLASSES:
                file = voc_list(folder, name, part)
                if not os.path.isfile(file):
                    raise not_laid_out(f"{field}.path", self.path, year, f"{file!r} is missing")
                if not os.access(file, os.R_OK):
                    reason = f"{file!r} cannot be read"
                    raise InputError.of(f"{field}.path", repr(self.path), reason, f"chmod +r {file!r}")
            with open(voc_list(folder, CLASSES[0], part), "rb") as lines:
                words = os.fsdecode(lines.readline(100)).split()
            image = voc_image(folder, words[0]) if words and is_voc_id(words[0]) else None
            if image and not os.path.isfile(image):
                raise not_laid_out(f"{field}.path", self.path, year, f"{image!r} is missing")


def voc_parts(path, year, split, plus_2012=False):
    """[(folder of a year, year, part as ImageSets/Main/ calls it)] of a split."""
    found = [(voc_folder(path, year), year, SPLITS[year][split])]
    if plus_2012 and split == "train":  # beside the other: never a folder that may hold anything
        found.append((os.path.join(os.path.dirname(found[0][0]), "VOC2012"), 2012, "trainval"))
    return found


def voc_folder(path, year):
    """The folder of a year: VOCdevkit/VOC2007/ in `path`, VOC2007/ in it, or `path` itself where it holds ImageSets/.
    The first of these where there is none."""
    path = absolute(path)
    found = [os.path.join(path, "VOCdevkit", f"VOC{year}"), os.path.join(path, f"VOC{year}"), path]
    return next((each for each in found if os.path.isdir(os.path.join(each, "ImageSets"))), found[0])


def voc_list(folder, name, part):
    """The file that says of each image of a part ("trainval", ...) whether it shows class `name`."""
    return os.path.join(folder, "ImageSets", "Main", f"{name}_{part}.txt")


def voc_image(folder, identity):
    return os.path.join(folder, "JPEGImages", f"{identity}.jpg")


def voc_boxes(folder, identity):
    """The file with the boxes of an image."""
    return os.path.join(folder, "Annotations", f"{identity}.xml")


def is_voc_id(text):
    """Whether it may name an image: 000005, 2008_000002. Nothing else comes near a path."""
    return 0 < len(text) <= 40 and text.isascii() and text.replace("_", "").isalnum()


def not_laid_out(field, path, year, reason):
    """What is said of a folder that is not as the data set lays it. path: as it was given, or `...`."""
    files = f"JPEGImages/ID.jpg,Annotations/ID.xml,ImageSets/Main/CLASS_{SPLITS[year]['train']}.txt"
    laid = f"VOCdevkit/VOC{year}/{{{files}}}"
    fix = f"unpack {ARCHIVES[year]} into one folder, which makes {laid}"
    return InputError.of(field, path if path is ... else repr(path), reason, fix)
