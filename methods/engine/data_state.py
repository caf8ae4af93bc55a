"""Which images a run's state speaks of: a run whose data changed meanwhile does not go on."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from launcher.errors import InputError
from methods.data.dataset import ImageDataset

SAMPLED = 32  # names that stand for all


class DataState:
    """What the positions that the state speaks of refer to: size and a sample of the names."""

    def __init__(self, dataset: ImageDataset):
        self._dataset = dataset

    def state(self) -> dict[str, Any]:
        size = len(self._dataset)
        names = [self._dataset.name_of(int(i)) for i in np.linspace(0, size - 1, SAMPLED)]
        return {"images": size, "names": hashlib.sha256(json.dumps(names).encode()).hexdigest()}

    def load_state(self, saved: Mapping[str, Any]) -> None:
        """Raises InputError where the data are others than when `saved` was."""
        if saved != self.state():
            reason = f"the data changed since this run's checkpoint ({saved['images']} images then)"
            raise InputError.of("data", f"{len(self._dataset)} images", reason, "restore them, or start a new run")
