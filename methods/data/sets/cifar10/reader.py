"""CIFAR-10 from its published binary files; never from the pickled ones, since reading a pickle executes code."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from launcher.errors import InputError
from methods.data.sets.cifar10.spec import BINARY, ROW, TEST, TRAIN, Cifar10Data, binary_folder

_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class BinaryCifar:
    """Images are 32 x 32 RGB; the files stay on disk and are mapped, so that the processes of a node share one copy.

    Raises InputError where a file is missing, is cut short or holds labels that are none of its classes.
    """

    channels = 3
    small = True
    _called, _archive = "CIFAR-10", "cifar-10-binary.tar.gz"

    def __init__(self, here: Path, names: Sequence[str], classes: Sequence[str], *, heads: int = 1):
        """names: of the files in the folder `here`, whose rows begin with `heads` labels, of which the last counts."""
        self._names, self._heads, self.classes = names, heads, tuple(classes)
        self._files = [self._rows(here / name) for name in names]
        self._starts = np.cumsum([0] + [len(rows) for rows in self._files])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def labels(self) -> np.ndarray:
        """int64 [N]."""
        labels = np.concatenate([rows[:, self._heads - 1] for rows in self._files]).astype(np.int64)
        if labels.max() >= len(self.classes):
            most = len(self.classes) - 1
            said = f"label {labels.max()} is above {most}; this is not {self._called}'s binary version"
            raise InputError(f"{self._names}: {said}")
        return labels

    def image(self, index: int) -> Image.Image:
        file, row = self._locate(index)
        planes = self._files[file][row, self._heads :].reshape(3, 32, 32)
        return Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))

    def name_of(self, index: int) -> str:
        file, row = self._locate(index)
        return f"{self._names[file]}[{row}]"

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        return file, int(index - self._starts[file])

    def _rows(self, file: Path) -> np.ndarray:
        """uint8 [n, heads + 3072], mapped."""
        size, row = file.stat().st_size if file.is_file() else 0, self._heads - 1 + ROW
        if size == 0 or size % row:
            problem = f"{file} has {size} bytes, not a multiple of {row}"
            raise InputError.of("data.path", ..., problem, f"unpack {self._archive} again")
        return np.asarray(np.memmap(file, np.uint8, "r").reshape(-1, row))


class Cifar10(BinaryCifar):
    """CIFAR-10; the names of its classes are those of batches.meta.txt, if it is there."""

    def __init__(self, path: str | Path, split: str):
        here = Path(binary_folder(path, BINARY))
        super().__init__(here, TRAIN if split == "train" else TEST, names_in(here / "batches.meta.txt", _CLASSES))


def names_in(meta: Path, usual: Sequence[str]) -> tuple[str, ...]:
    """Of the classes, as the file `meta` has them, or the `usual` ones where there is none. Raises InputError where
    there are not as many."""
    names = tuple(meta.read_text().split()) if meta.is_file() else tuple(usual)
    if len(names) != len(usual):
        raise InputError.of("data.path", ..., f"{meta} names {len(names)} classes, not {len(usual)}", "delete it")
    return names


def read(config: Cifar10Data, split: str) -> Cifar10:
    return Cifar10(config.path, split)
