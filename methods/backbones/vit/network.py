"""Vision transformers: timm's modules under timm's names."""

import re
from functools import partial
from types import MethodType
from typing import Any

import timm
import torch
from timm.layers import resample_abs_pos_embed
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
    bicubic and with antialiasing, which is our choice.
    """
    options: dict[str, Any] = {"num_classes": 0, "drop_path_rate": drop_path, "dynamic_img_size": True}
    if name == "vit_small_5":  # sizes as of ViT-S of any patch
        size = {"embed_dim": 384, "depth": 12, "num_heads": 6}
        return ours(VisionTransformer(img_size=220, patch_size=5, **size, **options))
    return ours(timm.create_model(THEIRS[name], **options))


def as_published(trunk: VisionTransformer) -> None:
    """Have `trunk` interpolate its positions as the released code of DINO does, bicubic without antialiasing."""
    # Private, because timm has no public way to it; the tests notice a change.
    trunk._pos_embed = MethodType(_positioned, trunk)


def _positioned(trunk: VisionTransformer, patches: torch.Tensor) -> torch.Tensor:
    """patches [B, rows, columns, dim] -> class token and patches, each with its position [B, 1 + N, dim]."""
    grids = {"new_size": list(patches.shape[1:3]), "old_size": list(trunk.patch_embed.grid_size)}
    positions = resample_abs_pos_embed(trunk.pos_embed, num_prefix_tokens=1, antialias=False, **grids)
    tokens = torch.cat([trunk.cls_token.expand(len(patches), -1, -1), patches.flatten(1, 2)], dim=1)
    return trunk.pos_drop(tokens + positions)


def stages(trunk: nn.Module) -> dict[str, nn.Module]:
    return {f"block{n}": block for n, block in enumerate(trunk.blocks, 1)}


# timm -> torchvision, in order. The qkv of timm is the in_proj of torch's attention, row for row.
TORCHVISION = (
    (r"^cls_token$", "class_token"), (r"^pos_embed$", "encoder.pos_embedding"), (r"^patch_embed\.proj\.", "conv_proj."),
    (r"^norm\.", "encoder.ln."), (r"^blocks\.", "encoder.layers.encoder_layer_"), (r"\.norm(\d)\.", r".ln_\1."),
    (r"\.attn\.qkv\.", ".self_attention.in_proj_"), (r"\.attn\.proj\.", ".self_attention.out_proj."),
)  # fmt: skip
# How its multi-layer perceptron is called, in files since 2022 and before.
LAYERS = (("mlp.0", "mlp.3"), ("mlp.linear_1", "mlp.linear_2"))


def _torchvisions(name: str, layers: tuple[str, str]) -> str:
    for pattern, theirs in (*TORCHVISION, (r"mlp\.fc1", layers[0]), (r"mlp\.fc2", layers[1])):
        name = re.sub(pattern, theirs, name)
    return name


NAMES = tuple(partial(_torchvisions, layers=layers) for layers in LAYERS)
