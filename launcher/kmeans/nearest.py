"""Which centroid is nearest to each row: scores and argmax in tiles; rows x centroids never exist at once.

argmin |x - c|^2 = argmax x.c - |c|^2 / 2 for all features x, and argmax x.c on the sphere. Ways to compute it, which
agree up to rounding: `Tiles` here on a CPU, `Blocks` here on any device, and the Triton kernel of fused.py on GPUs.
"""

import torch

from launcher.kmeans.exact import nearest_of

FEW = 64  # centroids up to which an argmax takes less time than the operations that spare it
GROUP = 16  # centroids whose scores are compared element by element before anything looks for an index
TILE = 5120  # centroids on a CPU; with the chunk below, their scores stay in a core's share of the cache
LOWEST = -3e38  # the score of no centroid
BLOCK = 2048  # centroids on a GPU, in plain torch
# Relative error of a float32 score, per dimension: twice the bound of a sum in any order.
ROUNDING = 2.0**-23


def chunk_rows(device: torch.device, k: int) -> int:
    """Rows that a worker takes at a time."""
    if device.type == "cpu":
        return min(4096, max(256, 2**22 // k // 256 * 256))  # whole blocks of skipping.py
    return 33_792  # two programs of the kernel (128 rows) for each of 132 multiprocessors


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 with sums in float32 are faster here than float32."""
    if device.type == "cpu":
        return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return device.type == "cuda"


def piece_rows(k: int) -> int:
    """Rows whose scores are computed at a time on a CPU: few calls, as Python's threads get in one another's way."""
    return min(4096, max(256, 2**20 // k))


class Scratch:
    """What one worker needs on a CPU for so many rows whose scores are computed at a time, allocated once."""

    def __init__(self, rows: int, d: int, ones: int, k: int):
        self.rows = rows
        tile = min(TILE, k + GROUP)
        self.x = torch.ones(rows, d + ones)  # features, then ones that the biases are multiplied with
        self.scores = torch.empty(tile * rows)
        self.best = torch.empty(-(-tile // GROUP) * rows)


class Near:
    """Centroids that score within rounding of a row's best: pairs of row and centroid, collected tile by tile."""

    def __init__(self, margin: torch.Tensor):
        """margin: float32 [n], by how much a score below the best one may still be the best."""
        self.margin = margin
        self._pairs: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def add(self, row: torch.Tensor, candidate: torch.Tensor, score: torch.Tensor) -> None:
        self._pairs.append((row, candidate, score))

    def settle(
        self, nearest: torch.Tensor, top: torch.Tensor, x: torch.Tensor, centroids: torch.Tensor, spherical: bool
    ) -> torch.Tensor:
        """`nearest`, where rows with more than one candidate get the one of highest exact score."""
        row, candidate, score = (torch.cat(column) for column in zip(*self._pairs, strict=True))
        keep = score >= (top - self.margin)[row]
        row, candidate = row[keep], candidate[keep]
        several = torch.bincount(row, minlength=len(nearest)) > 1
        keep = several[row]
        if not keep.any():
            return nearest
        settled = nearest_of(x, centroids, row[keep], candidate[keep], spherical)
        return torch.where(several, settled, nearest)


def margin(x: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """float32 [n]: twice a bound of the rounding error of x's scores (x [n, d], centroids [k, d], float32).

    |error| <= gamma (|x| |c| + |c|^2 / 2), gamma = d u (Higham, Accuracy and Stability of Numerical Algorithms, 3.1).
    """
    largest = centroids.norm(dim=1).amax()
    return 2 * ROUNDING * (x.shape[1] + 8) * largest * (x.norm(dim=1) + largest)


class Tiles:
    """Centroids prepared for a CPU: scores lie centroid by centroid, so that the maximum over GROUP of them is taken
    element by element in vector registers. An argmax along a row costs as much as the product when d is 64."""

    def __init__(self, centroids: torch.Tensor, spherical: bool, half: bool, exact: bool):
        """centroids: float32 [k, d], as the features are measured; half: round them to bfloat16, and the product may;
        exact: near ties are decided exactly."""
        k, d = centroids.shape
        if half:
            centroids = centroids.bfloat16().float()
        self.k, self.spherical, self.exact, self.compared = k, spherical, exact, centroids
        self.ones = ones_for(half, d)
        self._packed = torch.zeros(-(-k // GROUP) * GROUP, d + self.ones)
        self._packed[:k, :d] = centroids
        bias = torch.zeros(k, dtype=torch.float64) if spherical else -0.5 * centroids.double().square().sum(dim=1)
        self.bias = bias.float()
        for column in range(d, d + self.ones):
            # In bfloat16 it takes three terms of 8 bits each to add what is as exact as float32.
            self._packed[:k, column] = bias.bfloat16().float() if half else bias.float()
            bias = bias - self._packed[:k, column]
        if self.ones:
            self._packed[k:, d] = LOWEST
        self._bias = torch.full((len(self._packed), 1), LOWEST)
        self._bias[:k, 0] = bias.float()

    def nearest(self, x: torch.Tensor, scratch: Scratch) -> torch.Tensor:
        """int64 [n] for x, float32 [n, d]; among equals, the first wins."""
        return torch.cat([self._scan(rows, scratch)[0] for rows in x.split(scratch.rows)])

    def scores_of(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """float32 [n], of each row of x with the centroid of its label, int64 [n]."""
        return scores_of(x, labels, self.compared, self.bias)

    def among(
        self,
        x: torch.Tensor,
        wanted: torch.Tensor,
        block: int,
        own: torch.Tensor,
        scale: torch.Tensor | None,
        scratch: Scratch | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The nearest where every block of rows is compared with some centroids only.

        x: float32 [n, d]; wanted: bool [b, k], for each `block` rows; own: float32 [n], a score that each row reaches;
        scale: float32 [n] or None, what the row's scores are multiplied with before rows are compared.
        Returns (int64 [n], among equals the first; float32 [n], its score; float32 [b, k], by how much the score of a
        centroid is above the best of a row, in the row where that is most; -inf where it is not wanted).
        """
        scratch = scratch or Scratch(block, x.shape[1], self.ones, self.k)
        excess = torch.full(wanted.shape, -torch.inf)
        found = []
        for start in range(0, len(x), block):
            above, stop = excess[start // block], min(start + block, len(x))
            columns = wanted[start // block].nonzero().flatten()
            for first in range(start, stop, scratch.rows):  # where k is large beside d a block may be larger
                part = slice(first, min(first + scratch.rows, stop))
                least = own[part], None if scale is None else scale[part]
                nearest, top, over = self._scan(x[part], scratch, columns, least)
                above[columns] = torch.maximum(above[columns], over)
                found.append((nearest, top))
        nearest, top = (torch.cat(column) for column in zip(*found, strict=True))
        return nearest, top, excess

    def _scan(
        self,
        x: torch.Tensor,
        scratch: Scratch,
        columns: torch.Tensor | None = None,
        least: tuple[torch.Tensor, torch.Tensor | None] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """`among` for one block, float32 [n, d]; of all centroids where no columns are given, int64 [m], ascending."""
        n, d = x.shape
        near = Near(margin(x, self.compared)) if self.exact else None
        wide, packed, bias, every = x, self._packed, self._bias, columns
        if self.ones:
            wide = scratch.x[:n]
            wide[:, :d] = x
        if columns is not None and len(columns) < self.k:
            # Whole groups, filled with the last one: in others products of equal centroids are not always equal.
            every = torch.cat([columns, columns[-1:].expand(-len(columns) % GROUP)])
            packed = torch.index_select(packed, 0, every)
            bias = bias.index_select(0, every)
        top = nearest = None
        excess = []
        for first in range(0, len(packed), TILE):
            some = packed[first : first + TILE]
            scores = scratch.scores[: len(some) * n].view(len(some), n)
            if self.ones:
                torch.mm(some, wide.T, out=scores)
            else:
                torch.addmm(bias[first : first + TILE], some, wide.T, out=scores)
            group = GROUP if len(some) > FEW else 1
            value, index, best = _best(scores.view(-1, group, n), scratch)
            if top is None:
                top, nearest = value, index
            else:
                nearest = torch.where(value > top, index + first, nearest)
                top = torch.maximum(top, value)
            if near is not None:
                self._collect(near, top, scores.view(-1, group, n), best, first, every)
            if least is not None:
                own, scale = least
                over = scores.sub_(torch.maximum(top, own))
                excess.append((over if scale is None else over.mul_(scale)).amax(dim=1))
        nearest = nearest if every is None else every[nearest]
        if near is not None:
            nearest = near.settle(nearest, top, x, self.compared, self.spherical)
        return nearest, top, torch.cat(excess)[: len(columns)] if excess else None

    @staticmethod
    def _collect(
        near: Near,
        top: torch.Tensor,
        scores: torch.Tensor,
        best: torch.Tensor,
        first: int,
        columns: torch.Tensor | None,
    ) -> None:
        """scores: [groups, members, n]; best: [groups, n], of each group."""
        floor = top - near.margin
        row, group = (best >= floor).T.nonzero(as_tuple=True)
        members = scores[group, :, row]
        pair, member = (members >= floor[row, None]).nonzero(as_tuple=True)
        place = first + group[pair] * scores.shape[1] + member
        near.add(row[pair], place if columns is None else columns[place], members[pair, member])


def _best(scores: torch.Tensor, scratch: Scratch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(The highest of each column [n], the first place that has it [n], the highest by group [groups, n]) of scores
    [groups, members, n]."""
    groups, members, n = scores.shape
    if members == 1:
        value, index = scores[:, 0].max(dim=0)
        return value, index, scores[:, 0]
    best = torch.amax(scores, dim=1, out=scratch.best[: groups * n].view(groups, n))
    value = best.amax(dim=0)
    group = _first(best, value)
    own = scores.gather(0, group.expand(1, members, n))[0]
    return value, _first(own, value).add_(group, alpha=members), best


def _first(values: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Of each column of values [m, n] the first row that holds wanted [n], int64 [n].

    argmax does the same one element at a time; this is three operations on vector registers.
    """
    rows = torch.arange(len(values), dtype=torch.int32)[:, None]
    return torch.where(values == wanted, rows, len(values) - 1).amin(dim=0).long()


def ones_for(half: bool, d: int) -> int:
    """Columns of ones beside the features, to be multiplied with the bias.

    For few dimensions that is cheaper than adding the bias to all scores, for many it is not.
    """
    return 3 if half else int(d < 128)


class Blocks:
    """Centroids prepared for any device, in plain torch: products of `dtype`, scores in float32."""

    def __init__(self, centroids: torch.Tensor, spherical: bool, dtype: torch.dtype, exact: bool):
        """centroids: float32 [k, d], as the features are measured; dtype: of the products' inputs."""
        self.compared, self.bias = rounded(centroids, spherical, dtype)
        self.spherical, self.exact, self.dtype = spherical, exact, dtype

    def nearest(self, x: torch.Tensor) -> torch.Tensor:
        """int64 [n] for x [n, d]; among equals, the first wins."""
        x = x.to(self.dtype)
        centroids = self.compared.float() if self.exact else None
        near = Near(margin(x.float(), centroids)) if self.exact else None
        top = nearest = None
        for first in range(0, len(self.compared), BLOCK):
            part = slice(first, first + BLOCK)
            scores = _product(x, self.compared[part].T).add_(self.bias[part])
            value, index = scores.max(dim=1)
            if top is None:
                top, nearest = value, index
            else:
                nearest = torch.where(value > top, index + first, nearest)
                top = torch.maximum(top, value)
            if near is not None:
                row, candidate = (scores >= (top - near.margin)[:, None]).nonzero(as_tuple=True)
                near.add(row, first + candidate, scores[row, candidate])
        return nearest if near is None else near.settle(nearest, top, x.float(), centroids, self.spherical)


def rounded(centroids: torch.Tensor, spherical: bool, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """(centroids [k, d] in `dtype`, what to add to their scores, float32 [k])."""
    compared, bias = centroids.to(dtype), torch.zeros(len(centroids), device=centroids.device)
    # Norms of the rounded centroids: with those of the others, up to 0.1 % of the labels were wrong in bfloat16.
    for rows in blocks(*centroids.shape) if not spherical else ():
        bias[rows] = -0.5 * compared[rows].double().square().sum(dim=1).float()
    return compared, bias


def scores_of(x: torch.Tensor, labels: torch.Tensor, compared: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """float32 [n], of each row of x [n, d] with the centroid of its label, int64 [n]."""
    scores = [
        (x[rows].float() * compared.index_select(0, labels[rows]).float()).sum(dim=1) for rows in blocks(*x.shape)
    ]
    return torch.cat(scores).add_(bias[labels])


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a b in float32, whatever their dtype."""
    if a.dtype == torch.float32:
        return a @ b
    if a.device.type == "cuda":
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()


def blocks(rows: int, d: int, elements: int = 2**24) -> list[slice]:
    """Stretches of [rows, d] of about so many elements: what is done in float64 should not need a copy of it all."""
    step = max(1, elements // max(1, d))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
