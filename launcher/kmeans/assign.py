"""The E-step: every feature joins its nearest centroid, and the ranks add up what the M-step needs to know."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from launcher.kmeans import fused
from launcher.kmeans.crew import Crew
from launcher.kmeans.exact import snap
from launcher.kmeans.nearest import Blocks, Scratch, Tiles, blocks, multiplies_bfloat16, ones_for, piece_rows
from launcher.kmeans.resume import Stretch, legs
from launcher.kmeans.shards import Ranks
from launcher.kmeans.skipping import Skipping
from launcher.kmeans.space import Space

# Up to so many numbers, the sums of the last iteration are kept, and only what moved is added and taken away.
KEPT = 2**26


@dataclass(frozen=True)
class Group:
    """Features that are clustered among themselves: all of them, or those of one super-cluster.

    k: clusters; first: index of its first centroid among those of all groups; rows, begin: how many features this rank
    has and where they begin in the order of groups. Over all ranks: total features; offset: those on the ranks before
    this one; longest: on the rank that has most. seed: of everything random.
    """

    k: int
    first: int
    rows: int
    begin: int
    total: int
    offset: int
    longest: int
    seed: int

    @property
    def centroids(self) -> slice:
        return slice(self.first, self.first + self.k)


@dataclass(frozen=True, eq=False)
class FeaturePartition:
    """Features of one group by their nearest centroid.

    Over all ranks, float64: counts [k] of features, their weights' sums mass [k] (the counts where there are none),
    sums [k, d] of the weighted features and squares [k] of the weighted squared norms in each cluster, as they are
    measured (`Space`); changed: features that were in another cluster before; compared: pairs of a feature and a
    centroid that were.
    """

    counts: torch.Tensor
    mass: torch.Tensor
    sums: torch.Tensor
    squares: torch.Tensor
    changed: int
    compared: int

    def means(self, rows: slice | torch.Tensor = slice(None)) -> torch.Tensor:
        """Mean of each cluster, float64 [k, d]; zero where it is empty."""
        mass = self.mass[rows]
        return self.sums[rows] / torch.where(mass > 0, mass, 1.0)[:, None]

    def scales(self) -> torch.Tensor:
        """Mean squared norm of each cluster's features, float64 [k]."""
        return self.squares / torch.where(self.mass > 0, self.mass, 1.0)

    def variances(self) -> torch.Tensor:
        """Mean squared distance of each cluster's features to their mean, float64 [k]."""
        of_means = [self.means(rows).square_().sum(dim=1) for rows in blocks(*self.sums.shape)]
        return (self.scales() - torch.cat(of_means)).clamp(min=0)

    def inertia(self, centroids: torch.Tensor) -> float:
        """Sum over all features of the weighted squared distance to their centroid (N times thesis Eq. 3.2).

        centroids: float32 [k, d], as they are compared.
        """
        terms = self.squares.clone()
        for rows in blocks(*centroids.shape):
            c = centroids[rows].double()
            terms[rows] += self.mass[rows] * c.square().sum(dim=1) - 2 * (c * self.sums[rows]).sum(dim=1)
        return max(0.0, float(terms.cpu().numpy().sum()))  # numpy's: in one order, whatever the number of threads


class Assigner:
    """Assigns this rank's features again and again, and knows where they were.

    labels: int64 [n], the index of each feature's centroid among those of all groups.
    bytes: what the last all-reduce carried.
    """

    def __init__(
        self,
        space: Space,
        groups: Sequence[Group],
        order: torch.Tensor | None,
        ranks: Ranks,
        exact: bool,
        workers: int = 1,
        skip: bool = True,
    ):
        """order: int64 [n], this rank's rows group after group; None: one group, in the order in which they lie.
        exact: near ties are decided exactly, so that the assignment does not depend on rounding. workers: as many as
        any rank has. skip: leave out what bounds exclude, where that pays."""
        self.space, self.groups, self.order, self.ranks, self.exact = space, groups, order, ranks, exact
        n, d, device = space.features.n, space.features.d, space.features.device
        self.k = sum(group.k for group in groups)
        self.labels = torch.zeros(n, dtype=torch.int64, device=device)
        self.bytes = 0
        self._fresh = True
        self._squares = torch.zeros(n, dtype=torch.float64, device=device)
        weighted = space.weights is not None
        needs_factors = space.spherical
        self._factors = torch.zeros(n, dtype=torch.float64, device=device) if needs_factors else space.weights
        self._mass = snap(space.weights.clone(), space.weighing) if weighted else None
        # Group after group: sums, squares, counts, mass where there are weights, how many changed and were compared.
        self._sizes = [group.k * (d + 2 + weighted) + 2 for group in groups]
        self._kept = sum(self._sizes) <= KEPT
        self._wire = torch.zeros(sum(self._sizes), dtype=torch.float64, device=device)
        self._lock = threading.Lock()
        self._workers = workers
        self._skip = skip and (order is not None or space.features.scattered)
        self._skipping: dict[int, Skipping] = {}

        half = space.features.dtype in (torch.bfloat16, torch.float16) and space.origin is None
        self._half = half and space.features.dtype == torch.bfloat16 and multiplies_bfloat16(device)
        self._dtype = space.features.dtype if half and device.type == "cuda" else torch.float32

    def scratch(self, rows: int) -> Scratch | None:
        """For one worker and chunks of so many rows."""
        if self.space.features.device.type != "cpu":
            return None
        d, k = self.space.features.d, max(group.k for group in self.groups)
        return Scratch(min(rows, piece_rows(k)), d, ones_for(self._half, d), k)

    def assign(
        self,
        centroids: torch.Tensor,
        active: Sequence[int],
        crew: Crew,
        chunk: int,
        between: Callable[[], None] | None,
    ) -> list[FeaturePartition]:
        """Assign the features of the active groups to their centroids; a partition of each. One all-reduce.

        centroids: float32 [K, d], of all groups. Among equally near ones, the first wins.
        """
        features = self.space.features
        blocks_of = dict(enumerate(self._wire.split(self._sizes)))
        prepared = {g: self._prepare(self.space.place(centroids[self.groups[g].centroids])) for g in active}
        changed, compared = dict.fromkeys(active, 0), dict.fromkeys(active, 0)
        for g in active if self._skip else ():
            self._begin_skipping(g, prepared[g], chunk)
        add_all = self._fresh or not self._kept
        for g in active if add_all else ():
            blocks_of[g].zero_()

        def work(own: Scratch | None, part: Stretch) -> None:
            group = self.groups[part.group]
            sums = blocks_of[part.group][: group.k * features.d].view(group.k, features.d)
            moved, pairs = self._work(own, part, prepared[part.group], sums, add_all)
            with self._lock:
                changed[part.group] += moved
                compared[part.group] += pairs

        wanted = [(g, self.groups[g]) for g in active]
        todo = [(g, group.rows, group.longest, 2.0 * group.k * features.d) for g, group in wanted]
        before = torch.get_float32_matmul_precision()
        if self._half and features.device.type == "cpu":
            torch.set_float32_matmul_precision("medium")  # oneDNN: bfloat16 products, float32 sums
        try:
            for leg in legs(todo, chunk, features.device, self._workers, between):
                crew.run(work, leg)
        finally:
            if self._half and features.device.type == "cpu":
                torch.set_float32_matmul_precision(before)
        self._fresh = False
        self._tally(active, blocks_of, changed, compared)
        return self._reduce(active, blocks_of)

    def _prepare(self, centroids: torch.Tensor) -> "Tiles | Blocks | fused.Kernel":
        """What finds the nearest of these centroids, float32 [k, d] as they are compared."""
        device, spherical = centroids.device, self.space.spherical
        if device.type == "cpu":
            return Tiles(centroids, spherical, self._half, self.exact)
        if fused.usable(device, self._dtype) and not self.exact:
            return fused.Kernel(centroids, spherical, self._dtype)
        return Blocks(centroids, spherical, self._dtype, self.exact)

    def _begin_skipping(self, g: int, prepared, chunk: int) -> None:
        group, features = self.groups[g], self.space.features
        rows = slice(group.begin, group.begin + group.rows)
        order = torch.arange(rows.start, rows.stop, device=features.device) if self.order is None else self.order[rows]
        if g not in self._skipping:
            size = group.rows * features.d * features.dtype.itemsize
            self._skipping[g] = Skipping(group.rows, chunk, self.space.spherical, size)
        self._skipping[g].begin(prepared, order, self.labels[order] - group.first, self._read)

    def _read(self, rows: slice | torch.Tensor) -> torch.Tensor:
        """Features [m, d] as they are multiplied on this device."""
        x = self.space.read(rows)
        return x.float() if x.device.type == "cpu" else x

    def _work(self, own: Scratch | None, part: Stretch, prepared, sums: torch.Tensor, add_all: bool) -> tuple[int, int]:
        """One chunk: labels, and sums of what moved. Returns how many moved, and how many pairs were compared."""
        group, n = self.groups[part.group], part.stop - part.start
        skipping = self._skipping.get(part.group)
        bounds = skipping and skipping.bounds
        rows: slice | torch.Tensor = slice(group.begin + part.start, group.begin + part.stop)
        if bounds is not None:
            rows = bounds.order[part.start : part.stop]
        elif self.order is not None:
            rows = self.order[rows]
        x, pairs = self._read(rows), n * group.k
        old = self.labels[rows] - group.first
        if bounds is not None:
            nearest, pairs = bounds.nearest(prepared, skipping.reach, x, part.start, old, own)
        else:
            nearest = prepared.nearest(x) if own is None else prepared.nearest(x, own)
        if self._fresh:
            self._measure(x, rows)
        moved = nearest != old
        count = n if self._fresh else int(moved.sum())
        self.labels[rows] = nearest + group.first
        factors = None if self._factors is None else self._factors[rows]
        if add_all:
            for some in blocks(n, x.shape[1]):
                self._add(sums, nearest[some], x[some], None if factors is None else factors[some])
        elif count:
            moved = moved.nonzero().flatten()
            addends = self.space.addends(x[moved], None if factors is None else factors[moved])
            with self._lock:
                sums.index_add_(0, nearest[moved], addends)
                sums.index_add_(0, old[moved], addends, alpha=-1)
        return count, pairs

    def _measure(self, x: torch.Tensor, rows: slice | torch.Tensor) -> None:
        """Take down what does not change from one iteration to the next."""
        weights = None if self.space.weights is None else self.space.weights[rows]
        parts = [self.space.measure(x[some], None if weights is None else weights[some]) for some in blocks(*x.shape)]
        squares, factors = zip(*parts, strict=True)
        self._squares[rows] = torch.cat(squares)
        if self.space.spherical:
            self._factors[rows] = torch.cat(factors)

    def _add(self, sums: torch.Tensor, nearest: torch.Tensor, x: torch.Tensor, factors: torch.Tensor | None) -> None:
        addends = self.space.addends(x, factors)
        # The order in which the workers come does not matter: the sums are exact.
        with self._lock:
            sums.index_add_(0, nearest, addends)

    def _tally(
        self,
        active: Sequence[int],
        blocks_of: dict[int, torch.Tensor],
        changed: dict[int, int],
        compared: dict[int, int],
    ) -> None:
        """Counts, squares and weights of the clusters, behind their sums."""
        d = self.space.features.d
        columns = [torch.bincount(self.labels, weights=self._squares, minlength=self.k)]
        columns.append(torch.bincount(self.labels, minlength=self.k).double())
        if self._mass is not None:
            columns.append(torch.bincount(self.labels, weights=self._mass, minlength=self.k))
        for g in active:
            group, block = self.groups[g], blocks_of[g]
            block[group.k * d : -2] = torch.cat([column[group.centroids] for column in columns])
            block[-2], block[-1] = changed[g], compared[g]

    def _reduce(self, active: Sequence[int], blocks_of: dict[int, torch.Tensor]) -> list[FeaturePartition]:
        """The partitions over all ranks."""
        d = self.space.features.d
        if self.ranks.world_size == 1 and (len(active) == len(self.groups)):
            wire = self._wire
        elif len(active) == len(self.groups):
            wire = self.ranks.sum(self._wire.clone() if self._kept else self._wire)
        else:
            wire = self.ranks.sum(torch.cat([blocks_of[g] for g in active]))
        self.bytes = wire.nbytes if self.ranks.world_size > 1 else 0
        partitions = []
        for g, block in zip(active, wire.split([self._sizes[g] for g in active]), strict=True):
            k = self.groups[g].k
            squares, counts, *mass = block[k * d : -2].split(k)
            sums, (changed, compared) = block[: k * d].view(k, d), block[-2:].long().tolist()
            weights = mass[0] if mass else counts
            partitions.append(FeaturePartition(counts, weights, sums, squares, changed, compared))
        return partitions
