"""Datasets: what every one of them offers, and `build`, which makes one from its config.

Importing this package costs nothing (the launcher reads `methods.data.spec` through it); `build` imports what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from methods.data import spec

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

__all__ = ["BrokenImage", "ImageDataset", "build"]


class ImageDataset(Protocol):
    """Images by position, 0 to len - 1. Immutable, and safe to read from forked worker processes."""

    channels: int  # 1: images are PIL "L"; 3: PIL "RGB"
    classes: tuple[str, ...] | None  # names of the labels, or None when there are none
    labels: np.ndarray | None  # int64 [N], positions in `classes`

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image:
        """The decoded image, any size. Raises BrokenImage where there is none to be had."""
        ...

    def name_of(self, index: int) -> str:
        """What a message calls this image: one printable line."""
        ...


class BrokenImage(Exception):
    """An image that cannot be decoded: which one (`name`) and why (`reason`)."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)  # both in args, so that it survives pickling between processes
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def build(
    config: spec.PhotosData | spec.ImageFolderData | spec.Cifar10Data | spec.ShardsData, split: str
) -> ImageDataset:
    """The "train" or "test" split of the dataset that `config` describes. Raises ValueError as `spec.check` does."""
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r}: unknown; choose train or test")
    spec.check(config)
    if isinstance(config, spec.PhotosData):
        from methods.data.photos import Photos

        return Photos(split, patch=config.patch, images=config.images, colour=config.colour)
    if isinstance(config, spec.ImageFolderData):
        from methods.data.folder import ImageFolder

        return ImageFolder(config.path, split, labels=config.labels)
    if isinstance(config, spec.Cifar10Data):
        from methods.data.cifar10 import Cifar10

        return Cifar10(config.path, split)
    if isinstance(config, spec.ShardsData):
        from methods.data.shards import Shards

        return Shards(config.path, split, labels=config.labels)
    raise TypeError(f"{type(config).__name__} is not a data config; choose one of {', '.join(spec.DATA)}")
