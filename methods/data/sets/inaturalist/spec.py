"""iNaturalist 2018 and 2019, as far as the launcher knows them."""

import os
from dataclasses import dataclass, field

from launcher.errors import InputError
from methods.data.listing import MAX_PIXELS
from methods.data.sets.base import DataSet, file_of, folder_of, wrong

CLASSES = {2018: 8142, 2019: 1010}  # of a year


@dataclass
class INaturalistData(DataSet):
    """iNaturalist's competitions of 2018 and 2019 (Van Horn et al. 2018): species. The validation images judge, as in
    the papers, since the labels of the test images were never published. An image of more than `max_pixels` is a
    broken one."""

    name: str = "inaturalist"
    path: str | None = None
    year: int = 2018
    max_broken: float = 0.01
    max_pixels: int = field(default=MAX_PIXELS, metadata={"science": "given"})

    def check(self, field: str, *, at_hand: bool) -> None:
        if self.year not in CLASSES:
            known = " or ".join(map(str, CLASSES))
            raise InputError.of(f"{field}.year", self.year, "no such year is read", f"give {known}")
        if not at_hand:
            return
        root = folder_of(self.path, field, f"the folder with train{self.year}.json")
        for split in ("train", "test"):
            file_of(os.path.join(root, said_of(self.year, split)), field, self.path, laid(self.year))
        images = os.path.join(root, f"train_val{self.year}")
        if not os.path.isdir(images):
            raise wrong(field, self.path, f"{images!r} is missing", laid(self.year))

    def more_classes_than(self, classes: int, *, at_hand: bool) -> int | None:
        there = CLASSES.get(self.year, 0)
        return there if there > classes else None


def said_of(year: int, split: str) -> str:
    """The file that says of what the images of a split are."""
    return f"{'train' if split == 'train' else 'val'}{year}.json"


def laid(year: int) -> str:
    """How the data set lies, as a fix."""
    made = f"train{year}.json,val{year}.json,train_val{year}/..."
    archives = f"train_val{year}.tar.gz, train{year}.json.tar.gz and val{year}.json.tar.gz"
    return f"unpack {archives} into one folder, which makes {{{made}}}"
