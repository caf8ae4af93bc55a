"""Nearest neighbours among the images of all ranks, of which each keeps its block: what travels are the images asked
about, and the few that each rank found nearest."""

import torch

from methods.evals.subject import Subject

ROWS = 8192  # images of a block that are compared at once
# Cosine distances, 0 to 2, are told apart in steps of this size, a million times what float64 rounds. However products
# are summed, two images at one distance are told apart in one case of a million at most; else the first comes first.
STEP = 2.0**-30
NONE = torch.iinfo(torch.int64).max


class Nearest:
    """The `k` nearest of each image, or all others where there are fewer; by the cosine, whose order is that of
    Euclidean distances of L2-normalised features. What is all zeros is at right angles to everything.

    features: float32 [n, d] of this rank. Images have positions in the data set, those that are broken left out;
    `total` of them, which must be less than 2^31. Collective.
    """

    def __init__(self, subject: Subject, features: torch.Tensor, k: int):
        world = subject.job.world
        counts = world.gather(len(features))
        self._subject, self._rows = subject, features.to(world.device)
        self.first, self.total = sum(counts[: world.rank]), sum(counts)
        self.k = min(k, self.total - 1)

    def of(self, positions: torch.Tensor) -> torch.Tensor | None:
        """positions: int64 [q], the same on all ranks -> those of their neighbours, the nearest first, int64 [q, k] in
        rank 0's host memory; None elsewhere. An image is no neighbour of itself, its duplicate is. Collective."""
        world, rows = self._subject.job.world, self._rows
        positions = positions.to(rows.device)
        mine = (positions >= self.first) & (positions < self.first + len(rows))
        queries = rows.new_zeros(len(positions), rows.shape[1])
        queries[mine] = rows[positions[mine] - self.first]
        queries = _unit(self._subject.sum(queries).double())  # all but one rank add zeros
        keys = torch.full((len(positions), self.k), NONE, device=rows.device)
        for start in range(0, len(rows), ROWS):
            block = _unit(rows[start : start + ROWS].double())
            numbers = self.first + start + torch.arange(len(block), device=rows.device)
            steps = (1 - queries @ block.T).div_(STEP).round_().long()
            here = steps * self.total + numbers  # one number, so that one order holds on any number of ranks
            here[positions[:, None] == numbers] = NONE
            keys = torch.cat([keys, _least(here, self.k)], dim=1)
            keys = _least(keys, self.k)
        found = world.collect(keys.cpu())
        if found is None:
            return None
        found = found.unflatten(0, (world.size, len(positions))).transpose(0, 1).flatten(1)
        return found.sort(dim=1).values[:, : self.k] % self.total


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-100)


def _least(keys: torch.Tensor, k: int) -> torch.Tensor:
    return keys.topk(min(k, keys.shape[1]), dim=1, largest=False).values
