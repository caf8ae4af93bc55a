"""Objects followed through a video by frozen features (thesis Table 5.6, after Jabri et al. 2020; DAVIS 2017)."""

from dataclasses import dataclass
from typing import ClassVar

from methods.backbones.spec import BACKBONES
from methods.evals.settings import Settings

CELL = 32  # pixels a side that a convolutional network's last map has one cell for


@dataclass
class Video(Settings):
    """As the released evaluation of DINO on DAVIS 2017."""

    name, title, place, zero = "video", "video segmentation", 13, ("pictures",)
    needs: ClassVar = ("clips",)
    drawn = ("pictures",)
    scores: ClassVar = {"j_and_f": "J&F", "j_mean": "J", "f_mean": "F", "j_recall": "J recall", "f_recall": "F recall"}
    frames: int = 7  # before the present one, beside the first, whose labels are propagated
    nearest: int = 5  # patches of all these that a patch has its label from
    radius: int = 12  # in patches: rows and columns within which these lie
    temperature: float = 0.1
    side: int = 480  # pixels of a frame's shorter side, at most
    pictures: int = 0  # clips of which a strip of frames is shown

    def check(self, backbone: str) -> None:
        super().check(backbone)
        stride = (BACKBONES[backbone].patch if backbone in BACKBONES else None) or CELL
        fix = f"give a multiple of {stride}"
        self.refuse_unless("side", self.side % stride == 0, f"{backbone} takes {stride} pixels at a time", fix)
