"""iNaturalist 2018 and 2019 by their JSON files. torchvision's reader knows no splits: it takes the images of both."""

import json
import os
from typing import Any

from methods.data.listing import absolute
from methods.data.sets.base import wrong
from methods.data.sets.inaturalist.spec import CLASSES, INaturalistData, laid, said_of
from methods.data.sets.listed import ListedImages, content_of, is_inside

JSON_BYTES = 512 << 20  # of a file, at most; that of the training images of 2018 has some 120 MB


def read(config: INaturalistData, split: str) -> ListedImages:
    """Raises InputError as `content_of`, and where the file says something else."""
    root, classes = absolute(config.path), CLASSES[config.year]
    file, fix = os.path.join(root, said_of(config.year, split)), laid(config.year)
    try:
        said = json.loads(content_of(file, JSON_BYTES, fix))
        names = {_number(each["id"]): _name(each["file_name"]) for each in said["images"]}
        of_image = {_number(each["image_id"]): _number(each["category_id"]) for each in said["annotations"]}
        called = {_number(each["id"]): str(each["name"]) for each in said["categories"]}
        labels = [of_image[number] for number in names]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{file!r} is not as published ({type(error).__name__}: {error})".replace("\n", " ")
        raise wrong("data", None, reason, fix) from None
    if not names or sorted(called) != [*range(classes)] or not {*labels} <= called.keys():
        reason = f"{file!r} has no images of categories 0 to {classes - 1}"
        raise wrong("data", None, reason, fix)
    classes = [called[number] for number in range(classes)]
    return ListedImages(root, [*names.values()], labels, classes, max_pixels=config.max_pixels)


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{str(value)[:40]!r} is no number")
    return value


def _name(value: Any) -> str:
    if not is_inside(value):
        raise ValueError(f"{str(value)[:60]!r} names no image")
    return value
