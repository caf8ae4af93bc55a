"""Backbones by name. `spec.py` holds their sizes for the launcher; `build` imports torch and what else it needs."""

from typing import TYPE_CHECKING

from methods.backbones.spec import BACKBONES

if TYPE_CHECKING:
    from torch import nn


def build(name: str, *, dropout: float = 0.0, drop_path: float = 0.0, zero_init_residual: bool = False) -> "nn.Module":
    """The backbone `name`: images [B, C, H, W] -> features [B, feature_dim]. `.trunk` is what is exported.

    Images are uint8, or float that is normalised already (see `colour.py` and `sobel.py`). dropout: before the fully
    connected layers of AlexNet and VGG. drop_path: the last residual branch of a transformer is dropped with this
    probability, those before it less (Huang et al. 2016). zero_init_residual: residual blocks of a ResNet or RegNet
    begin as the identity (Goyal et al. 2017, 5.1). A backbone ignores what it does not have. Weights are drawn as their
    authors draw them, from torch's generator. Raises KeyError for a name that is not in `spec.BACKBONES`.
    """
    from methods.backbones.wrapper import Backbone

    size = BACKBONES[name]
    trunk = _trunk(name, dropout=dropout, drop_path=drop_path, zero_init_residual=zero_init_residual)
    if not size.colour:
        return Backbone(trunk)
    from methods.backbones.colour import ColourInput

    return Backbone(trunk, ColourInput())


def _trunk(name: str, *, dropout: float, drop_path: float, zero_init_residual: bool) -> "nn.Module":
    """Each import where it is needed: torchvision and timm take seconds."""
    if name == "small_vgg":
        from methods.backbones.small import SmallVGG

        return SmallVGG(dropout=dropout)
    if name == "small_resnet":
        from methods.backbones.small_resnet import SmallResNet

        return SmallResNet(zero_init_residual=zero_init_residual)
    if name == "small_vit":
        from methods.backbones.small_vit import SmallViT

        return SmallViT(drop_path=drop_path)
    if name == "vgg16_bn":
        from methods.backbones.vgg import VGG16

        return VGG16(dropout=dropout)
    if name == "alexnet_bn":
        from methods.backbones.alexnet import AlexNet

        return AlexNet(dropout=dropout)
    if name.startswith("resnet50"):
        from methods.backbones.resnet import ResNet50

        return ResNet50(width=int(name.partition("_w")[2] or 1), zero_init_residual=zero_init_residual)
    from methods.backbones import published

    return published.build(name, drop_path=drop_path, zero_init_residual=zero_init_residual)
