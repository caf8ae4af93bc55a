"""CIFAR-10, as far as the launcher knows it."""

import os
from dataclasses import dataclass
from typing import ClassVar

from methods.data.listing import absolute
from methods.data.sets.base import DataSet, folder_of, wrong

TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = ("test_batch.bin",)
ROW = 1 + 3 * 32 * 32  # bytes: the label, then the red, green and blue planes


@dataclass
class Cifar10Data(DataSet):
    """CIFAR-10 in its published binary version (https://www.cs.toronto.edu/~kriz/cifar.html)."""

    class_count: ClassVar = 10
    images: ClassVar[int] = 50_000
    name: str = "cifar10"
    path: str | None = None
    max_broken: float = 0.01

    def check(self, field: str, *, at_hand: bool) -> None:
        if not at_hand:
            return
        fix = "unpack cifar-10-binary.tar.gz (the binary version) there"
        folder_of(self.path, field, "the folder of CIFAR-10's binary files")
        for name in TRAIN + TEST:
            file = os.path.join(folder(self.path), name)
            if not os.path.isfile(file):
                raise wrong(field, self.path, f"{name} is missing", fix)
            size = os.path.getsize(file)
            if size == 0 or size % ROW:
                reason = f"{name} has {size} bytes, not a multiple of {ROW} (published: {10_000 * ROW})"
                raise wrong(field, self.path, reason, f"{fix} again")
            if not os.access(file, os.R_OK):
                raise wrong(field, self.path, f"{name} is not readable by you", f"chmod +r {file!r}")


def folder(path: str) -> str:
    """The folder with the binary files: `path`, or the sub-folder that the published archive unpacks to."""
    inner = os.path.join(absolute(path), "cifar-10-batches-bin")
    return inner if os.path.isdir(inner) else absolute(path)
