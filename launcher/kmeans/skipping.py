"""Whether it pays to keep bounds (bounds.py): a small sample of the rows tells before they are made, and what they
spare afterwards. Bounds are of this rank's rows and never travel; they are not saved, but made anew after a resume."""

from collections.abc import Callable

import torch

from launcher.kmeans.bounds import Bounds, Reach, drift

BLOCK = {"cpu": 256, "cuda": 128}  # rows; on a GPU those of a program of the kernel
# Of the comparisons, this share must be spared: half of it is what bounds cost, and reading rows in another order.
WORTH = 0.3
PAIRS = 2.0**25  # below so many multiplications a block, what is done around its product takes longer than the product
ROOM = 4  # bounds take at most the features' memory divided by this: where k is large beside d, blocks are larger
SAMPLE = 8  # blocks
NEXT = 0.5  # at first, a drift is about this share of the one before; bounds that are made now serve against the next
FALSE_START = 6  # bounds that were made and did not pay count like so many tries that did not
LEAF = 16  # centroids that `line` leaves in any order
SKETCH = 32  # dimensions in which `line` looks at them


class Skipping:
    """Of one group: its bounds, if it has any."""

    def __init__(self, rows: int, chunk: int, spherical: bool, bytes_of_features: int):
        self.bounds: Bounds | None = None
        self.reach: Reach | None = None
        self._rows, self._chunk, self._spherical, self._room = rows, chunk, spherical, bytes_of_features / ROOM
        self._last = None
        self._wait = self._tries = 0

    def begin(self, finder, order: torch.Tensor, labels: torch.Tensor, read: Callable) -> None:
        """Before an E-step. finder: of the centroids as they are now; order: int64 [n], the group's rows;
        labels: int64 [n], the last centroids of these; read: rows -> features."""
        if not hasattr(finder, "among") or self._rows == 0:
            return
        k, d = finder.compared.shape
        block = BLOCK[order.device.type]
        while block < self._chunk and 4 * k * self._rows / block > self._room:
            block *= 2
        if block * k * d < PAIRS:
            return
        last, self._last = self._last, finder
        if last is None:
            return
        self.reach, moved = Reach.of(finder.compared), drift(last.compared, finder.compared)
        if self.bounds is not None:
            self.bounds.lower(moved)
            if int(torch.count_nonzero(self.bounds.gap > 0)) < WORTH * self.bounds.gap.numel():
                self.bounds = None
                self._tries += FALSE_START
                self._wait = self._tries // 3
        elif self._wait:
            self._wait -= 1
        else:
            place = line(finder.compared)
            near = torch.argsort(place[labels].to(torch.int16 if k < 2**15 else torch.int32), stable=True)
            if self._spared(last, finder, NEXT * moved, order[near], labels[near], read, block) < WORTH:
                self._tries += 1
                self._wait = self._tries // 3
            else:
                self.bounds = Bounds(order[near], k, self._chunk, block, self._spherical)

    def _spared(self, last, finder, moved, order, labels, read, block) -> float:
        """What bounds from the last iteration would have spared in this one, by a sample of blocks."""
        block = min(block, self._chunk)
        starts = torch.linspace(0, max(0, self._rows - block), SAMPLE).long().unique().tolist()
        reach, spared = Reach.of(last.compared), 0.0
        for start in starts:
            rows, old = order[start : start + block], labels[start : start + block]
            bounds, x = Bounds(rows, len(last.compared), block, block, self._spherical), read(rows)
            bounds.nearest(last, reach, x, 0, old, None)
            bounds.lower(moved)
            spared += 1 - float(bounds.needed(finder, self.reach, x, 0, old).wanted.float().mean())
        return spared / len(starts)


def line(centroids: torch.Tensor) -> torch.Tensor:
    """A place for each of the centroids [k, d] on a line, int64 [k], where neighbours are near to one another.

    They are halved again and again along the direction in which they vary most, all parts at once.
    """
    (k, d), device = centroids.shape, centroids.device
    generator = torch.Generator().manual_seed(0)
    c = centroids.float()
    if d > SKETCH:  # random projections keep distances well enough for this
        c = c @ torch.randn(d, SKETCH, generator=generator).to(device)
    levels = max(0, (-(-k // LEAF) - 1).bit_length())
    size = -(-k // 2**levels) * 2**levels
    order = torch.full((size,), k, dtype=torch.int64, device=device)
    order[:k] = torch.arange(k, device=device)
    c = torch.cat([c, c.mean(dim=0, keepdim=True)])  # fills up the last part
    direction = torch.randn(c.shape[1], 1, generator=generator).to(device)
    for level in range(levels):
        parts = order.view(2**level, -1)
        points = c[parts]
        points = points - points.mean(dim=1, keepdim=True)
        along = points @ direction
        for _ in range(3):  # of the power method
            axis = points.transpose(1, 2) @ along
            along = points @ (axis / axis.norm(dim=1, keepdim=True).clamp(min=1e-30))
        along = along[:, :, 0].masked_fill(parts == k, torch.inf)
        order = parts.gather(1, along.argsort(dim=1)).flatten()
    order = order[order < k]
    place = torch.empty(k, dtype=torch.int64, device=device)
    place[order] = torch.arange(k, device=device)
    return place
