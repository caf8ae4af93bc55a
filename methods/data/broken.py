"""The tally of images that could not be decoded, per dataset."""

from collections.abc import Sequence

from methods.data import ImageDataset

AT_LEAST = 100  # images read before a share means anything, where there are as many


class Tally:
    """What one rank read from one dataset and could not decode."""

    def __init__(self, dataset: ImageDataset, allowed: float):
        self._size, self._allowed = len(dataset), allowed
        self._read = 0
        self.reasons: dict[int, str] = {}  # sample -> "file: reason"

    def add(self, read: int, broken: Sequence[tuple[int, str]]) -> list[str]:
        """Count a batch. Returns the reasons that are new."""
        self._read += read
        fresh = {sample: reason for sample, reason in broken if sample not in self.reasons}
        self.reasons |= fresh
        return list(fresh.values())

    @property
    def too_many(self) -> bool:
        """More than the allowed share of the distinct images that were read."""
        return len(self.reasons) > self._allowed * max(min(self._read, self._size), min(AT_LEAST, self._size))
