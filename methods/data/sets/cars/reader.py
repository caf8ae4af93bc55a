"""Stanford Cars, read as torchvision reads it, which tests hold it to."""

import os

import numpy as np

from methods.data.sets.cars.spec import FOLDERS, LAID, LISTS, META, CarsData, cars_folder
from methods.data.sets.listed import ListedImages, is_inside, refuse_unless
from methods.data.sets.matlab import numbers, variables


def read(config: CarsData, split: str) -> ListedImages:
    """Raises InputError as `variables`, and where they hold something else than names and classes."""
    root = cars_folder(config.path)
    file = os.path.join(root, META)
    classes = [str(name) for name in np.atleast_1d(variables(file, ("class_names",), LAID)["class_names"])]
    refuse_unless(len(classes) == 196, file, f"it names {len(classes)} classes, not 196", LAID)
    file = os.path.join(root, LISTS[split])
    said = np.atleast_1d(variables(file, ("annotations",), LAID)["annotations"])
    refuse_unless({"class", "fname"} <= {*(said.dtype.names or ())}, file, "no `class` and `fname` in it", LAID)
    names = [str(name) for name in said["fname"]]
    refuse_unless(all(map(is_inside, names)), file, "it names something else than images", LAID)
    labels = numbers(file, np.array(said["class"].tolist()), 1, len(classes), LAID) - 1
    names = [f"{FOLDERS[split]}/{name}" for name in names]
    return ListedImages(root, names, labels, classes, max_pixels=config.max_pixels)
