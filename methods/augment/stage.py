"""The photometric stage: uint8 crops and what was drawn for them -> what a network sees, in batch, on the device."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from methods.augment import draws, operators
from methods.augment.spec import AUGMENTATIONS, NORMALISATIONS, ViewsConfig
from methods.data.loader import Crops
from methods.parts.host import on_device

TAILS = 4  # standard deviations of a blur that its kernel reaches: what lies beyond weighs less than 1e-4
IN_CACHE = 1 << 20  # scalars of the crops that a CPU works on at a time: 4 MB


class Photometrics:
    """Flip, jitter, grey, blur, solarise, normalise, for all crops of a batch, as their draws say.

    The draws stay in host memory, where they decide which operator meets which crop: what the device gets are lists of
    positions, and nothing on it waits for the host or the host for it.
    """

    def __init__(self, config: ViewsConfig):
        recipe = AUGMENTATIONS[config.augment]
        widest = max(view.sigma[1] for view in (*recipe.views, recipe.local))
        self._radius = math.ceil(TAILS * widest)
        self._mean, self._std = NORMALISATIONS[config.normalise]

    @torch.no_grad()
    def __call__(self, crops: Crops) -> list[torch.Tensor]:
        """float32 [V * B, C, S, S] of each resolution, where its pixels are; view v is rows v B to (v + 1) B.

        Where the pixels lie on a GPU, no call in here synchronises with it.
        """
        made, first = [], 0
        for pixels in crops.pixels:
            views = pixels.shape[1]
            rows = crops.draws[:, first : first + views].numpy()
            made.append(self._resolution(pixels.transpose(0, 1), rows.swapaxes(0, 1)))
            first += views
        return made

    def _resolution(self, pixels: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        """pixels: uint8 [V, B, C, S, S]; rows: [V, B, COLUMNS]."""
        made = torch.empty(pixels.shape, dtype=torch.float32, device=pixels.device)  # contiguous planes
        for part in _parts(pixels):
            images = made[part].copy_(pixels[part]).flatten(0, -4)
            self._apply(images.mul_(1 / 255), _Plan(rows[part].reshape(-1, draws.COLUMNS), images))
        return made.flatten(0, 1)

    def _apply(self, images: torch.Tensor, plan: "_Plan") -> None:
        """In place. images: [N, C, S, S]."""
        _some(images, plan.flip, lambda some, _: some.flip(-1))
        for blend, rows in zip(plan.blends, plan.hue, strict=True):
            if blend is not None:
                operators.blend_(images, *blend)
            _some(images, rows, lambda some, at: operators.shift_hue(some, plan.turns[at]))
        _some(images, plan.grey, lambda some, _: operators.grey(some).expand_as(some))
        radius = min(self._radius, images.shape[-1] - 1)
        _some(images, plan.blur, lambda some, at: operators.blur(some, plan.sigma[at], radius))
        _some(images, plan.solarise, lambda some, _: operators.solarise(some))
        means, stds = self._mean, self._std
        if images.shape[1] == 1:  # grey: the mean over the colours
            means, stds = [sum(means) / 3], [sum(stds) / 3]
        for channel, (mean, std) in enumerate(zip(means, stds, strict=True)):
            images[:, channel].sub_(mean).mul_(1 / std)


class _Plan:
    """What the operators need of the draws [N, COLUMNS] of N images, on their device, moved there in two copies."""

    def __init__(self, rows: np.ndarray, images: torch.Tensor):
        coloured = images.shape[1] > 1
        steps = np.array(draws.ORDERS)[rows[:, draws.ORDER].astype(np.int64)].T  # [4, N]: the column of each step
        factors = np.take_along_axis(rows, steps.T, 1).T
        keep = np.where(steps == draws.HUE, 1, factors)
        pixel = np.where(steps == draws.SATURATION, 1 - factors, 0)
        mean = np.where(steps == draws.CONTRAST, 1 - factors, 0)
        wanted = [
            rows[:, draws.FLIP] > 0,
            (rows[:, draws.GREY] > 0) & coloured,
            rows[:, draws.SIGMA] > 0,
            rows[:, draws.SOLARISE] > 0,
            *((steps == draws.HUE) & (factors != 0) & coloured),
        ]
        positions = [np.flatnonzero(each) for each in wanted]
        table = np.concatenate([keep, pixel, mean, rows[:, [draws.HUE, draws.SIGMA]].T])
        table = on_device(table.astype(np.float32), images.device)
        index = on_device(np.concatenate(positions), images.device).split([len(each) for each in positions])
        self.flip, self.grey, self.blur, self.solarise, *self.hue = index
        idle = (keep == 1).all(1)  # a factor of 1 blends in nothing
        self.blends = [None if idle[step] else (table[step], table[4 + step], table[8 + step]) for step in range(4)]
        self.turns, self.sigma = table[12], table[13]


def _some(
    images: torch.Tensor, rows: torch.Tensor, operator: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> None:
    """`operator(images of these rows, rows)`, put back in their place."""
    if len(rows):
        images.index_copy_(0, rows, operator(images.index_select(0, rows), rows))


def _parts(pixels: torch.Tensor) -> Iterator[tuple]:
    """Where to work at a time: everything on a GPU; on a CPU what stays in its cache from operator to operator."""
    views, batch = pixels.shape[:2]
    if pixels.device.type != "cpu":
        yield (slice(None), slice(None))
        return
    count = max(1, IN_CACHE // max(1, pixels[0, 0].numel())) if batch else 1
    for view in range(views):
        for start in range(0, batch, count):
            yield (view, slice(start, start + count))
