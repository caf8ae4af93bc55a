"""CIFAR-10 from its published binary files; never from the pickled ones, since reading a pickle executes code."""

from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from launcher.errors import InputError
from methods.data.sets.cifar10.spec import ROW, TEST, TRAIN, Cifar10Data, folder

_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Cifar10:
    """Images are 32 x 32 RGB; the files stay on disk and are mapped, so that the processes of a node share one copy.

    Raises InputError where a file is missing, is cut short or holds labels above 9 (CIFAR-100 does).
    """

    channels = 3
    small = True

    def __init__(self, path: str | Path, split: str):
        here = Path(folder(path))
        self._names = TRAIN if split == "train" else TEST
        self._files = [_rows(here / name) for name in self._names]
        self._starts = np.cumsum([0] + [len(rows) for rows in self._files])
        meta = here / "batches.meta.txt"
        self.classes: tuple[str, ...] = tuple(meta.read_text().split()) if meta.is_file() else _CLASSES
        if len(self.classes) != len(_CLASSES):
            raise InputError.of("data.path", ..., f"{meta} names {len(self.classes)} classes, not 10", "delete it")

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def labels(self) -> np.ndarray:
        """int64 [N]."""
        labels = np.concatenate([rows[:, 0] for rows in self._files]).astype(np.int64)
        if labels.max() >= len(self.classes):
            raise InputError(f"{self._names}: label {labels.max()} is above 9; this is not CIFAR-10's binary version")
        return labels

    def image(self, index: int) -> Image.Image:
        file, row = self._locate(index)
        planes = self._files[file][row, 1:].reshape(3, 32, 32)
        return Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))

    def name_of(self, index: int) -> str:
        file, row = self._locate(index)
        return f"{self._names[file]}[{row}]"

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        return file, int(index - self._starts[file])


def _rows(file: Path) -> np.ndarray:
    """uint8 [n, 3073], mapped."""
    size = file.stat().st_size if file.is_file() else 0
    if size == 0 or size % ROW:
        problem = f"{file} has {size} bytes, not a multiple of {ROW}"
        raise InputError.of("data.path", ..., problem, "unpack cifar-10-binary.tar.gz again")
    return np.asarray(np.memmap(file, np.uint8, "r").reshape(-1, ROW))


def read(config: Cifar10Data, split: str) -> Cifar10:
    return Cifar10(config.path, split)
