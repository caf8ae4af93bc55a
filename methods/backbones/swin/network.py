"""Swin: timm's modules under timm's names."""

import re

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


def _released(name: str) -> str:
    """Liu et al.'s own, in which a stage ends with the layer that timm has begin the next one."""
    return re.sub(r"^layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", name)


def _torchvisions(name: str) -> str:
    """Stages and the layers between them are one row there."""
    name = re.sub(r"^patch_embed\.(proj|norm)", lambda found: f"features.0.{2 * (found[1] == 'norm')}", name)
    name = re.sub(r"^layers\.(\d)\.blocks", lambda found: f"features.{2 * int(found[1]) + 1}", name)
    name = re.sub(r"^layers\.(\d)\.downsample", lambda found: f"features.{2 * int(found[1])}", name)
    return name.replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.3")


NAMES = (_released, _torchvisions)
UNUSED = r"\.(relative_position_index|attn_mask)$"  # follow from the sizes
