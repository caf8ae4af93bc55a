"""Images that cannot be decoded: their tally, per dataset, and a look at a few before anything starts."""

from collections.abc import Sequence

import numpy as np

from launcher.errors import InputError
from methods.data.dataset import BrokenImage, ImageDataset

AT_LEAST = 100  # images read before a share means anything, where there are as many
PROBED = 32  # images decoded before a run begins


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


def probe(dataset: ImageDataset) -> None:
    """Decode a few images before anything starts. Raises InputError where there are none, or none is readable."""
    if not len(dataset):
        raise InputError.of("data", ..., "it holds no image to train on", "give another folder")
    tried = sorted({int(i) for i in np.linspace(0, len(dataset) - 1, PROBED)})
    reasons = []
    for index in tried:
        try:
            dataset.image(index)
            return
        except BrokenImage as error:
            reasons.append(str(error))
    reason = f"none of {len(tried)} images tried can be decoded, the first: {reasons[0]}"
    raise InputError.of("data", ..., reason, "give a folder with readable images")
