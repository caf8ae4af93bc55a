"""Mixup and CutMix of two neighbours (Zhang et al., ICLR 2018; Yun et al., ICCV 2019).

Rows 2p and 2p + 1 of a global batch are pair p, and what becomes of them is a function of (seed, step, p, view): it
does not depend on how the batch lies on ranks, as long as both are in one pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from methods.augment.rng import view_rng


@dataclass(frozen=True)
class Drawn:
    """What was drawn for the pairs of a pass, [V, P] each, float64: of view v of both images of pair p.

    cut: 1 for CutMix, 0 for mixup; own: the share lambda that each keeps of itself; centre: of the rectangle that it
    gets of the other, as shares of the side, [2, V, P] of row and column.
    """

    cut: np.ndarray
    own: np.ndarray
    centre: np.ndarray

    def parts(self, views: Sequence[int]) -> list["Drawn"]:
        """Some views each, so many as `views` says, in order."""
        ends = np.cumsum(views)
        return [
            Drawn(self.cut[a:b], self.own[a:b], self.centre[:, a:b]) for a, b in zip(ends - views, ends, strict=True)
        ]


def draw(
    seed: int, step: int, pairs: Sequence[int], views: int, *, mixup: float, cutmix: float, cutmix_share: float
) -> Drawn:
    """pairs: their numbers in the global batch. mixup, cutmix: alpha of Beta(alpha, alpha), from which lambda comes; 0
    leaves one out, and one of them is above 0. cutmix_share: of the pairs, where there are both."""
    likely = cutmix_share if mixup and cutmix else float(cutmix > 0)
    rows = np.empty((views, len(pairs), 4))
    for place, pair in enumerate(pairs):
        for view in range(views):
            rng = view_rng(seed, step, pair, view)
            cut, top, left = rng.random(3)
            cut = float(cut < likely)
            alpha = cutmix if cut else mixup
            rows[view, place] = cut, rng.beta(alpha, alpha), top, left
    cut, own, *centre = np.moveaxis(rows, -1, 0)
    return Drawn(cut, own, np.stack(centre))


def shares(drawn: Drawn, side: int) -> tuple[np.ndarray, np.ndarray]:
    """What is kept of crops of `side` pixels: (float32 [5, V, P]: the weight of an image's own pixels outside of the
    rectangle, and the rectangle's top, bottom, left and right, of which the last row and column are no part; float64
    [V, P]: lambda as it is then, since rectangles are of whole pixels and end at the border)."""
    half = (side * np.sqrt(1 - drawn.own)).astype(np.int64) // 2
    middle = (side * drawn.centre).astype(np.int64)
    low, high = (np.clip(middle + sign * half, 0, side) * drawn.cut for sign in (-1, 1))  # empty for mixup
    area = np.prod(high - low, axis=0)
    weight = np.where(drawn.cut > 0, 1.0, drawn.own)
    table = np.stack([weight, low[0], high[0], low[1], high[1]]).astype(np.float32)
    return table, np.where(drawn.cut > 0, 1 - area / side**2, drawn.own)


def mixed(images: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """x <- m x + (1 - m) x', x' the other of the pair, in all channels alike: m is lambda everywhere (mixup), or 0 in a
    rectangle and 1 outside (CutMix, Eq. 1).

    images: floating point [V B, C, S, S], view after view, where B is even; table: of `shares`, on their device.
    """
    views, pairs = table.shape[1:]
    images = images.unflatten(0, (views, pairs, 2))
    weight, top, bottom, left, right = table[..., None]  # [V, P, 1] each
    at = torch.arange(images.shape[-1], device=images.device)
    inside = ((at >= top) & (at < bottom))[..., :, None] & ((at >= left) & (at < right))[..., None, :]
    own = torch.where(inside, 0.0, weight[..., None])[:, :, None, None]  # m: [V, P, 1, 1, S, S]
    return torch.lerp(images.flip(2), images, own.to(images.dtype)).flatten(0, 2)


def partners(labels: torch.Tensor) -> torch.Tensor:
    """What the other of each pair has: [B] -> [B].

    >>> partners(torch.tensor([5, 6, 7, 8])).tolist()
    [6, 5, 8, 7]
    """
    return labels.view(-1, 2).flip(1).flatten()
