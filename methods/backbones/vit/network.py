"""Vision transformers: timm's modules under timm's names."""

from typing import Any

import timm
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from methods.backbones.published import ours


def build(name: str, drop_path: float) -> nn.Module:
    """The trunk called `name`: float [B, 3, H, W] -> class token after the norm [B, feature_dim].

    Position embeddings belong to 224 pixels (220 for patches of 5) and are interpolated to the grid of what comes in,
    bicubic.
    """
    options: dict[str, Any] = {"num_classes": 0, "drop_path_rate": drop_path, "dynamic_img_size": True}
    if name == "vit_small_5":  # sizes as of ViT-S of any patch
        size = {"embed_dim": 384, "depth": 12, "num_heads": 6}
        return ours(VisionTransformer(img_size=220, patch_size=5, **size, **options))
    _, size, patch = name.split("_")
    return ours(timm.create_model(f"vit_{size}_patch{patch}_224", **options))


def stages(trunk: nn.Module) -> dict[str, nn.Module]:
    return {f"block{n}": block for n, block in enumerate(trunk.blocks, 1)}
