"""Crops take the share of the image's area, and have the shape, that they were asked for: all of the range, evenly."""

import numpy as np
import pytest

from methods.augment.crops import crop_box
from methods.augment.rng import view_rng

SIDE, DRAWS = 1000, 4000
RATIO = (3 / 4, 4 / 3)


def drawn(scale):
    """(share of the area, width by height) of each crop; none of these boxes is too large for the image."""
    boxes = np.array([crop_box(SIDE, SIDE, view_rng(0, 0, sample), scale, RATIO) for sample in range(DRAWS)])
    return boxes[:, 2] * boxes[:, 3] / SIDE**2, boxes[:, 2] / boxes[:, 3]


@pytest.mark.parametrize("scale", [(0.05, 0.14), (0.3, 0.6), (0.25, 0.25)])
def test_areas_fill_the_range_evenly(scale):
    areas, _ = drawn(scale)
    low, high = scale
    rounding = 2 / SIDE  # of a side to whole pixels
    assert areas.min() >= low - rounding and areas.max() <= high + rounding
    for share in np.linspace(0, 1, 9):
        # Five standard deviations of a share of independent draws.
        found = (areas <= low + share * (high - low) + rounding).mean()
        assert found >= share - 5 * np.sqrt(share * (1 - share) / DRAWS)
        found = (areas >= high - share * (high - low) - rounding).mean()
        assert found >= share - 5 * np.sqrt(share * (1 - share) / DRAWS)


def test_wide_and_tall_crops_are_as_frequent_and_as_extreme():
    _, ratios = drawn((0.05, 0.14))
    logs = np.log(ratios) / np.log(RATIO[1])  # -1 to 1, evenly
    assert -1.02 < logs.min() < -0.98 and 0.98 < logs.max() < 1.02
    assert abs(logs.mean()) < 5 * np.sqrt(1 / 3 / DRAWS)
    assert abs(np.mean(logs**2) - 1 / 3) < 5 * np.sqrt(4 / 45 / DRAWS)


def test_no_side_of_an_image_is_preferred():
    boxes = np.array([crop_box(SIDE, SIDE, view_rng(0, 0, sample), (0.05, 0.14), RATIO) for sample in range(DRAWS)])
    room = SIDE - boxes[:, 2:]
    places = (boxes[:, :2] + 0.5) / (room + 1)  # 0 to 1, evenly
    assert np.all(np.abs(places.mean(0) - 0.5) < 5 * np.sqrt(1 / 12 / DRAWS))
    assert np.all(places.min(0) < 0.01) and np.all(places.max(0) > 0.99)
