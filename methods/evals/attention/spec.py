"""Attention of the class token in the last layer of a vision transformer (thesis 5.5.2): pictures, and where there are
masks the Jaccard similarity with what holds 60 % of the attention."""

import os
from dataclasses import dataclass
from typing import ClassVar

from launcher.errors import InputError
from launcher.spec import paths
from methods.backbones.spec import BACKBONES
from methods.evals.settings import Settings


@dataclass
class Attention(Settings):
    name, title, place, needs, zero = "attention", "attention", 6, (), ("pictures",)
    scores: ClassVar = {
        "jaccard": "Jaccard, best head",
        "jaccard_best": "best head of each image",
        "jaccard_objects": "best head of each object",
        "images": "images with masks",
    }
    no_percent = ("images",)
    drawn = ("pictures",)
    pictures: int = 8
    size: int | None = None  # pixels of an image's shorter side; the run's image_size by default; thesis: 480
    mass: float = 0.6
    masks: str | None = None  # a folder with a mask at PATH.png for an image at PATH of the data set

    def __post_init__(self) -> None:
        if self.masks:  # the job runs in another folder than who asks for it
            self.masks = str(paths.absolute(self.masks))

    def check(self, backbone: str) -> None:
        super().check(backbone)
        self.refuse_unless("mass", self.mass <= 1, "a share of the attention", "give a number up to 1")
        if backbone not in BACKBONES or not BACKBONES[backbone].class_token:
            able = ", ".join(name for name, size in BACKBONES.items() if size.class_token)
            reason = f"the backbone {backbone} has no class token"
            raise InputError.of("protocol", self.name, reason, f"give a run with one of {able}")
        if self.masks is not None:
            self.refuse_unless("masks", os.path.isdir(self.masks), "there is no such folder", "give a folder of PNG")
        if self.size is not None:
            patch = BACKBONES[backbone].patch
            self.refuse_unless("size", self.size >= patch, f"not one patch of {patch} pixels", f"give {patch} or more")
