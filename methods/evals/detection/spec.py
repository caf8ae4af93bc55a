"""Fine-tuning of a detector that begins with the backbone: Faster R-CNN or Mask R-CNN with a feature pyramid (SMoG,
Table 6; thesis Table 4.2).

sslrun eval RUN protocol=detection eval_data=coco eval_data.path=/data/coco
sslrun eval RUN protocol=detection eval_data=made/objects detection.steps=300 detection.batch=8 detection.rate=0.05 \
    detection.warmup=20 'detection.drops=[200,270]' 'detection.sides=[64]' 'detection.anchors=[8,12,16,24,32]' \
    detection.width=32 detection.hidden=64 detection.proposals=60 detection.rois=32
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

from launcher.errors import InputError
from methods.backbones.spec import PACKAGES
from methods.evals.settings import Settings

DETECTORS = ("mask_rcnn", "faster_rcnn")
NORMS = ("synchronised", "frozen")
RULES = ("coco", "voc07", "area")
FAMILIES = ("resnet", "small_resnet", "vgg", "small_vgg")  # convolutions, in stages that halve the map
LEVELS = 5  # of the pyramid: four stages, and the last one halved once more
STAGES = 4


@dataclass
class Detection(Settings):
    """COCO as Detectron2 trains it once ("1x": Base-RCNN-FPN.yaml), with what MoCo's released configuration changes for
    networks that learnt without labels: nothing is frozen, and batch normalisation is synchronised. Its VOC07+12 is
    steps=24000 drops=[18000,22000] warmup=100 sides=[480,512,...,800] detector=faster_rcnn rule=voc07 difficult=true.
    """

    name, title, place, trains, needs = "detection", "detection", 14, True, ("boxes", "masks")
    zero, empty = ("warmup", "frozen", "weight_decay", "momentum"), ("drops",)
    scores: ClassVar = {
        **{"ap": "AP", "ap50": "AP50", "ap75": "AP75"},
        **{"mask_ap": "mask AP", "mask_ap50": "mask AP50", "mask_ap75": "mask AP75"},
    }
    detector: str = "mask_rcnn"  # mask_rcnn | faster_rcnn
    steps: int = 90_000
    batch: int = 16  # images a step, over all ranks
    rate: float = 0.02  # of a step, whatever the batch
    warmup: int = 1000  # steps in which the rate grows from a thousandth
    drops: list[int] = field(default_factory=lambda: [60_000, 80_000])  # steps from which on the rate is a tenth
    momentum: float = 0.9
    weight_decay: float = 1e-4  # not of batch normalisation
    norm: str = "synchronised"  # batch normalisation, synchronised over the ranks and in the pyramid, too; or frozen
    frozen: int = 0  # stages of the backbone that learn nothing, from the first one on
    sides: list[int] = field(default_factory=lambda: [640, 672, 704, 736, 768, 800])  # shorter; the largest judges
    longest: int = 1333  # pixels of an image's longer side, at most
    anchors: list[int] = field(default_factory=lambda: [32, 64, 128, 256, 512])  # pixels, one for each level
    width: int = 256  # channels of the pyramid
    hidden: int = 1024  # units of each of the two layers that tell what a box holds
    proposals: int = 1000  # boxes of an image that are looked at
    rois: int = 512  # of them that are learnt from
    difficult: bool = False  # learn from difficult objects, too
    rule: str = "coco"  # of the boxes' average precision: coco | voc07, eleven points | area, under the curve

    def check_images(self, data: Any) -> None:
        masks = self.detector != "mask_rcnn" or "masks" in data.truth
        reason = f"it learns from a mask of each object, and {data.name} has none"
        self.refuse_unless("detector", masks, reason, "use detection.detector=faster_rcnn")

    def check(self, backbone: str) -> None:
        super().check(backbone)
        family = PACKAGES[backbone].rpartition(".")[2]
        able = [name for name, package in PACKAGES.items() if package.rpartition(".")[2] in FAMILIES]
        if family not in FAMILIES:
            reason = f"the backbone {backbone} has no convolutions in {STAGES} stages that are known here"
            raise InputError.of("protocol", self.name, reason, f"give a run with one of {', '.join(able)}")
        for name, known in (("detector", DETECTORS), ("norm", NORMS), ("rule", RULES)):
            self.refuse_unless(name, getattr(self, name) in known, "no such choice", f"use {' or '.join(known)}")
        self.refuse_unless("momentum", self.momentum < 1, "out of range", "give 0 to 0.99")
        self.refuse_unless("frozen", self.frozen <= STAGES, f"there are {STAGES} stages", f"give 0 to {STAGES}")
        self.refuse_unless("longest", self.longest >= max(self.sides), "a shorter side is longer", "give more")
        fits = len(self.anchors) == LEVELS and all(smaller < larger for smaller, larger in pairwise(self.anchors))
        self.refuse_unless("anchors", fits, f"there are {LEVELS} levels", f"give {LEVELS} sizes, the smallest first")
