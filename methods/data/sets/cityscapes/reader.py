"""Cityscapes (Cordts et al., CVPR 2016) as the data set lays it. torchvision's reader would unpack archives that lie
where the folders should."""

import numpy as np
from PIL import Image

from methods.data.pixel_maps import picture, pixel_map
from methods.data.sets.base import unlisted
from methods.data.sets.cityscapes.spec import (
    IMAGE_ENDS,
    IMAGES,
    MASK_ENDS,
    MASKS,
    PARTS,
    CityscapesData,
    image_file,
    mask_file,
    names,
)

VOID = 255
CLASSES = {  # by the id that is in the masks; the others of the 34 are never judged
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
IDS = 34
KNOWN = dict.fromkeys(range(IDS), VOID) | {number: place for place, number in enumerate(CLASSES, 1)}


class Cityscapes:
    """Images as RGB, the cities in order; `pixels` as `dataset.PixelDataset` has them."""

    channels, labels, classes = 3, None, tuple(CLASSES.values())
    background = False  # what is of no class is not judged

    def __init__(self, config: CityscapesData, split: str):
        self._path, self._part, self._max_pixels = config.path, PARTS[split], config.max_pixels
        try:
            self._names = names(self._path, self._part)
        except OSError as error:
            raise unlisted("data", self._path, error) from None

    def __len__(self) -> int:
        return len(self._names)

    def image(self, index: int) -> Image.Image:
        """RGB, at the size stored."""
        return picture(image_file(self._path, self._part, self._name(index)), self.name_of(index), self._max_pixels)

    def pixels(self, index: int) -> np.ndarray:
        """uint8 [H, W]: 1 to 19 for a class, 255 for all else."""
        name = self._name(index)
        said = f"{MASKS}/{self._part}/{name}{MASK_ENDS}"
        return pixel_map(mask_file(self._path, self._part, name), said, KNOWN, self._max_pixels)

    def name_of(self, index: int) -> str:
        """Its path in the data set."""
        return f"{IMAGES}/{self._part}/{self._name(index)}{IMAGE_ENDS}"

    def _name(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return self._names[index]


def read(config: CityscapesData, split: str) -> Cityscapes:
    return Cityscapes(config, split)
