"""Swin: timm's modules under timm's names."""

import timm
from torch import nn

from methods.backbones.published import ours

MAP = (1, 2)  # the sides of a stage's map [B, H, W, C]
LOAD = "timm.create_model('swin_tiny_patch4_window7_224', num_classes=0, strict_img_size=False)"


def build(drop_path: float) -> nn.Module:
    """float [B, 3, H, W] -> mean of the last map [B, feature_dim]."""
    options = {"num_classes": 0, "drop_path_rate": drop_path, "strict_img_size": False}
    return ours(timm.create_model("swin_tiny_patch4_window7_224", **options))


def stages(trunk: nn.Module) -> dict[str, nn.Module]:
    return {f"layer{n}": layer for n, layer in enumerate(trunk.layers, 1)}
