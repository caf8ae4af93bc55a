"""Vision transformers: timm's modules under timm's names."""

from typing import Any

import timm
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from methods.backbones.published import ours

PATCHES = {"tiny": (16,), "small": (16, 8), "base": (16, 8)}
THEIRS = {f"vit_{size}_{n}": f"vit_{size}_patch{n}_224" for size, patches in PATCHES.items() for n in patches}
LOAD = {
    **{name: f"timm.create_model('{m}', num_classes=0, dynamic_img_size=True)" for name, m in THEIRS.items()},
    "vit_small_5": "timm.models.vision_transformer.VisionTransformer(img_size=220, patch_size=5, embed_dim=384, "
    "depth=12, num_heads=6, num_classes=0, dynamic_img_size=True)",
}


def build(name: str, drop_path: float) -> nn.Module:
    """The trunk called `name`: float [B, 3, H, W] -> class token after the norm [B, feature_dim].

    Position embeddings belong to 224 pixels (220 for patches of 5) and are interpolated to the grid of what comes in,
    bicubic.
    """
    options: dict[str, Any] = {"num_classes": 0, "drop_path_rate": drop_path, "dynamic_img_size": True}
    if name == "vit_small_5":  # sizes as of ViT-S of any patch
        size = {"embed_dim": 384, "depth": 12, "num_heads": 6}
        return ours(VisionTransformer(img_size=220, patch_size=5, **size, **options))
    return ours(timm.create_model(THEIRS[name], **options))


def stages(trunk: nn.Module) -> dict[str, nn.Module]:
    return {f"block{n}": block for n, block in enumerate(trunk.blocks, 1)}
