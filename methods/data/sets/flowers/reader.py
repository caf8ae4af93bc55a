"""Oxford Flowers-102. torchvision's reader refuses files whose checksum is another, and gives three splits; tests hold
ours to it."""

import os

import numpy as np

from methods.data.sets.flowers.spec import LABELS, LAID, SETS, FlowersData, flower, flowers_folder
from methods.data.sets.listed import ListedImages
from methods.data.sets.matlab import numbers, variables

PARTS = {"train": ("trnid", "valid"), "test": ("tstid",)}


def read(config: FlowersData, split: str) -> ListedImages:
    """Raises InputError as `variables`, and where they hold something else than numbers of classes and images."""
    from torchvision.datasets import Flowers102

    root = flowers_folder(config.path)
    file = os.path.join(root, LABELS)
    labels = numbers(file, variables(file, ("labels",), LAID)["labels"], 1, 102, LAID) - 1
    file = os.path.join(root, SETS)
    parts = variables(file, PARTS[split], LAID)
    chosen = np.concatenate([numbers(file, parts[part], 1, len(labels), LAID) for part in PARTS[split]])
    names = [flower(number) for number in chosen.tolist()]
    return ListedImages(root, names, labels[chosen - 1], Flowers102.classes, max_pixels=config.max_pixels)
