"""CIFAR-10, as far as the launcher knows it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from methods.data.listing import absolute
from methods.data.sets.base import DataSet, folder_of, wrong

TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = ("test_batch.bin",)
BINARY = "cifar-10-batches-bin"
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
        if at_hand:
            rows = dict.fromkeys(TRAIN + TEST, 10_000)
            check_binary(field, self.path, BINARY, rows, ROW, "CIFAR-10's", "cifar-10-binary.tar.gz")


def check_binary(
    field: str, path: str | None, inner: str, rows: Mapping[str, int], row: int, whose: str, archive: str
) -> None:
    """Raises InputError where `path` has not the published binary files. rows: {file: how many it has as published};
    row: bytes of one; inner, archive: the folder that the archive unpacks to."""
    fix = f"unpack {archive} (the binary version) there"
    folder_of(path, field, f"the folder of {whose} binary files")
    for name, published in rows.items():
        file = os.path.join(binary_folder(path, inner), name)
        if not os.path.isfile(file):
            raise wrong(field, path, f"{name} is missing", fix)
        size = os.path.getsize(file)
        if size == 0 or size % row:
            reason = f"{name} has {size} bytes, not a multiple of {row} (published: {published * row})"
            raise wrong(field, path, reason, f"{fix} again")
        if not os.access(file, os.R_OK):
            raise wrong(field, path, f"{name} is not readable by you", f"chmod +r {file!r}")


def binary_folder(path: str, inner: str) -> str:
    """The folder with the binary files: `path`, or the sub-folder `inner` that the published archive unpacks to."""
    inside = os.path.join(absolute(path), inner)
    return inside if os.path.isdir(inside) else absolute(path)
