"""Patches of the embedded photographs."""

from methods.data.photos import Photos
from methods.data.sets.photos.spec import PhotosData


def read(config: PhotosData, split: str) -> Photos:
    how = {"patch": config.patch, "images": config.images, "colour": config.colour}
    return Photos(split, **how, held_out=config.held_out)
