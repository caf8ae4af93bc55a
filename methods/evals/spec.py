"""What can be asked of each protocol, with the papers' settings as defaults; the launcher reads it. Imports no torch.

sslrun eval RUN protocol=linear linear.epochs=10 'linear.rates=[0.1,1]'
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from launcher.errors import InputError
from methods.backbones.spec import BACKBONES

PROBES = ("logistic", "knn")


@dataclass
class KNN:
    """Weighted nearest neighbours (thesis 5.3.2, after Wu et al. 2018); the released code of DINO tries these k."""

    neighbours: list[int] = field(default_factory=lambda: [10, 20, 100, 200])
    temperature: float = 0.07


@dataclass
class Linear:
    """A linear classifier by SGD on frozen features of random crops and flips (thesis 5.3.2). Epochs, batch, momentum
    and no weight decay as in the released code of DINO; its rates, as SwAV's 0.3, lie within ours."""

    epochs: int = 100
    batch: int = 1024  # images a step, over all ranks; all of them where there are fewer
    rates: list[float] = field(default_factory=lambda: [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])  # at 256
    momentum: float = 0.9
    weight_decay: float = 0.0
    crop_scale: list[float] = field(default_factory=lambda: [0.08, 1.0])  # share of the area, torchvision's default


@dataclass
class Logistic:
    """Multinomial logistic regression by L-BFGS on features of centre crops (Kolesnikov et al. 2019, supplement 2): at
    most 800 updates, and a penalty l2 |W|^2 beside the mean loss, by default 100 / (d classes)."""

    iterations: int = 800
    l2: float | None = None


@dataclass
class Layers:
    """A probe on every stage of the backbone, averaged over its map (Kolesnikov et al. 2019, Table 1, and ClusterFit's
    Figure 4 look at layers so; both keep more than the average)."""

    probe: str = "logistic"  # logistic | knn
    iterations: int = 200  # of logistic
    l2: float | None = None
    neighbours: int = 20  # of knn


@dataclass
class Groups:
    """Entropy of the labels within groups (SMoG, Figure 5: 3,000 groups). The groups are those of k-means of the
    backbone's features, for every method alike, not the prototypes that a method trained with."""

    groups: int | None = None  # 3,000, or a tenth of the images where that is less
    iterations: int = 20


@dataclass
class Attention:
    """Attention of the class token in the last layer of a vision transformer (thesis 5.5.2): pictures, and where there
    are masks the Jaccard similarity with what holds 60 % of the attention."""

    pictures: int = 8
    size: int | None = None  # pixels of an image's shorter side; the run's image_size by default; thesis: 480
    mass: float = 0.6
    masks: str | None = None  # a folder with a mask at PATH.png for an image at PATH of the data set


PROTOCOLS: dict[str, type] = {
    "knn": KNN,
    "linear": Linear,
    "logistic": Logistic,
    "layers": Layers,
    "groups": Groups,
    "attention": Attention,
}
UNLABELLED = ("attention",)  # protocols that need no labels
_ATTENTIVE = tuple(name for name, size in BACKBONES.items() if size.class_token)


def changed(protocol: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a protocol's `settings` that are not the defaults."""
    usual = vars(PROTOCOLS[protocol]())
    return {name: value for name, value in settings.items() if value != usual.get(name)}


def called(protocol: str, changes: Mapping[str, Any]) -> str:
    """What the scores of a protocol with these `changes` stand under: linear, or linear(epochs=1,rates=[0.1,1.0])."""
    texts = {k: v if isinstance(v, str) else json.dumps(v, separators=(",", ":")) for k, v in changes.items()}
    return f"{protocol}({','.join(f'{k}={v}' for k, v in texts.items())})" if changes else protocol


def check(protocol: str, settings: Any, backbone: str) -> None:
    """Raises InputError naming the first setting of `protocol` that cannot be."""

    def refuse_unless(name: str, holds: bool, reason: str, fix: str) -> None:
        if not holds:
            raise InputError.of(f"{protocol}.{name}", getattr(settings, name), reason, fix)

    for name, value in vars(settings).items():
        numbers = value if isinstance(value, list | tuple) else [value]
        if isinstance(value, list | tuple):
            refuse_unless(name, len(value) > 0, "it is empty", "give one value or more")
        for number in numbers:
            if isinstance(number, int | float):
                zero = name in ("l2", "weight_decay", "momentum", "pictures")
                fits = (number >= 0 if zero else number > 0) and number < math.inf
                refuse_unless(name, fits, "out of range", f"give {'0 or more' if zero else 'a positive number'}")
    if protocol == "linear":
        scale = settings.crop_scale
        fits = len(scale) == 2 and scale[0] <= scale[1] <= 1
        refuse_unless("crop_scale", fits, "no range of shares of the area", "give two numbers, 0 < a <= b <= 1")
        refuse_unless("momentum", settings.momentum < 1, "out of range", "give 0 to 0.99")
        refuse_unless("rates", len(set(settings.rates)) == len(settings.rates), "one comes twice", "leave one out")
    if protocol == "layers":
        refuse_unless("probe", settings.probe in PROBES, "no such probe", f"use {' or '.join(PROBES)}")
    if protocol == "groups" and settings.groups is not None:
        refuse_unless("groups", settings.groups > 1, "all images are in it", "give 2 or more")
    if protocol == "attention":
        refuse_unless("mass", settings.mass <= 1, "a share of the attention", "give a number up to 1")
        if backbone not in _ATTENTIVE:
            reason = f"the backbone {backbone} has no class token"
            raise InputError.of("protocol", protocol, reason, f"give a run with one of {', '.join(_ATTENTIVE)}")
        if settings.masks is not None:
            refuse_unless("masks", os.path.isdir(settings.masks), "there is no such folder", "give a folder of PNG")
        if settings.size is not None:
            patch = BACKBONES[backbone].patch
            refuse_unless("size", settings.size >= patch, f"not one patch of {patch} pixels", f"give {patch} or more")
