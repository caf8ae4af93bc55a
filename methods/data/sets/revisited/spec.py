"""Revisited Oxford and Paris (Radenovic et al., CVPR 2018), as far as the launcher knows them."""

import os
from dataclasses import dataclass, field
from typing import ClassVar

from methods.data.listing import MAX_PIXELS
from methods.data.sets.base import DataSet, file_of, folder_of, wrong

IMAGES = "jpg"


@dataclass
class Revisited:
    """What both have in common."""

    truth: ClassVar = ("queries",)
    archives: ClassVar[str]
    name: str = ""
    path: str | None = None
    max_broken: float = 0.01
    max_pixels: int = field(default=MAX_PIXELS, metadata={"science": "given"})

    def check(self, field: str, *, at_hand: bool) -> None:
        if at_hand:
            folder_of(self.path, field, f"the folder {self.name}/")
            file_of(self.file, field, self.path, self.laid)
            images = os.path.join(self.root, IMAGES)
            if not os.path.isdir(images):
                raise wrong(field, self.path, f"{images!r} is missing", self.laid)

    @property
    def root(self) -> str:
        """The folder of that name in `path`, or `path` itself."""
        path = folder_of(self.path, "data", f"the folder {self.name}/")
        inner = os.path.join(path, self.name)
        return inner if os.path.isdir(inner) else path

    @property
    def file(self) -> str:
        """What says which images are relevant."""
        return os.path.join(self.root, f"gnd_{self.name}.pkl")

    @property
    def laid(self) -> str:
        return (
            f"give the folder with {self.name}/{{gnd_{self.name}.pkl,{IMAGES}/NAME.jpg}}, the ground truth beside all "
            f"images of {self.archives} in one folder"
        )


@dataclass
class OxfordData(Revisited, DataSet):
    """70 queries of buildings of Oxford, among 4,993 images. `path` holds roxford5k/, or is that folder."""

    archives: ClassVar = "oxbuild_images.tgz"
    name: str = "roxford5k"


@dataclass
class ParisData(Revisited, DataSet):
    """70 queries of landmarks of Paris, among 6,322 images. `path` holds rparis6k/, or is that folder."""

    archives: ClassVar = "paris_1.tgz and paris_2.tgz"
    name: str = "rparis6k"
