"""RegNetY: timm's modules under timm's names."""

import timm
import torch
from timm.models.regnet import Bottleneck
from torch import nn

from methods.backbones.published import ours

BLOCK = Bottleneck
THEIRS = {"regnety_128gf": "regnety_1280", "regnety_256gf": "regnety_2560"}
LOAD = {name: f"timm.create_model('{theirs}', num_classes=0)" for name, theirs in THEIRS.items()}


def build(name: str, zero_init_residual: bool) -> nn.Module:
    """The trunk called `name`: float [B, 3, H, W] -> mean of the last map [B, feature_dim]."""
    trunk = ours(timm.create_model(THEIRS[name], zero_init_last=zero_init_residual, num_classes=0))
    return trunk.to(memory_format=torch.channels_last)


def stages(trunk: nn.Module) -> dict[str, nn.Module]:
    return {f"s{n}": getattr(trunk, f"s{n}") for n in range(1, 5)}
