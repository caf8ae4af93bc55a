"""Region similarity J and contour accuracy F of masks (Perazzi et al., CVPR 2016; the evaluation of DAVIS 2017)."""

import math

import numpy as np
from scipy.ndimage import distance_transform_edt

TOLERANCE = 0.008  # of a frame's diagonal: how far contours may lie apart


def region(found: np.ndarray, truth: np.ndarray, void: np.ndarray) -> float:
    """Intersection over union of two masks, bool [H, W], where not `void`; 1 where both are empty."""
    union = int(((found | truth) & ~void).sum())
    return int((found & truth & ~void).sum()) / union if union else 1.0


def contour(found: np.ndarray, truth: np.ndarray, void: np.ndarray) -> float:
    """The harmonic mean of two shares: of the contour of `found` near that of `truth`, and the other way round. Where
    one of the two has no contour the share of the other is 0, where neither has any both are 1."""
    radius = math.ceil(TOLERANCE * math.hypot(*found.shape))
    mine, theirs = _border(found & ~void), _border(truth & ~void)
    if not mine.any() or not theirs.any():
        return float(mine.any() == theirs.any())
    precision = (mine & _near(theirs, radius)).sum() / mine.sum()
    recall = (theirs & _near(mine, radius)).sum() / theirs.sum()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _near(border: np.ndarray, radius: int) -> np.ndarray:
    """What a disk of this radius around each of its pixels covers."""
    return distance_transform_edt(~border) <= radius


def _border(mask: np.ndarray) -> np.ndarray:
    """bool [H, W]: the pixels whose right, lower or lower right neighbour is of the other kind."""
    right, below, across = (np.zeros_like(mask) for _ in range(3))
    right[:, :-1], below[:-1], across[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
    border = (mask ^ right) | (mask ^ below) | (mask ^ across)
    border[-1], border[:, -1] = mask[-1] ^ right[-1], mask[:, -1] ^ below[:, -1]
    border[-1, -1] = False
    return border
