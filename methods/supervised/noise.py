"""Wrong labels, as in ClusterFit's control experiment (Yan et al., CVPR 2020, Section 3.2)."""

import numpy as np

from methods.augment.rng import view_rng


def noisy(labels: np.ndarray, ids: np.ndarray, *, share: float, classes: int, seed: int) -> np.ndarray:
    """Each label with probability `share` replaced by another class, uniform over all but its own (footnote 2).

    labels: int64 [B], from 0 to classes - 1; ids: int64 [B], of the samples; classes: 2 or more. What a sample gets is
    a function of (seed, its id): the same in every epoch, batch and world. Returns int64 [B].

    >>> noisy(np.array([0, 1, 1, 0]), np.arange(4), share=1.0, classes=2, seed=0)
    array([1, 0, 0, 1])
    """
    found = labels.copy()
    for row, sample in enumerate(ids.tolist()):
        wrong, which = view_rng(seed, 0, sample).random(2)
        if wrong < share:
            found[row] = (labels[row] + 1 + int(which * (classes - 1))) % classes
    return found
