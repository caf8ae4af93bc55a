"""The tally of images that could not be decoded, per dataset."""

from collections.abc import Sequence

import numpy as np

from methods.data.dataset import ImageDataset

AT_LEAST = 100  # images read before a share means anything, where there are as many


class Tally:
    """What one rank read from one dataset and could not decode."""

    def __init__(self, dataset: ImageDataset, allowed: float):
        self._allowed = allowed
        self._seen = np.zeros(len(dataset), bool)
        self.reasons: dict[int, str] = {}  # sample -> "file: reason"

    def add(self, ids: np.ndarray, broken: Sequence[tuple[int, str]]) -> list[str]:
        """Count a batch: what could be decoded, and what not. Returns the reasons that are new."""
        self._seen[ids] = True
        self._seen[[sample for sample, _ in broken]] = True
        fresh = {sample: reason for sample, reason in broken if sample not in self.reasons}
        self.reasons |= fresh
        return list(fresh.values())

    @property
    def too_many(self) -> bool:
        """More than the allowed share of the distinct images that were read."""
        if not self.reasons:
            return False
        return len(self.reasons) > self._allowed * max(int(self._seen.sum()), min(AT_LEAST, len(self._seen)))
