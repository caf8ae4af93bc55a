"""How often a pixel of one class is taken for another, and what that says of all classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from methods.evals.subject import percent


def counted(truth: torch.Tensor, found: torch.Tensor, classes: int) -> torch.Tensor:
    """int64 [classes, classes]: pixels of class i taken for class j. truth: integers of any shape, of which those that
    are no class (255, void) are not counted; found: the same shape, of 0 to classes - 1."""
    truth, found = truth.flatten().long(), found.flatten().long()
    kept = (truth >= 0) & (truth < classes)
    return torch.bincount(truth[kept] * classes + found[kept], minlength=classes**2).view(classes, classes)


def scores(matrix: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """`miou`, the mean over classes of intersection over union, `pixel_accuracy`, `mean_accuracy`, the mean over
    classes of the share of their pixels that is right, and `iou_by_class`, all in percent. A class that is on no pixel
    and taken for none is not counted; one that is on none has no accuracy. matrix: of `counted`, with some pixel."""
    right, there, taken = np.diagonal(matrix), matrix.sum(1), matrix.sum(0)
    union = there + taken - right
    known = {name: right[n] / union[n] for n, name in enumerate(names) if union[n]}
    accuracies = [right[n] / there[n] for n in range(len(names)) if there[n]]
    return {
        "miou": percent(np.mean(list(known.values()))),
        "pixel_accuracy": percent(right.sum(), matrix.sum()),
        "mean_accuracy": percent(np.mean(accuracies)),
        "iou_by_class": {name: percent(value) for name, value in known.items()},
    }
