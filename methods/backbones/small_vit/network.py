"""A vision transformer in miniature, for patches of 16 to 48 pixels on a processor without accelerator."""

import torch
from torch import nn
from torch.nn.functional import interpolate, scaled_dot_product_attention

from methods.backbones.dropout import DropPath

EPSILON = 1e-6  # of the norms


class SmallViT(nn.Module):
    """Dosovitskiy et al. 2020 in the form of DeiT (thesis 5.2.2), under timm's names: timm's VisionTransformer of the
    same sizes loads its weights.

    float [B, 3, H, W], H and W multiples of `patch`, -> class token after the norm [B, dim]. Position embeddings belong
    to `grid` x `grid` patches and are interpolated to the grid of what comes in, bicubic.
    """

    def __init__(
        self, patch: int = 4, dim: int = 64, depth: int = 3, heads: int = 2, grid: int = 8, drop_path: float = 0.0
    ):
        """drop_path: probability that the last residual branch is dropped; it grows from 0 with the depth."""
        super().__init__()
        self.grid, self.feature_dim = grid, dim
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, patch, patch)})
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + grid**2, dim))
        rates = [drop_path * number / max(1, depth - 1) for number in range(depth)]
        self.blocks = nn.Sequential(*(TransformerBlock(dim, heads, rate) for rate in rates))
        self.norm = nn.LayerNorm(dim, EPSILON)
        nn.init.normal_(self.cls_token, std=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_features(images)[:, 0]

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Class token and patch tokens, row by row, after the norm [B, 1 + N, dim]."""
        maps = self.patch_embed["proj"](images)
        patches = maps.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        return self.norm(self.blocks(tokens + self.positions(*maps.shape[2:])))

    def positions(self, rows: int, columns: int) -> torch.Tensor:
        """Position embeddings of a grid [1, 1 + rows columns, dim]: to a size, since a scale may round to another."""
        if rows == columns == self.grid:
            return self.pos_embed
        own = self.pos_embed[:, 1:].unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        resized = interpolate(own, size=(rows, columns), mode="bicubic", antialias=True)
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


class TransformerBlock(nn.Module):
    """Attention and a two-layer perceptron, each behind a norm and beside a shortcut."""

    def __init__(self, dim: int, heads: int, drop_path: float):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, EPSILON), nn.LayerNorm(dim, EPSILON)
        self.attn, self.mlp = SelfAttention(dim, heads), FeedForward(dim)
        self.drop_path1, self.drop_path2 = DropPath(drop_path), DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.drop_path1(self.attn(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


class SelfAttention(nn.Module):
    """Self-attention of `heads` heads (Vaswani et al. 2017, Eq. 1)."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.num_heads = heads  # as timm calls it
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # [B, N, 3 dim] -> three of [B, heads, N, dim / heads]
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Twice as wide inside; four times is usual, and would take the whole network 1.4 times the multiplications."""

    def __init__(self, dim: int):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x)))


build = SmallViT
LOAD = (
    "timm.models.vision_transformer.VisionTransformer(img_size=32, patch_size=4, embed_dim=64, depth=3, num_heads=2, "
    "mlp_ratio=2, num_classes=0, dynamic_img_size=True)"
)


def stages(trunk: nn.Module) -> dict[str, nn.Module]:
    return {f"block{n}": block for n, block in enumerate(trunk.blocks, 1)}
