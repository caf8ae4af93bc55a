"""The backbones that timm has: its modules under its names, without classifier."""

from typing import Any

import timm
import torch
from timm.layers import BatchNormAct2d, ConvNormAct
from timm.layers import DropPath as TimmDropPath
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from methods.backbones.dropout import DropPath

VITS = {
    "vit_small_16": "vit_small_patch16_224",
    "vit_small_8": "vit_small_patch8_224",
    "vit_base_16": "vit_base_patch16_224",
    "vit_base_8": "vit_base_patch8_224",
}
REGNETS = {"regnety_128gf": "regnety_1280", "regnety_256gf": "regnety_2560"}


def build(name: str, *, drop_path: float, zero_init_residual: bool) -> nn.Module:
    """The trunk called `name`: float [B, 3, H, W] -> [B, feature_dim].

    Vision transformers give their class token after the norm; position embeddings belong to 224 pixels (220 for patches
    of 5) and are interpolated to the grid of what comes in, bicubic. Swin gives the mean of its last map. Raises
    KeyError for a name that timm does not have.
    """
    options: dict[str, Any] = {"num_classes": 0, "drop_path_rate": drop_path}
    if name in VITS:
        trunk = timm.create_model(VITS[name], dynamic_img_size=True, **options)
    elif name == "vit_small_5":
        size = {"embed_dim": 384, "depth": 12, "num_heads": 6}  # as ViT-S of any patch
        trunk = VisionTransformer(img_size=220, patch_size=5, dynamic_img_size=True, **size, **options)
    elif name == "swin_tiny":
        trunk = timm.create_model("swin_tiny_patch4_window7_224", strict_img_size=False, **options)
    else:
        trunk = timm.create_model(REGNETS[name], zero_init_last=zero_init_residual, num_classes=0)
    for parent in list(trunk.modules()):
        for child, module in list(parent.named_children()):
            if isinstance(module, TimmDropPath):
                setattr(parent, child, DropPath(module.drop_prob))
        if isinstance(parent, ConvNormAct):
            _split_normalisation(parent)
    if name in REGNETS:
        trunk.to(memory_format=torch.channels_last)
    trunk.feature_dim = trunk.num_features
    return trunk


def _split_normalisation(layer: ConvNormAct) -> None:
    """Batch normalisation of its own, its activation behind it: what shares statistics over ranks knows torch's class
    alone. Names stay."""
    fused = layer.bn
    if not isinstance(fused, BatchNormAct2d):
        raise TypeError(f"{type(fused).__name__} in a layer of timm, where BatchNormAct2d was")
    layer.bn = nn.BatchNorm2d(fused.num_features, eps=fused.eps, momentum=fused.momentum)
    layer.bn.load_state_dict(fused.state_dict(), assign=True)
    layer.aa = fused.act  # what the layer calls last
