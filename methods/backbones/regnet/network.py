"""RegNetY: timm's modules under timm's names."""

import re

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


def _torchvisions(name: str) -> str:
    """timm -> torchvision, which numbers blocks from 0 and has its layers in rows."""
    name = re.sub(r"^stem\.(conv|bn)", lambda found: f"stem.{_place(found)}", name)
    name = re.sub(r"^s(\d)\.b(\d+)", lambda found: f"block{found[1]}.block{found[1]}-{int(found[2]) - 1}", name)
    name = re.sub(r"^block", "trunk_output.block", name)
    name = re.sub(r"\.conv(\d)\.(conv|bn)", lambda found: f".f.{'abc'[int(found[1]) - 1]}.{_place(found, 2)}", name)
    name = re.sub(r"\.downsample\.(conv|bn)", lambda found: f".proj.{_place(found)}", name)
    return name.replace(".se.", ".f.se.")


def _vissls(name: str) -> str:
    """timm -> VISSL, around the RegNet of ClassyVision."""
    name = _torchvisions(name)
    name = re.sub(r"^stem\.", "conv1.stem.", name)
    name = re.sub(r"^trunk_output\.block(\d)", lambda found: f"res{int(found[1]) + 1}.block{found[1]}", name)
    name = re.sub(r"\.block\d(\.block)", r"\1", name)
    name = name.replace(".f.c.0.", ".f.c.").replace(".f.c.1.", ".f.final_bn.")
    name = name.replace(".proj.0.", ".proj.").replace(".proj.1.", ".bn.")
    return name.replace(".se.fc1.", ".se.excitation.0.").replace(".se.fc2.", ".se.excitation.2.")


def _place(found: re.Match[str], group: int = 1) -> int:
    return ("conv", "bn").index(found[group])


NAMES = (_torchvisions, _vissls)
