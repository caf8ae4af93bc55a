"""Who hosts which group, and what a group trains on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from launcher.errors import Diverged
from methods.data.sampler import in_turns, uniform_over_clusters


def hosted_groups(rank: int, world_size: int, groups: int) -> list[int]:
    """Groups that `rank` serves: a block of several where the world is smaller than 4m, else the one of its block."""
    if world_size >= groups:
        return [rank // (world_size // groups)]
    share = groups // world_size
    return list(range(rank * share, (rank + 1) * share))


def ranks_of_group(group: int, world_size: int, groups: int) -> range:
    """The inverse: neighbouring ranks that share group `group`."""
    if world_size >= groups:
        size = world_size // groups
        return range(group * size, (group + 1) * size)
    host = group // (groups // world_size)
    return range(host, host + 1)


class Targets:
    """The samples of one super-cluster and their sub-classes, sorted by sub-class, then by sample."""

    def __init__(self) -> None:
        self._ids = torch.empty(0, dtype=torch.int64)
        self._labels = torch.empty(0, dtype=torch.int64)

    def set(self, rows: torch.Tensor) -> None:
        """rows: int64 [n, 2] of (sample id, sub-class), in any order."""
        order = np.lexsort((rows[:, 0].numpy(), rows[:, 1].numpy()))
        self._ids, self._labels = rows[order, 0].contiguous(), rows[order, 1].contiguous()

    def draw(self, count: int, rng: np.random.Generator, *, uniform: bool) -> tuple[np.ndarray, np.ndarray]:
        """(ids, labels), int64 [count] each. uniform: every sub-class equally often (3.2.1), its samples in turn;
        otherwise every sample equally often. Starts over when the samples are used up. Raises Diverged where there are
        none."""
        ids, labels = self._ids.numpy(), self._labels.numpy()
        if not len(ids):
            raise Diverged("a super-cluster holds no image: the features have collapsed; lower method.lr, as a new run")
        rows = uniform_over_clusters(labels, count, rng) if uniform else in_turns(len(ids), count, rng)
        return ids[rows], labels[rows]

    def state(self) -> Mapping[str, Any]:
        return {"ids": self._ids, "labels": self._labels}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._ids, self._labels = state["ids"], state["labels"]
