"""Data sets: `build` makes one from its config; dataset.py says what every one of them offers.

Importing this package costs nothing (the launcher reads `methods.data.spec` through it); `build` imports what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from methods.data import spec
from methods.data.dataset import ImageDataset


def build(config: Any, split: str) -> ImageDataset:
    """The "train" or "test" split of the dataset that `config`, of a class in `spec.DATA`, describes. Raises InputError
    as `spec.check` does."""
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r}: unknown; choose train or test")
    if not isinstance(config, spec.DataSet):
        raise TypeError(f"{type(config).__name__} is not a data config; choose one of {', '.join(spec.DATA)}")
    spec.check(config)
    beside = spec.DATA[config.name].__module__.rpartition(".")[0]
    return import_module(f"{beside}.reader").read(config, split)
