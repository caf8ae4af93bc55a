"""DAVIS 2017, as far as the launcher knows it."""

import os
import re
from dataclasses import dataclass
from typing import ClassVar

from methods.data.listing import absolute
from methods.data.sets.base import DataSet, file_of, folder_of

LISTS = {"train": "train.txt", "test": "val.txt"}  # in ImageSets/2017/; the masks of its test sets were never published
LIST_BYTES = 1 << 20  # at most
NAME = re.compile(r"[\w-]{1,100}", re.ASCII)
LAID = (
    "unpack DAVIS-2017-trainval-480p.zip, which makes DAVIS/{ImageSets/2017/val.txt,JPEGImages/480p/NAME/00000.jpg,"
    "Annotations/480p/NAME/00000.png}"
)


@dataclass
class DavisData(DataSet):
    """60 training clips and 30 that judge, with a mask of each object in each frame. `path` holds DAVIS/, or is that
    folder."""

    truth: ClassVar = ("clips",)
    name: str = "davis"
    path: str | None = None
    max_broken: float = 0.01

    def check(self, field: str, *, at_hand: bool) -> None:
        """Of each split the first frame of the first clip and its mask are looked for."""
        if not at_hand:
            return
        folder_of(self.path, field, "the folder DAVIS/")
        root = folder(self.path)
        for name in LISTS.values():
            file = file_of(os.path.join(root, "ImageSets", "2017", name), field, self.path, LAID)
            with open(file, "rb") as lines:
                first = os.fsdecode(lines.readline(200)).strip()
            if NAME.fullmatch(first):
                for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
                    file_of(os.path.join(root, kind, "480p", first, f"00000.{suffix}"), field, self.path, LAID)


def folder(path: str) -> str:
    """DAVIS/ in `path`, or `path` itself."""
    inner = os.path.join(absolute(path), "DAVIS")
    return inner if os.path.isdir(inner) else absolute(path)
