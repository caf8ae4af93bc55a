"""Semantic segmentation: a fully convolutional network (Long et al. 2015) on the backbone, all of it trained on (SMoG,
Table 5).

sslrun eval RUN protocol=segmentation eval_data=voc_segmentation eval_data.path=/data/VOCdevkit
"""

from dataclasses import dataclass, field
from typing import ClassVar

from launcher.errors import InputError
from methods.backbones.spec import PACKAGES
from methods.evals.settings import Settings

ABLE = ("methods.backbones.resnet", "methods.backbones.small_resnet")
STRIDES = (4, 8, 16, 32)
SCHEDULES = ("steps", "poly")


@dataclass
class Segmentation(Settings):
    """MoCo's recipe for PASCAL VOC (He et al. 2020, appendix), which SlotCon's released configuration writes out
    (fcn_d6_r50-d16_513x513_30k_voc12aug_moco); for Cityscapes both have rate=0.01 steps=90000 drops=[63000,81000]
    crop=769.

    convolutions, channels, dilation: of the 3 x 3 convolutions before the classifier. stride: pixels from one place of
    the last map to the next, at most; the last stages keep their resolution, and dilate their convolutions, to have it.
    torchvision's fcn_resnet50 is stride=8 convolutions=1 channels=512 dilation=1.
    """

    name, title, place, trains = "segmentation", "semantic segmentation", 15, True
    needs: ClassVar = ("pixels",)
    zero, empty = ("momentum", "weight_decay", "flip"), ("drops",)
    scores: ClassVar = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "mean_accuracy": "its mean over classes"}
    steps: int = 30_000
    batch: int = 16  # images a step, over all ranks
    rate: float = 0.003  # of a step, whatever the batch
    schedule: str = "steps"  # steps: see `drops` | poly: rate (1 - step / steps)^0.9
    drops: list[int] = field(default_factory=lambda: [21_000, 27_000])  # steps from which on the rate is a tenth
    momentum: float = 0.9
    weight_decay: float = 1e-4  # of all that is trained
    crop: int = 513  # side of the square that is learnt from, in pixels; what lies beyond an image is not counted
    scale: list[float] = field(default_factory=lambda: [0.5, 2.0])  # an image is enlarged by before it is cropped
    side: int | None = None  # pixels that an image's shorter side becomes before all that; null: as it is
    flip: float = 0.5  # share of the images that are mirrored
    stride: int = 16
    convolutions: int = 2
    channels: int = 256
    dilation: int = 6

    def check(self, backbone: str) -> None:
        super().check(backbone)
        if PACKAGES.get(backbone) not in ABLE:
            able = ", ".join(name for name, package in PACKAGES.items() if package in ABLE)
            reason = f"it is here for residual networks, and the run has {backbone}"
            raise InputError.of("protocol", self.name, reason, f"give a run with one of {able}")
        self.refuse_unless("stride", self.stride in STRIDES, "no such stride", f"give {', '.join(map(str, STRIDES))}")
        self.refuse_unless("schedule", self.schedule in SCHEDULES, "unknown", f"choose {' or '.join(SCHEDULES)}")
        self.refuse_unless("drops", len(set(self.drops)) == len(self.drops), "one comes twice", "leave one out")
        fits = len(self.scale) == 2 and self.scale[0] <= self.scale[1] <= 8
        self.refuse_unless("scale", fits, "no range of factors", "give two numbers, 0 < a <= b <= 8")
        self.refuse_unless("momentum", self.momentum < 1, "out of range", "give 0 to 0.99")
        self.refuse_unless("flip", self.flip <= 1, "a share of the images", "give 0 to 1")
        self.refuse_unless("crop", 16 <= self.crop <= 4096, "out of range", "give 16 to 4096")
