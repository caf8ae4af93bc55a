"""What a block of rows need not be compared with: lower bounds by the triangle inequality (Elkan, ICML 2003).

Rows whose centroids are near one another make a block. When it is compared with a centroid, it keeps how much further
than its own centroid that one is to any of its rows, at least. Then the drift of that centroid is taken off, and so is
what the rows' own centroids moved away; while some of it is left, none of the rows can join that centroid, and the
block is not compared with it. One bound serves all rows of a block: it takes little memory, and what is left to compare
is one dense product a block, of its rows with those centroids that it needs.

With D(i, j) the distance of row i to centroid j, and r(i) a reference of the row (its distance to its own centroid when
the block was last compared), the invariant is D(i, j) >= gap(block, j) + r(i) for all rows i of the block. The gap
leaves room for rounding: a centroid is left out only if its score, as computed, would be below the best by more than
`nearest.margin`; so what is left out decides nothing, not even between equals.
"""

from typing import NamedTuple

import torch

from launcher.kmeans.nearest import ROUNDING, Scratch, Tiles, blocks

# Relative rounding of distances and bounds themselves in float32, with room for the handful of operations on them.
LOOSE = 2.0**-20
LOST = 2.0**-126  # absolute rounding: below this float32 has fewer digits, or takes a number for 0
DIRECTED = 2.0**-100  # a squared norm above which features are divided by it; rows of a smaller one are always compared


class Reach(NamedTuple):
    """Of centroids as they are compared: the largest norm, and how far their squared norms are from 1 at most."""

    largest: torch.Tensor
    uneven: torch.Tensor

    @classmethod
    def of(cls, compared: torch.Tensor) -> "Reach":
        """compared: [k, d]."""
        squares = torch.cat([compared[rows].float().square().sum(dim=1) for rows in blocks(*compared.shape)])
        return cls(squares.amax().sqrt() * (1 + LOOSE), (squares - 1).abs().amax())


def drift(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """How far each centroid moved, float32 [k], rounded up; of centroids [k, d] as they are compared."""
    moved = [(after[rows].double() - before[rows].double()).norm(dim=1) for rows in blocks(*after.shape)]
    return torch.cat(moved).float() * (1 + LOOSE)


class Bounds:
    """Of the rows of one group on this rank, in blocks. Workers may use it at the same time for different chunks.

    order: int64 [n], the rows of the features, near ones together. gap: float32 [blocks, k].
    """

    def __init__(self, order: torch.Tensor, k: int, chunk: int, block: int, spherical: bool):
        """chunk: rows that come at a time; block: rows of a block, the last ones of a chunk may be fewer."""
        self.order, self.spherical, self._chunk, self._block = order, spherical, chunk, min(block, chunk)
        n, self._in_chunk = len(order), -(-chunk // self._block)
        count = -(-n // chunk) * self._in_chunk
        self.gap = torch.full((count, k), -torch.inf, device=order.device)
        self._reference = torch.zeros(n, device=order.device)
        self._squares = torch.zeros(n, device=order.device)
        self._seen = [False] * -(-n // chunk)

    def lower(self, drift: torch.Tensor) -> None:
        """The centroids moved so far, float32 [k]."""
        self.gap -= drift

    def needed(self, finder: Tiles, reach: Reach, x: torch.Tensor, start: int, old: torch.Tensor) -> "Needed":
        """What these rows have to be compared with.

        x: [m, d], the rows of `order` from place `start`, a multiple of the chunk, on; old: int64 [m], their centroids.
        """
        place = slice(start, start + len(x))
        if not self._seen[start // self._chunk]:
            self._squares[place] = torch.cat([x[rows].float().square().sum(dim=1) for rows in blocks(*x.shape)])
            self._seen[start // self._chunk] = True
        squares, roots = self._squares[place], self._squares[place].sqrt()
        own, scale, d = finder.scores_of(x, old), None, x.shape[1]
        if self.spherical:
            # On the sphere: |x| = |c| = 1, but for what rounding makes of the centroids.
            scale = torch.where(squares > DIRECTED, 1 / roots, 0.0)
            size, squares = torch.full_like(roots, 2.0), torch.full_like(roots, 2.0)
            room = 2 * ROUNDING * (d + 8) * size.square() + reach.uneven
        else:
            size = roots + reach.largest
            room = 2 * (d + 8) * (ROUNDING * size.square() + LOST)
        distance = self._distance(squares, own, scale, 4 * room)
        first = start // self._chunk * self._in_chunk
        rows = slice(first, first + -(-len(x) // self._block))
        loose = LOOSE * self._largest(size)
        limit = self._largest(distance - self._reference[place]) + loose
        wanted = self.gap[rows] <= limit[:, None]
        wanted[torch.arange(len(x), device=x.device) // self._block, old] = True
        return Needed(place, rows, wanted, own, scale, squares, self._largest(room), loose)

    def nearest(
        self, finder: Tiles, reach: Reach, x: torch.Tensor, start: int, old: torch.Tensor, scratch: Scratch | None
    ) -> tuple[torch.Tensor, int]:
        """(int64 [m], the nearest centroid of each row, among equals the first; how many pairs were compared).

        As `needed`; scratch: the worker's, on a CPU.
        """
        need = self.needed(finder, reach, x, start, old)
        nearest, top, excess = finder.among(x, need.wanted, self._block, need.own, need.scale, scratch)
        reference = self._distance(need.squares, top, need.scale, 0.0)
        rise = self._largest(reference - self._reference[need.place])
        far, behind = self._largest(reference)[:, None], -excess - need.room[:, None]
        # D^2 >= r^2 + 2 behind for every row, and sqrt(r^2 + 2 behind) - r is least where r is largest.
        beyond = (far.square() + 2 * behind.clamp(min=0)).sqrt() - far
        gap = torch.where(behind > 0, beyond, -(2 * behind.clamp(max=0).neg()).sqrt())
        self.gap[need.rows] = torch.where(need.wanted, gap, self.gap[need.rows] - rise[:, None]) - need.loose[:, None]
        self._reference[need.place] = reference
        return nearest, need.pairs(len(x), self._block)

    def _largest(self, values: torch.Tensor) -> torch.Tensor:
        """In each block, of values [m]."""
        missing = -len(values) % self._block
        if missing:
            values = torch.cat([values, values.new_full((missing,), -torch.inf)])
        return values.view(-1, self._block).amax(dim=1)

    @staticmethod
    def _distance(
        squares: torch.Tensor, scores: torch.Tensor, scale: torch.Tensor | None, room: torch.Tensor | float
    ) -> torch.Tensor:
        scores = scores if scale is None else scores * scale
        return ((squares - 2 * scores).clamp(min=0) + room).sqrt()


class Needed(NamedTuple):
    """Of one chunk: its place in the order, its rows of the bounds, and by block [b] or row [m] what is known of it.

    wanted: bool [b, k]; own: scores of the rows with their own centroids; scale: what scores are multiplied with on
    the sphere; squares: of the norms; room, loose: for rounding, of scores and of distances.
    """

    place: slice
    rows: slice
    wanted: torch.Tensor
    own: torch.Tensor
    scale: torch.Tensor | None
    squares: torch.Tensor
    room: torch.Tensor
    loose: torch.Tensor

    def pairs(self, rows: int, block: int) -> int:
        """Of a row and a centroid that are compared, of so many rows."""
        sizes = torch.full((len(self.wanted),), block, dtype=torch.int64, device=self.wanted.device)
        sizes[-1] = rows - block * (len(sizes) - 1)
        return int((self.wanted.sum(dim=1) * sizes).sum())
