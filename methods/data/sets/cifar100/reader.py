"""CIFAR-100 from its published binary files."""

from pathlib import Path

from methods.data.sets.cifar10.reader import BinaryCifar, names_in
from methods.data.sets.cifar10.spec import binary_folder
from methods.data.sets.cifar100.spec import BINARY, FILES, Cifar100Data


class Cifar100(BinaryCifar):
    """Its classes are the fine ones, by their names in fine_label_names.txt, else by their numbers."""

    _called, _archive = "CIFAR-100", "cifar-100-binary.tar.gz"

    def __init__(self, path: str | Path, split: str):
        here, numbers = Path(binary_folder(path, BINARY)), [str(number) for number in range(100)]
        super().__init__(here, [FILES[split]], names_in(here / "fine_label_names.txt", numbers), heads=2)


def read(config: Cifar100Data, split: str) -> Cifar100:
    return Cifar100(config.path, split)
