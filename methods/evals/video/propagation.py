"""Labels from frame to frame by the likeness of patches (Jabri et al. 2020; thesis 5.5.2)."""

from collections import deque

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate, normalize, one_hot

from methods.evals.video.spec import Video

CHUNK = 64 << 20  # likenesses that are held at once


class Propagation:
    """The labels of a clip's patches, frame by frame, from those of the first.

    Features and labels: [d, h, w] and [classes, h, w], floating point, on one device; the work is done in the features'
    dtype.
    """

    def __init__(self, settings: Video, features: torch.Tensor, labels: torch.Tensor):
        self._settings = settings
        self._first = normalize(features.flatten(1), dim=0), labels.flatten(1).to(features.dtype)
        self._last: deque[tuple[torch.Tensor, torch.Tensor]] = deque(maxlen=settings.frames)

    def next(self, features: torch.Tensor) -> torch.Tensor:
        """The labels of the next frame: of each patch the mean over the `nearest` most alike within `radius` in the
        first and the last frames, weighted by exp(cosine / temperature) [classes, h, w]."""
        height, width = features.shape[1:]
        queries = normalize(features.flatten(1), dim=0)
        known = [self._first, *self._last]
        bank = torch.cat([each for each, _ in known], dim=1)  # [d, n h w]
        labels = torch.cat([each for _, each in known], dim=1)  # [classes, n h w]
        size = max(1, CHUNK // bank.shape[1])
        parts = [
            self._labelled(queries[:, start : start + size], start, bank, labels, (height, width))
            for start in range(0, height * width, size)
        ]
        found = torch.cat(parts, dim=1)
        self._last.append((queries, found))
        return found.unflatten(1, (height, width))

    def _labelled(
        self, queries: torch.Tensor, start: int, bank: torch.Tensor, labels: torch.Tensor, grid: tuple[int, int]
    ) -> torch.Tensor:
        """The labels of the patches from `start` on [classes, m]."""
        likeness = torch.exp(bank.T @ queries / self._settings.temperature)  # [n h w, m]
        cells = torch.arange(grid[0] * grid[1], device=bank.device)
        rows, columns = cells // grid[1], cells % grid[1]
        mine = slice(start, start + queries.shape[1])
        near = (rows[:, None] - rows[None, mine]).abs() <= self._settings.radius
        near &= (columns[:, None] - columns[None, mine]).abs() <= self._settings.radius
        frames = bank.shape[1] // len(rows)
        likeness *= near.repeat(frames, 1)
        most = min(self._settings.nearest, len(likeness))
        least = likeness.topk(most, dim=0).values[-1]
        likeness = torch.where(likeness < least, 0.0, likeness)  # those that are as alike as the last one count, too
        return labels @ (likeness / likeness.sum(0, keepdim=True))


def of_patches(mask: np.ndarray, objects: int, grid: tuple[int, int]) -> torch.Tensor:
    """uint8 [H, W], 0 to `objects`, -> float32 [1 + objects, h, w]: what each patch is, by the nearest pixel."""
    small = np.array(Image.fromarray(mask).resize(grid[::-1], Image.Resampling.NEAREST))
    return one_hot(torch.from_numpy(small.astype(np.int64)), 1 + objects).permute(2, 0, 1).float()


def of_pixels(labels: torch.Tensor, scale: int) -> torch.Tensor:
    """[classes, h, w] -> int64 [h scale, w scale]: enlarged, each class spread over 0 to 1, and the largest taken."""
    enlarged = interpolate(labels[None], scale_factor=scale, mode="bilinear", align_corners=False)[0]
    low, high = (each[:, None, None] for each in (enlarged.flatten(1).amin(1), enlarged.flatten(1).amax(1)))
    spread = torch.where(high > low, high - low, 1.0)
    there = high > 0  # a class that is nowhere stays so
    return torch.where(there, (enlarged - low) / spread, enlarged).argmax(0)
