"""Backbones by name. `spec.py` holds their sizes for the launcher; `build` imports torch and what else it needs."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def build(name: str, *, dropout: float) -> "nn.Module":
    """uint8 images [B, C, H, W] -> features [B, feature_dim], through a Sobel filter. `.trunk` is what is exported.

    Raises KeyError for a name that is not in `spec.BACKBONES`.
    """
    from methods.backbones.wrapper import Backbone

    if name == "vgg16_bn":
        from methods.backbones.vgg import VGG16

        return Backbone(VGG16(dropout=dropout))
    if name == "small_vgg":
        from methods.backbones.small import SmallVGG

        return Backbone(SmallVGG(dropout=dropout))
    raise KeyError(name)
