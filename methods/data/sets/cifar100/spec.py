"""CIFAR-100, as far as the launcher knows it."""

from dataclasses import dataclass
from typing import ClassVar

from methods.data.sets.base import DataSet
from methods.data.sets.cifar10.spec import ROW, check_binary

FILES = {"train": "train.bin", "test": "test.bin"}
BINARY = "cifar-100-binary"


@dataclass
class Cifar100Data(DataSet):
    """CIFAR-100 with its 100 fine labels, in its published binary version (https://www.cs.toronto.edu/~kriz/cifar.html).
    A row has one byte more than CIFAR-10's: the coarse label comes first."""

    class_count: ClassVar = 100
    images: ClassVar[int] = 50_000
    name: str = "cifar100"
    path: str | None = None
    max_broken: float = 0.01

    def check(self, field: str, *, at_hand: bool) -> None:
        if at_hand:
            rows = {FILES["train"]: 50_000, FILES["test"]: 10_000}
            check_binary(field, self.path, BINARY, rows, 1 + ROW, "CIFAR-100's", "cifar-100-binary.tar.gz")
