"""Data sets: `build` makes one from its config; dataset.py says what every one of them offers.

Importing this package costs nothing (the launcher reads `methods.data.spec` through it); `build` imports what it needs.
"""

from __future__ import annotations

from typing import Any

from methods.data import spec
from methods.data.dataset import ImageDataset


def build(config: Any, split: str) -> ImageDataset:
    """The "train" or "test" split of the dataset that `config`, of a class in `spec.DATA`, describes. Raises InputError
    as `spec.check` does."""
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r}: unknown; choose train or test")
    spec.check(config)
    if isinstance(config, spec.PhotosData):
        from methods.data.photos import Photos

        how = {"patch": config.patch, "images": config.images, "colour": config.colour}
        return Photos(split, **how, held_out=config.held_out)
    if isinstance(config, spec.ImageFolderData):
        from methods.data.folder import ImageFolder

        how = {"labels": config.labels, "splits": config.splits, "max_pixels": config.max_pixels}
        return ImageFolder(config.path, split, **how)
    if isinstance(config, spec.Cifar10Data):
        from methods.data.cifar10 import Cifar10

        return Cifar10(config.path, split)
    if isinstance(config, spec.ShardsData):
        from methods.data.shards import ImageShards

        how = {"labels": config.labels, "splits": config.splits, "max_pixels": config.max_pixels}
        return ImageShards(config.path, split, **how)
    if isinstance(config, spec.VocData):
        from methods.data.voc import Voc

        return Voc(config.path, split, year=config.year, max_pixels=config.max_pixels)
    if isinstance(config, spec.MadeObjectsData):
        from methods.data.made import MadeObjects

        return MadeObjects(split, images=config.images, side=config.side, seed=config.seed)
    raise TypeError(f"{type(config).__name__} is not a data config; choose one of {', '.join(spec.DATA)}")
