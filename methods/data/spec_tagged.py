"""Data sets with several labels an image, as far as `methods.data.spec` has to know them: it holds them together with
the others. Neither torch nor numpy, and no image is opened."""

import os
from dataclasses import dataclass, field
from typing import ClassVar

from launcher.errors import InputError
from launcher.spec.fields import check_ranges
from methods.data.listing import MAX_PIXELS, absolute

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
# Of a year: what is trained on and what judges, as ImageSets/Main/ calls it. The labels of the test images of 2012 were
# never published.
VOC_SPLITS = {2007: {"train": "trainval", "test": "test"}, 2012: {"train": "train", "test": "val"}}
VOC_ARCHIVES = {
    2007: "VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar",
    2012: "VOCtrainval_11-May-2012.tar",
}
VOC_LIST_BYTES = 4 << 20  # of a list, at most; the longest published one has 200 kB
TAGS_ALONE = "an image has several tags, and no one label"  # why these data sets have no labels
FEWEST_MADE, MOST_MADE = 76, 100_000


@dataclass
class VocData:
    """PASCAL VOC, classification: 20 classes, several an image. `path` holds VOCdevkit/, or is that folder, or the
    year's in it. An image of more than `max_pixels` is a broken one."""

    tagged: ClassVar[bool] = True
    name: str = "voc"
    path: str | None = None
    year: int = 2007  # 2007: trainval and test; 2012: train and val
    max_broken: float = 0.01
    max_pixels: int = field(default=MAX_PIXELS, metadata={"science": "given"})


@dataclass
class MadeObjectsData:
    """One to three labelled objects an image, pasted on patches of the embedded photographs; `methods.data.made` says
    how."""

    tagged: ClassVar[bool] = True
    name: str = "made/objects"
    images: int = 608  # train images; the test split has a quarter of them
    side: int = 64  # of an image, in pixels
    seed: int = 0  # of what is made, whatever the run's own is
    max_broken: float = 0.01


def check_made(config, field):
    check_ranges(config, prefix=f"{field}.")
    for name, least, most in (("images", FEWEST_MADE, MOST_MADE), ("side", 48, 64), ("seed", 0, 2**31 - 1)):
        value = getattr(config, name)
        if not least <= value <= most:
            raise InputError.of(f"{field}.{name}", value, "out of range", f"give {least} to {most}")


def check_voc_year(config, field):
    if config.year not in VOC_SPLITS:
        known = " or ".join(map(str, VOC_SPLITS))
        raise InputError.of(f"{field}.year", config.year, "no such year is read", f"give {known}")


def voc_folder(path, year):
    """The folder of a year: VOCdevkit/VOC2007/ in `path`, VOC2007/ in it, or `path` itself where it holds ImageSets/.
    The first of these where there is none."""
    path = absolute(path)
    found = [os.path.join(path, "VOCdevkit", f"VOC{year}"), os.path.join(path, f"VOC{year}"), path]
    return next((each for each in found if os.path.isdir(os.path.join(each, "ImageSets"))), found[0])


def voc_list(folder, name, part):
    """The file that says of each image of a part ("trainval", ...) whether it shows class `name`."""
    return os.path.join(folder, "ImageSets", "Main", f"{name}_{part}.txt")


def check_voc(config, field):
    """Raises InputError for the first file that is not where the data set lays it. Images are not opened; of each split
    the first is looked for by its name. The folder `config.path` is there."""
    folder = voc_folder(config.path, config.year)
    for part in VOC_SPLITS[config.year].values():
        for name in VOC_CLASSES:
            file = voc_list(folder, name, part)
            if not os.path.isfile(file):
                raise not_laid_out(f"{field}.path", config.path, config.year, f"{file!r} is missing")
            if not os.access(file, os.R_OK):
                reason = f"{file!r} cannot be read"
                raise InputError.of(f"{field}.path", repr(config.path), reason, f"chmod +r {file!r}")
        with open(voc_list(folder, VOC_CLASSES[0], part), "rb") as lines:
            words = os.fsdecode(lines.readline(100)).split()
        image = voc_image(folder, words[0]) if words and is_voc_id(words[0]) else None
        if image and not os.path.isfile(image):
            raise not_laid_out(f"{field}.path", config.path, config.year, f"{image!r} is missing")


def voc_image(folder, identity):
    return os.path.join(folder, "JPEGImages", f"{identity}.jpg")


def is_voc_id(text):
    """Whether it may name an image: 000005, 2008_000002. Nothing else comes near a path."""
    return 0 < len(text) <= 40 and text.isascii() and text.replace("_", "").isalnum()


def not_laid_out(field, path, year, reason):
    """What is said of a folder that is not as the data set lays it. path: as it was given, or `...`."""
    laid = f"VOCdevkit/VOC{year}/{{JPEGImages/ID.jpg,ImageSets/Main/CLASS_{VOC_SPLITS[year]['train']}.txt}}"
    fix = f"unpack {VOC_ARCHIVES[year]} into one folder, which makes {laid}"
    return InputError.of(field, path if path is ... else repr(path), reason, fix)
