"""What the photometric stage does to one view, drawn beside its crop: a row of numbers that travels with the pixels."""

import itertools

import numpy as np

from methods.augment.spec import Photometric

# The columns of a row, float32. A factor of 1, a hue of 0 turns and a sigma of 0 pixels change nothing.
FLIP, ORDER, BRIGHTNESS, CONTRAST, SATURATION, HUE, GREY, SIGMA, SOLARISE = range(9)
COLUMNS = 9
JITTERS = (BRIGHTNESS, CONTRAST, SATURATION, HUE)
ORDERS = tuple(itertools.permutations(JITTERS))  # column ORDER is a position in here
UNCHANGED = np.array([0, 0, 1, 1, 1, 0, 0, 0, 0], np.float32)


def draw(recipe: Photometric, rng: np.random.Generator) -> np.ndarray:
    """float32 [COLUMNS]: one draw from `recipe`.

    Always as many numbers from the stream, whatever happens: another probability moves no other draw.
    """
    flip, jitter, order, brightness, contrast, saturation, hue, grey, blur, sigma, solarise = rng.random(11).tolist()
    row = UNCHANGED.copy()
    row[FLIP] = flip < recipe.flip
    if jitter < recipe.jitter:
        row[ORDER] = int(order * len(ORDERS))
        row[BRIGHTNESS] = _uniform(max(0.0, 1 - recipe.brightness), 1 + recipe.brightness, brightness)
        row[CONTRAST] = _uniform(max(0.0, 1 - recipe.contrast), 1 + recipe.contrast, contrast)
        row[SATURATION] = _uniform(max(0.0, 1 - recipe.saturation), 1 + recipe.saturation, saturation)
        row[HUE] = _uniform(-recipe.hue, recipe.hue, hue)
    row[GREY] = grey < recipe.grey
    if blur < recipe.blur:
        row[SIGMA] = _uniform(*recipe.sigma, sigma)
    row[SOLARISE] = solarise < recipe.solarise
    return row


def _uniform(low: float, high: float, share: float) -> float:
    return low + (high - low) * share
