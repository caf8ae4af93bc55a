"""RandAugment and random erasing, as DeiT has them (Touvron et al., ICML 2021, Table 9), by timm, whose they are."""

import contextlib
import functools
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from methods.augment.spec import NORMALISATIONS
from methods.backbones.spec import RGB_MEAN


@dataclass(frozen=True)
class Distortion:
    """Two operations of RandAugment (Cubuk et al. 2020) and, with probability `erasing`, a rectangle made noise (Zhong
    et al. 2020).

    strength: of RandAugment, 1 to 10, with DeiT's deviation of 0.5; 0: none. normalise: of NORMALISATIONS; the noise is
    normal once it is normalised so, but for what lies outside of the bytes. interpolation: bilinear | bicubic.
    """

    strength: int
    erasing: float
    normalise: str
    interpolation: str

    def __call__(self, pixels: np.ndarray, seed: int) -> np.ndarray:
        """uint8 [C, S, S], a function of `seed`, below 2^32. No operation knows left from right."""
        with _drawing_from(seed):
            if self.strength:
                pixels = self._operated(pixels)
            if random.random() < self.erasing:
                pixels = _erased(pixels, *NORMALISATIONS[self.normalise])
        return pixels

    def _operated(self, pixels: np.ndarray) -> np.ndarray:
        operations = _rand_augment(self.strength, pixels.shape[-1], self.interpolation)
        coloured = np.broadcast_to(pixels.transpose(1, 2, 0), (*pixels.shape[1:], 3))
        made = np.asarray(operations(Image.fromarray(np.ascontiguousarray(coloured))))
        return made.transpose(2, 0, 1)[: len(pixels)]  # of grey ones all colours are alike


@functools.cache
def _rand_augment(strength: int, side: int, interpolation: str):
    """Shifts of up to 0.45 of the side, and what comes in from outside the mean colour, as timm's own transform."""
    from timm.data.auto_augment import LEVEL_TO_ARG, rand_augment_transform  # seconds, for those who need it

    def bits_kept(level: float, options: dict) -> tuple[int]:
        # timm says 0 at level 10, which made images black before Pillow 13, and is an error since.
        return (max(1, LEVEL_TO_ARG["PosterizeIncreasing"](level, options)[0]),)

    given = {
        "translate_const": int(side * 0.45),
        "img_mean": tuple(round(255 * mean) for mean in RGB_MEAN),
        "interpolation": Image.Resampling[interpolation.upper()],
    }
    made = rand_augment_transform(f"rand-m{strength}-mstd0.5-inc1", given)
    for operation in made.ops:
        if operation.name == "PosterizeIncreasing":
            operation.level_fn = bits_kept
    return made


def _erased(pixels: np.ndarray, means: tuple[float, ...], stds: tuple[float, ...]) -> np.ndarray:
    """uint8 [C, S, S], with a rectangle of it noise."""
    from timm.data.random_erasing import RandomErasing  # likewise

    mean, std = (255 * np.resize(each, len(pixels)).astype(np.float32)[:, None, None] for each in (means, stds))
    levels = RandomErasing(1.0, mode="pixel", device="cpu")(torch.from_numpy((pixels - mean) / std)).numpy()
    return (levels * std + mean).round().clip(0, 255).astype(np.uint8)


@contextlib.contextmanager
def _drawing_from(seed: int) -> Iterator[None]:
    """Inside, the generators of Python, NumPy and PyTorch that timm draws from begin with `seed`, below 2^32; after it
    they are where they were."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
