"""A bank by sample id: a row for every image of the data set, each on one rank. For NPID's features (Wu et al. 2018),
DeepCluster-v2's embeddings and assignments (thesis 4.4)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.functional import normalize

from methods.parts.collectives import differentiable_gather, rank, world_size
from methods.parts.memory_layout import part_of_bank, parts_of_rank, share_of_bank


class SampleBank:
    """`samples` rows of `shape`, each on one rank: that in whose share of consecutive ids it falls, whole parts by a
    rule that knows neither epoch nor step. A row crosses ranks once, when it is put; k-means takes the shares as they
    lie, and a run may go on with another number of ranks, up to `parts` of them.

    shape: of a row, such as (d,), or (views, d). fill: what rows hold that were never put, such as -100, the label that
    losses leave out. seed: of random unit vectors in its place, which count as put (NPID's start); the same whatever
    the number of ranks. device: that of the ranks' collectives. Raises ValueError where samples < 1, or where there are
    fewer parts than ranks.

    A rank holds about 1/world_size of the rows, in all `memory_layout.bank_bytes`, and keeps as much in host memory for
    checkpoints once one was written. Nothing here waits for a GPU but `mine` and `put_mine`.

    >>> bank = SampleBank(5, (2,), parts=2, fill=-1)
    >>> bank.put(torch.tensor([4, 0]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    >>> bank.rows(torch.tensor([0, 1, 4])).tolist()
    [[3.0, 4.0], [-1.0, -1.0], [1.0, 2.0]]
    >>> ids, rows = bank.mine
    >>> ids.tolist(), rows.tolist()
    ([0, 4], [[3.0, 4.0], [1.0, 2.0]])
    """

    def __init__(
        self,
        samples: int,
        shape: Sequence[int],
        *,
        parts: int,
        dtype: torch.dtype = torch.float32,
        fill: float = 0,
        seed: int | None = None,
        device: torch.device | str = "cpu",
    ):
        if samples < 1:
            raise ValueError(f"samples={samples}: a bank holds a row for each; give 1 or more")
        self._samples, self._parts, self._rank, self._ranks = samples, parts, rank(), world_size()
        self._share = share_of_bank(samples, parts, self._rank, self._ranks)
        ends = [share_of_bank(samples, parts, each, self._ranks).stop for each in range(self._ranks)]
        self._ends = torch.tensor(ends, device=device)
        # The last row takes what belongs to other ranks: shapes then depend on no id, and nothing waits for a GPU.
        held = len(self._share) + 1
        self._rows = torch.full((held, *shape), fill, dtype=dtype, device=device)
        self._known = torch.full((held,), seed is not None, device=device)
        if seed is not None:
            self._draw(seed)

    @torch.no_grad()
    def put(self, ids: torch.Tensor, rows: torch.Tensor) -> None:
        """Keep `rows` [n, *shape], of any dtype, as those of the samples `ids`, int64 [n] on the CPU, as the loader
        gives them; equally many on every rank. Where an id occurs again, the last row counts, in order of rank.
        Collective: each rank receives the n rows of every other, (world_size - 1) n a step; to send each to its owner
        alone, a step would have to wait until all ranks know how many these are. Raises IndexError for an id outside 0
        to samples - 1."""
        place = self._places(differentiable_gather(self._checked(ids)))
        rows = differentiable_gather(rows.to(self._rows))
        # Which of several writes to one place a GPU does last is left to chance: all but the last go to no sample.
        order = place.argsort(stable=True)
        place = place[order]
        place[:-1].masked_fill_(place[:-1] == place[1:], len(self._share))
        self._rows.index_copy_(0, place, rows[order])
        self._known.index_fill_(0, place, True)

    @torch.no_grad()
    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """What is kept of the samples `ids`, int64 [n] on the CPU, equally many on every rank: [n, *shape]. Collective:
        each rank sends a row for each id that any of them asks for. So for many that all ranks need, each asks for some
        of them, and `differentiable_gather` brings these together. Raises IndexError as `put`."""
        ids = self._checked(ids)
        found = self._rows[self._places(differentiable_gather(ids))]
        if self._ranks == 1:
            return found
        answers = torch.empty_like(found)  # of each rank, the rows for my ids; where they are not its own, any row
        dist.all_to_all_single(answers, found)
        owner = torch.bucketize(ids, self._ends, right=True)
        return answers[owner * len(ids) + torch.arange(len(ids), device=ids.device)]

    @property
    def mine(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(ids int64 [n] on the CPU, rows [n, *shape]) of this rank's share, those that were ever put, in order of id;
        the shares in order of rank are in order of id, too. To be read only: it may be the memory of the bank."""
        known = self._known[:-1].cpu()
        ids = torch.arange(self._share.start, self._share.stop)
        if known.all():
            return ids, self._rows[:-1]
        return ids[known], self._rows[:-1][known.to(self._rows.device)]

    @torch.no_grad()
    def put_mine(self, ids: torch.Tensor, rows: torch.Tensor) -> None:
        """Keep `rows` [n, *shape] as those of the samples `ids`, each one once and of this rank's share: of `mine`, or
        of that of another bank of as many samples and parts, such as what k-means said of its rows. Not collective.
        Raises IndexError for other ids."""
        place = ids.cpu() - self._share.start
        if len(place) and not 0 <= place.min() <= place.max() < len(self._share):
            raise IndexError(f"ids: some are outside {self._share.start} to {self._share.stop - 1}, this rank's share")
        place = place.to(self._rows.device)
        self._rows.index_copy_(0, place, rows.to(self._rows))
        self._known.index_fill_(0, place, True)

    def parts(self) -> "dict[int, SampleBankPart]":
        """{number: owner of its state}: the parts that this rank holds. A part is the same on any number of ranks."""
        return {number: SampleBankPart(self, number) for number in self._own_parts()}

    def _own_parts(self) -> range:
        return parts_of_rank(self._parts, self._rank, self._ranks)

    def _draw(self, seed: int) -> None:
        for number in self._own_parts():
            rows = self._of_part(number)
            state = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)
            drawn = torch.randn(rows.shape, generator=torch.Generator().manual_seed(int(state[0])))
            rows.copy_(normalize(drawn, dim=-1))

    def _of_part(self, number: int, of: torch.Tensor | None = None) -> torch.Tensor:
        """The rows of a part, or what is `of` them; a view."""
        ids = part_of_bank(self._samples, self._parts, number)
        first = self._share.start
        return (self._rows if of is None else of)[ids.start - first : ids.stop - first]

    def _checked(self, ids: torch.Tensor) -> torch.Tensor:
        """On the bank's device."""
        if len(ids) and not 0 <= ids.min() <= ids.max() < self._samples:
            raise IndexError(f"ids: some are outside 0 to {self._samples - 1}, the samples of the bank")
        return ids.to(self._rows.device, non_blocking=True)

    def _places(self, ids: torch.Tensor) -> torch.Tensor:
        """Where the rows of `ids` are here; of those of other ranks, the last row."""
        place = ids - self._share.start
        return place.masked_fill((place < 0) | (place >= len(self._share)), len(self._share))


class SampleBankPart:
    """The state of a part of a bank."""

    def __init__(self, bank: SampleBank, number: int):
        self._bank, self._number = bank, number

    def state(self) -> Mapping[str, Any]:
        bank = self._bank
        return {"rows": bank._of_part(self._number), "known": bank._of_part(self._number, bank._known)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        for key, here in self.state().items():
            here.copy_(state[key])
