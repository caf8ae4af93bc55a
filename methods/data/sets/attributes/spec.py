"""CUB-200-2011 and Animals with Attributes 2 in the proposed splits of Xian et al. 2018, as far as the launcher knows
them."""

import os
from dataclasses import dataclass, field
from typing import ClassVar

from methods.data.listing import MAX_PIXELS
from methods.data.sets.base import DataSet, file_of, folder_of, wrong

SPLITS, FILES = "att_splits.mat", "res101.mat"  # attributes and splits; which image has which number


class ProposedSplits:
    """What both have in common: images as published, beside the xlsa17/ of the proposed splits."""

    shots: ClassVar[str]  # the folder with a folder of images for each class
    splits: ClassVar[str]  # that with SPLITS and FILES
    archive: ClassVar[str]

    def laid(self) -> str:
        """How the data set lies, as a fix."""
        made = f"{{{self.shots}/CLASS/...,{self.splits}/{{{SPLITS},{FILES}}}}}"
        return f"unpack {self.archive} and xlsa17.zip into one folder, which makes {made}"

    def check(self, field: str, *, at_hand: bool) -> None:
        if not at_hand:
            return
        root = folder_of(self.path, field, "the folder with xlsa17/")
        for name in (SPLITS, FILES):
            file_of(os.path.join(root, self.splits, name), field, self.path, self.laid())
        shots = os.path.join(root, self.shots)
        if not os.path.isdir(shots):
            raise wrong(field, self.path, f"{shots!r} is missing", self.laid())


@dataclass
class CubData(ProposedSplits, DataSet):
    """Caltech-UCSD Birds-200-2011 (Wah et al. 2011) with its 312 attributes, 150 seen and 50 unseen classes. An image
    of more than `max_pixels` is a broken one."""

    truth: ClassVar = ("label", "attributes")
    shots: ClassVar = "CUB_200_2011/images"
    splits: ClassVar = "xlsa17/data/CUB"
    archive: ClassVar = "CUB_200_2011.tgz"
    class_count: ClassVar = 200
    images: ClassVar[int] = 7_057
    name: str = "cub"
    path: str | None = None
    max_broken: float = 0.01
    max_pixels: int = field(default=MAX_PIXELS, metadata={"science": "given"})


@dataclass
class Awa2Data(ProposedSplits, DataSet):
    """Animals with Attributes 2 (Xian et al. 2018) with its 85 attributes, 40 seen and 10 unseen classes. An image of
    more than `max_pixels` is a broken one."""

    truth: ClassVar = ("label", "attributes")
    shots: ClassVar = "Animals_with_Attributes2/JPEGImages"
    splits: ClassVar = "xlsa17/data/AWA2"
    archive: ClassVar = "AwA2-data.zip"
    class_count: ClassVar = 50
    images: ClassVar[int] = 23_527
    name: str = "awa2"
    path: str | None = None
    max_broken: float = 0.01
    max_pixels: int = field(default=MAX_PIXELS, metadata={"science": "given"})
