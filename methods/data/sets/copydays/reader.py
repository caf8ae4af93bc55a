"""INRIA Copydays (Douze et al. 2009) as its authors lay it: a folder of photographs, and one of attacks on them."""

import os
from collections.abc import Callable

import numpy as np

from launcher.errors import InputError
from methods.data.listing import absolute, is_image_name, listing
from methods.data.sets.copydays.spec import LAID, ORIGINAL, PREFIX, STRONG, CopydaysData
from methods.data.sets.listed import ListedImages, is_inside


class Copydays(ListedImages):
    """RGB images. Split "test": the originals, the distractors, then the strong attacks, whose originals are those with
    the same first four characters of a name. Split "train": what a whitening is learnt from.

    Raises InputError where a folder holds no image, and where an attack has no original.
    """

    def __init__(self, config: CopydaysData, split: str):
        path = absolute(config.path)
        found: list[str] = []
        if split == "train":
            found = _images(config.whitening, is_image_name, "data.whitening") if config.whitening else []
        else:
            originals, copies = (
                _images(os.path.join(path, name), lambda file: file.endswith(".jpg"), "data.path")
                for name in (ORIGINAL, STRONG)
            )
            others = _images(config.distractors, is_image_name, "data.distractors") if config.distractors else []
            found = [*originals, *others, *copies]
            self.database = len(originals) + len(others)
            starts = np.array([os.path.basename(name)[:PREFIX] for name in originals])
            self.originals = tuple(np.flatnonzero(starts == os.path.basename(name)[:PREFIX]) for name in copies)
            for name, original in zip(copies, self.originals, strict=True):
                if not len(original):
                    reason = f"{name!r} begins like none of {ORIGINAL}/"
                    raise InputError.of("data.path", ..., reason, LAID)
        super().__init__("/", [name.lstrip("/") for name in found], [], (), max_pixels=config.max_pixels)
        self.labels = self.classes = None


def _images(folder: str, wanted: Callable[[str], bool], field: str) -> list[str]:
    """The paths of the images directly in `folder`, by name."""
    try:
        names = sorted(name for name, inner in listing(folder) if not inner and wanted(name) and is_inside(name))
    except OSError as error:
        raise InputError.of(field, ..., f"{folder!r} cannot be listed ({error.strerror})", LAID) from None
    if not names:
        raise InputError.of(field, ..., f"{folder!r} holds no image", "give a folder with images directly in it")
    return [os.path.join(folder, name) for name in names]


def read(config: CopydaysData, split: str) -> Copydays:
    return Copydays(config, split)
