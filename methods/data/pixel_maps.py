"""Files of which each pixel is a number of a class, and the pictures that they belong to."""

import os
from collections.abc import Mapping

import numpy as np
from PIL import Image

from launcher.run import files
from methods.data.dataset import BrokenImage
from methods.data.decoding import decode, forgiving, look, why_broken
from methods.data.listing import MAX_PIXELS

LEVELS = 256


def picture(file: str, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """RGB, at the size stored. Raises BrokenImage, which says `name`."""
    try:
        # A link leads to a plain file, or is broken: a pipe would be waited for.
        with open(files.opened(os.path.realpath(file)), "rb") as stream:
            return decode(stream, max_pixels=max_pixels)
    except Exception as error:  # damaged bytes lead a decoder anywhere
        raise BrokenImage(name, why_broken(error)) from error


def pixel_map(file: str, name: str, classes: Mapping[int, int], max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """uint8 [H, W]: of each pixel of a PNG `classes[number]`, where number is its grey level or its place in the
    palette. Raises BrokenImage, which says `name`, where there is more than that to a pixel, and for a number that is
    not in `classes`."""
    try:
        with open(files.opened(os.path.realpath(file)), "rb") as stream:
            numbers = forgiving(stream, lambda found: _numbers(look(found, max_pixels)))
        there = np.flatnonzero(np.bincount(numbers.ravel(), minlength=LEVELS)).tolist()
        if strange := [number for number in there if number not in classes]:
            raise ValueError(f"a pixel is {strange[0]}, which is no class")
        return np.array([classes.get(number, 0) for number in range(LEVELS)], np.uint8)[numbers]
    except Exception as error:
        raise BrokenImage(name, why_broken(error)) from error


def _numbers(image: Image.Image) -> np.ndarray:
    if getattr(image, "mode", "") not in ("L", "P"):
        raise ValueError("not one number of 8 bits a pixel")
    with image:
        return np.asarray(image)
