"""Mixup and CutMix of two neighbours (Zhang et al., ICLR 2018; Yun et al., ICCV 2019).

Rows 2p and 2p + 1 of a global batch are pair p, and what becomes of them is a function of (seed, step, p, view): it
does not depend on how the batch lies on ranks, as long as both are in one pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from methods.augment.rng import view_rng
from methods.parts.host import on_device


@dataclass(frozen=True)
class Mixing:
    """mixup, cutmix: alpha of Beta(alpha, alpha), which lambda comes from, the share that an image keeps of itself; 0
    leaves that one out. cutmix_share: of the pairs, where there are both."""

    seed: int
    mixup: float
    cutmix: float
    cutmix_share: float

    def __call__(
        self, crops: Sequence[torch.Tensor], step: int, pairs: Sequence[int]
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """(each crop mixed with the same one of its neighbour; lambda, [V, B]) of crops of several resolutions,
        floating point [V_i B, C, S_i, S_i] each, view after view. pairs: their B / 2 numbers in the global batch."""
        made, shares, views = [], [], 0
        for images in crops:
            count = len(images) // (2 * len(pairs))
            drawn = self.draws(step, pairs, range(views, views + count))
            table, kept = table_of(drawn, images.shape[-1])
            made.append(mixed(images, on_device(table, images.device)))
            shares.append(kept.repeat(2, axis=1))
            views += count
        return made, on_device(np.concatenate(shares), crops[0].device).to(crops[0].dtype)

    def draws(self, step: int, pairs: Sequence[int], views: Sequence[int]) -> np.ndarray:
        """float64 [4, V, P]: whether a pair is cut, lambda, and the middle of the rectangle, as shares of the side."""
        likely = self.cutmix_share if self.mixup and self.cutmix else float(self.cutmix > 0)
        found = np.empty((len(views), len(pairs), 4))
        for (row, column), _ in np.ndenumerate(found[..., 0]):
            rng = view_rng(self.seed, step, pairs[column], views[row])
            cut, *middle = rng.random(3)
            alpha = self.cutmix if cut < likely else self.mixup
            found[row, column] = cut < likely, rng.beta(alpha, alpha), *middle
        return np.moveaxis(found, -1, 0)


def table_of(drawn: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """What is kept of crops of `side` pixels: (float64 [5, V, P]: the weight of an image's own pixels outside of its
    rectangle, and the rectangle's top, bottom, left and right, the last row and column not in it; float64 [V, P]:
    lambda as it is then: a rectangle, of (1 - lambda) of the area (Yun et al., Eq. 2), is of whole pixels and ends at
    the border)."""
    cut, share, *middle = drawn
    half = (side * np.sqrt(1 - share)).astype(np.int64) // 2
    middle = (side * np.stack(middle)).astype(np.int64)
    low, high = (np.clip(middle + sign * half, 0, side) * cut for sign in (-1, 1))  # empty for mixup
    kept = np.where(cut > 0, 1 - np.prod(high - low, axis=0) / side**2, share)
    return np.stack([np.where(cut > 0, 1.0, share), low[0], high[0], low[1], high[1]]), kept


def mixed(images: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """x <- m x + (1 - m) x', x' the other of the pair: m is lambda everywhere (mixup), or 0 in a rectangle and 1
    outside (CutMix, Eq. 1).

    images: floating point [V B, C, S, S], view after view, B even; table: of `table_of`, where they are.
    """
    images = images.unflatten(0, (*table.shape[1:], 2))
    weight, top, bottom, left, right = table.to(images.dtype)[..., None]  # [V, P, 1] each
    at = torch.arange(images.shape[-1], device=images.device)
    inside = ((at >= top) & (at < bottom))[..., :, None] & ((at >= left) & (at < right))[..., None, :]
    m = torch.where(inside, 0.0, weight[..., None])[:, :, None, None]  # [V, P, 1, 1, S, S]
    return torch.lerp(images.flip(2), images, m).flatten(0, 2)


def partners(labels: torch.Tensor) -> torch.Tensor:
    """What the other of each pair has: [B] -> [B].

    >>> partners(torch.tensor([5, 6, 7, 8])).tolist()
    [6, 5, 8, 7]
    """
    return labels.view(-1, 2).flip(1).flatten()
