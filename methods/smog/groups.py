"""SMoG's groups: features that move with the instances that fall to them, synchronously with training (Pang et al.
2022, 3.2), and are found anew by k-means from time to time. Every rank has the same groups."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from launcher import kmeans
from methods.parts.collectives import differentiable_sum, rank, sum_over_ranks, world_size
from methods.parts.losses import at_least_float32
from methods.smog.spec import ALGORITHMS


@dataclass(frozen=True)
class Update:
    """What a step makes of the groups. features: g after Eq. 4, unit vectors float32 [k, d] with a gradient; members:
    float32 [k], how many instances of all ranks each group got in this step."""

    features: torch.Tensor
    members: torch.Tensor


class Groups:
    """k unit vectors of d dimensions, drawn at random by `seed` until `refit` finds better ones.

    algorithm, Table 7d: "momentum", Eq. 4, the method itself; "average", sequential k-means; "latest", the means of the
    batch; "random", features of the batch, drawn at random.

    >>> groups = Groups(2, 2)
    >>> groups.load_state({"features": torch.eye(2), "seen": torch.zeros(2)})
    >>> z = torch.tensor([[3.0, 4.0]])
    >>> groups.assign(z).tolist()
    [1]
    >>> update = groups.updated(z, beta=0.5)  # the mean of (0, 1) and (0.6, 0.8), as a unit vector
    >>> groups.keep(update)
    >>> [[round(x, 4) for x in row] for row in groups.features.tolist()]
    [[1.0, 0.0], [0.3162, 0.9487]]
    """

    def __init__(
        self,
        count: int,
        dimensions: int,
        *,
        algorithm: str = "momentum",
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        if algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm={algorithm}: no such choice; use {', '.join(ALGORITHMS)}")
        drawn = torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))
        self.features = normalize(drawn, dim=1).to(device)  # g; never with a gradient
        self.seen = torch.zeros(count, device=device)  # instances that ever fell to each: n of sequential k-means
        self._algorithm = algorithm

    @torch.no_grad()
    def assign(self, z: torch.Tensor) -> torch.Tensor:
        """c of Eq. 4: the group of the largest cosine similarity to each instance (the paper's argmin of a similarity
        can only mean that), int64 [B]; the first one of equals. z: projections, floating point [B, d]."""
        with torch.autocast(z.device.type, enabled=False):
            return (normalize(at_least_float32(z), dim=1) @ self.features.T).argmax(1)

    def updated(self, z: torch.Tensor, *, beta: float, seed: int = 0) -> Update:
        """Eq. 4: g_k <- beta g_k + (1 - beta) mean of the f(x_t) with c_t = g_k, over the instances of all ranks, as
        unit vectors; changes nothing here yet. Collective, and so is its backward.

        z: f(x), projections of this rank's instances with their gradient, floating point [B, d], equally many on every
        rank; assigned here, to the groups as they were. Instances and means count by direction ("we omit the
        normalization", 3.2). A group without members stays as it is. beta: from 1, where groups stand still and pass on
        no gradient, linearly to 0.99 at the end (3.4, Table 7a). `seed`: of this step's draw, for "random".
        """
        z = normalize(at_least_float32(z), dim=1)
        count, width = self.features.shape
        labels = self._drawn(len(z), seed) if self._algorithm == "random" else self.assign(z)
        # The last row takes those that fall to no group.
        sums = z.new_zeros(count + 1, width + 1)
        sums = sums.index_add(0, labels, torch.cat([z, z.new_ones(len(z), 1)], dim=1))
        sums = differentiable_sum(sums)[:count]
        members = sums[:, width].detach()
        means = sums[:, :width] / members.clamp(min=1).unsqueeze(1)
        share = self._share(members, beta)
        moved = normalize((1 - share) * self.features + share * means, dim=1)
        # Where nothing is to move, not even the rounding of a unit vector's length does.
        return Update(torch.where((members > 0).unsqueeze(1) & (share > 0), moved, self.features), members)

    def _share(self, members: torch.Tensor, beta: float) -> torch.Tensor:
        """Of the batch's means in the new features, [k, 1]."""
        if self._algorithm == "average":
            return 1 / (self.seen + members).clamp(min=1).unsqueeze(1)
        return torch.full_like(members, 1 - beta if self._algorithm == "momentum" else 1.0).unsqueeze(1)

    def _drawn(self, batch: int, seed: int) -> torch.Tensor:
        """For each instance of this rank the group that becomes it, or k for none."""
        count, first = len(self.features), rank() * batch
        total = batch * world_size()
        chosen = np.random.default_rng(seed).permutation(total)[:count]
        labels = np.full(total, count)
        labels[chosen] = np.arange(len(chosen))
        return torch.from_numpy(labels[first : first + batch]).to(self.features.device)

    @torch.no_grad()
    def keep(self, update: Update) -> None:
        """The groups are those of `update` from now on; after the loss that used it."""
        self.features.copy_(update.features)
        self.seen += update.members

    @torch.no_grad()
    def refit(self, cached: torch.Tensor, *, seed: int) -> kmeans.Clusters:
        """Periodic k-means ("Avoiding Collapse", 3.2): the groups become the centroids of the cached features of all
        ranks, by direction. Collective.

        cached: projections [T, B, d] of this rank's part of T batches, equally many on every rank, as
        `Memory.newest_first` gives them, k or more in all. Starts from k of them drawn by `seed`, the same whatever the
        number of ranks. Raises ValueError, on all ranks, if there are fewer or one is not finite. The engine's 10
        iterations; the paper gives no number.
        """
        start = self._starts(cached, seed)
        rows = cached.float().flatten(0, 1)
        clusters = kmeans.fit(rows, len(self.features), init=start, metric="cosine", seed=seed)
        self.features.copy_(clusters.centroids)
        self.seen.copy_(clusters.counts)
        return clusters

    def _starts(self, cached: torch.Tensor, seed: int) -> torch.Tensor:
        """[k, d]: of distinct instances. A global batch is the ranks' parts in order."""
        steps, batch, width = cached.shape
        ranks, count = world_size(), len(self.features)
        if steps * batch * ranks < count:
            raise ValueError(
                f"groups={count}: more than the {steps * batch * ranks} cached features; cache more batches, or use "
                "fewer groups"
            )
        chosen = np.random.default_rng(seed).choice(steps * batch * ranks, count, replace=False)
        step, place = np.divmod(chosen, batch * ranks)
        owner, row = np.divmod(place, batch)
        mine = np.flatnonzero(owner == rank())
        starts = cached.new_zeros(count, width, dtype=torch.float32)
        starts[mine] = cached[step[mine], row[mine]].float()
        return sum_over_ranks(starts)

    def state(self) -> Mapping[str, Any]:
        return {"features": self.features, "seen": self.seen}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.features.copy_(state["features"])
        self.seen.copy_(state["seen"])
