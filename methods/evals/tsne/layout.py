"""Where boxes go that are to stand at given points, and not on each other."""

import numpy as np

GRID = 2  # pixels: boxes lie on multiples of it
NEAR = 0.02  # of the longer side: points that far apart stand in one crowd


def apart(points: np.ndarray, sizes: np.ndarray, canvas: tuple[int, int], *, gap: float) -> np.ndarray:
    """Centres float64 [n, 2] of boxes of `sizes` (width, height) [n, 2] near `points` [n, 2], all in pixels: inside
    `canvas` (width, height), `gap` from each other. One that finds no room stands at its point, over others.

    One after the other takes the free place that is nearest to its point, those in the middle of a crowd first. The
    same points give the same centres.
    """
    columns, rows = (int(side // GRID) for side in canvas)
    free = np.ones((rows, columns), bool)
    cells = np.ceil((sizes + gap) / GRID).astype(int)  # [n, 2]
    centres = points.astype(np.float64).copy()
    for number in _from_the_middle(points):
        wide, high = np.minimum(cells[number], (columns, rows))
        # Corners of the boxes of this size that lie on nothing.
        sums = np.zeros((rows + 1, columns + 1), np.int32)
        sums[1:, 1:] = free.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32)
        inside = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
        if not (fits := inside == wide * high).any():
            continue
        half = np.array([wide, high]) * GRID / 2
        right = np.arange(fits.shape[1]) * GRID + half[0] - points[number, 0]
        down = np.arange(fits.shape[0]) * GRID + half[1] - points[number, 1]
        # In between pixels and boxes: a crowd of wide boxes becomes neither a column nor a row.
        far = right[None] ** 2 / wide + down[:, None] ** 2 / high
        row, column = np.unravel_index(np.where(fits, far, np.inf).argmin(), far.shape)
        free[row : row + high, column : column + wide] = False
        centres[number] = np.array([column, row]) * GRID + half
    return centres


def overlaps(centres: np.ndarray, sizes: np.ndarray) -> int:
    """How many pairs of boxes share more than their borders."""
    distance = abs(centres[:, None] - centres[None])
    shared = (distance < (sizes[:, None] + sizes[None]) / 2 - 1e-6).all(2)
    return int(np.triu(shared, 1).sum())


def _from_the_middle(points: np.ndarray) -> np.ndarray:
    """The order: those with many others around them first."""
    scale = max(NEAR * np.ptp(points, axis=0).max(), 1e-9)
    distance = ((points[:, None] - points[None]) ** 2).sum(2)
    crowd = np.exp(-distance / (2 * scale**2)).sum(1)
    return np.argsort(-crowd.round(6), kind="stable")
