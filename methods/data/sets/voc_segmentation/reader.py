"""PASCAL VOC's segmentation (Everingham et al. 2010) as the data set lays it: a list of images, and for each a PNG
whose colours in the palette are classes."""

import os

import numpy as np
from PIL import Image

from launcher.run import files
from methods.data.decoding import OF_THE_MACHINE
from methods.data.pixel_maps import picture, pixel_map
from methods.data.sets.base import wrong
from methods.data.sets.voc.spec import CLASSES, LIST_BYTES, is_voc_id, voc_folder, voc_image
from methods.data.sets.voc_segmentation.spec import LAID, VocSegmentationData, voc_list, voc_mask

VOID = 255  # the border around an object
KNOWN = {number: number for number in (*range(len(CLASSES) + 1), VOID)}


class VocSegmentation:
    """Images as RGB, in the order of their list; `pixels` as `dataset.PixelDataset` has them.

    Raises InputError where the list is missing or has a line that is no ID, OSError where it cannot be read now, which
    is the machine's fault.
    """

    channels, labels, classes = 3, None, CLASSES

    def __init__(self, config: VocSegmentationData, split: str):
        self._folder, self._max_pixels = voc_folder(config.path, 2012), config.max_pixels
        self._ids = _ids(self._folder, config.learn if split == "train" else "val")

    def __len__(self) -> int:
        return len(self._ids)

    def image(self, index: int) -> Image.Image:
        """RGB, at the size stored."""
        return picture(voc_image(self._folder, self._id(index)), self.name_of(index), self._max_pixels)

    def pixels(self, index: int) -> np.ndarray:
        """uint8 [H, W]: 1 to 20 for a class, 0 for what is none, 255 for borders and what nobody told apart."""
        file = voc_mask(self._folder, self._id(index))
        return pixel_map(file, os.path.relpath(file, os.path.dirname(self._folder)), KNOWN, self._max_pixels)

    def name_of(self, index: int) -> str:
        """Its path in VOCdevkit/."""
        return f"VOC2012/JPEGImages/{self._id(index)}.jpg"

    def _id(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return self._ids[index]


def _ids(folder: str, part: str) -> list[str]:
    file, laid = voc_list(folder, part), LAID.get(part, LAID["train"])
    short = f"ImageSets/Segmentation/{part}.txt"
    try:
        text = files.read(os.path.realpath(file), LIST_BYTES).decode("ascii")
    except FileNotFoundError:
        raise wrong("data", None, f"{file!r} is missing", laid) from None
    except UnicodeDecodeError:
        raise wrong("data", None, f"{short}: it is not plain text", laid) from None
    except (OSError, files.NotOurs) as error:
        if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:  # no fault of the list's: it is waited for
            raise
        raise wrong("data", None, f"{file!r} cannot be read ({error})", "make it readable") from None
    lines = {number: line.strip() for number, line in enumerate(text.split("\n"), 1) if line.strip()}
    for number, line in lines.items():
        if not is_voc_id(line):
            raise wrong("data", None, f"{short}: line {number}, {line[:60]!r}, is not an ID", laid)
    ids = list(lines.values())
    if not ids or len(set(ids)) < len(ids):
        raise wrong("data", None, f"{short}: it {'names an image twice' if ids else 'names no image'}", laid)
    return ids


def read(config: VocSegmentationData, split: str) -> VocSegmentation:
    return VocSegmentation(config, split)
