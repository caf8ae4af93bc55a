"""What is remembered of the latest batches. By each rank of its own: SwAV's queue (thesis 4.2.3), SMoG's cache of
features (3.4). By every rank of all: MoCo's queue of keys."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import normalize

from methods.parts.collectives import differentiable_gather


class Memory:
    """The float32 embeddings of the latest `steps` batches of this rank, which hold equally many.

    shape: of one batch, [..., B, d]. Detached: no gradient flows into what is remembered.

    >>> memory = Memory(2, (1, 3))
    >>> for value in (1.0, 2.0, 3.0):
    ...     memory.put(torch.full((1, 3), value))
    >>> memory.full, memory.newest_first()[:, 0, 0].tolist()
    (True, [3.0, 2.0])
    """

    def __init__(self, steps: int, shape: tuple[int, ...], *, device: torch.device | str = "cpu"):
        if steps < 1:
            raise ValueError(f"steps={steps}: a memory holds at least one batch; give 1 or more")
        self._rows = torch.zeros(steps, *shape, device=device)
        self._written = 0  # batches ever; kept on the host, so that asking whether it is full waits for no GPU

    @property
    def full(self) -> bool:
        """Whether no batch is missing: what a queue waits for before it is used."""
        return self._written >= len(self._rows)

    @torch.no_grad()
    def put(self, batch: torch.Tensor) -> None:
        """Remember `batch` [..., B, d] in place of the oldest one."""
        self._rows[self._written % len(self._rows)].copy_(batch)
        self._written += 1

    def newest_first(self) -> torch.Tensor:
        """float32 [n, ..., B, d], the n batches that are there."""
        return self._rows.flip(0).roll(self._written, 0)[: min(self._written, len(self._rows))]

    def parts(self, count: int, rank: int, world_size: int) -> "dict[int, MemoryPart]":
        """{number: owner of its state}: the positions of a global batch in `count` parts, and which of them this rank
        holds. Where the ranks share a global batch in order, a part is the same on any number of ranks, and so a run
        may go on with another. Raises ValueError unless every rank holds as many whole parts."""
        batch = self._rows.shape[-2]
        if count % world_size or batch * world_size % count:
            raise ValueError(f"count={count}: a batch of {batch} on each of {world_size} ranks has no such parts")
        own, size = count // world_size, batch * world_size // count
        return {rank * own + n: MemoryPart(self, slice(n * size, (n + 1) * size)) for n in range(own)}


class MemoryPart:
    """The state of some positions of the batch."""

    def __init__(self, memory: Memory, positions: slice):
        self._memory, self._positions = memory, positions

    def state(self) -> Mapping[str, Any]:
        memory = self._memory
        return {"rows": memory._rows[..., self._positions, :].contiguous(), "written": memory._written}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._memory._rows[..., self._positions, :] = state["rows"].to(self._memory._rows.device)
        self._memory._written = state["written"]


class KeyQueue:
    """The latest `length` keys of all ranks, of `dimensions` values each, the same on every rank and on any number of
    them (He et al. 2020, "Momentum Contrast", 3.2). 4 length dimensions bytes on each rank, and on the disk.

    A global batch goes in at a time, in order of rank, in place of the oldest one; `length` is a multiple of it, which
    `memory_layout.check_queue` asks of a config. seed: of the random unit vectors that it is full of at first
    (released code of MoCo); None: it is empty. Register it once, as what is equal on every rank.

    >>> queue = KeyQueue(4, 1)
    >>> for value in (1.0, 2.0, 3.0):
    ...     queue.put(torch.full((2, 1), value))
    >>> queue.full, queue.keys().flatten().tolist()
    (True, [3.0, 3.0, 2.0, 2.0])
    """

    def __init__(self, length: int, dimensions: int, *, seed: int | None = None, device: torch.device | str = "cpu"):
        if length < 1:
            raise ValueError(f"length={length}: a queue holds at least one global batch; give a multiple of it")
        rows = torch.zeros(length, dimensions)
        if seed is not None:  # drawn on the CPU, so that every kind of device begins with the same ones
            rows = normalize(torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed)), dim=1)
        self._rows = rows.to(device)
        self._written = 0 if seed is None else length  # keys ever; kept on the host, as in `Memory`

    @property
    def full(self) -> bool:
        """Whether no key is missing."""
        return self._written >= len(self._rows)

    @torch.no_grad()
    def put(self, keys: torch.Tensor) -> None:
        """Remember the keys of this step, floating point [B, d] of this rank, equally many on every rank. Collective.
        Raises ValueError where `length` is no multiple of all of them."""
        rows = differentiable_gather(keys.to(self._rows.dtype))
        if len(self._rows) % len(rows):
            raise ValueError(f"length={len(self._rows)}: no multiple of the {len(rows)} keys of a step; give one")
        first = self._written % len(self._rows)
        self._rows[first : first + len(rows)] = rows
        self._written += len(rows)

    def keys(self) -> torch.Tensor:
        """float32 [n, d], the n <= length keys that are there, in no order of age. A copy: what was computed of it can
        still be differentiated when the next keys are in."""
        return self._rows[: self._written].clone()

    def state(self) -> Mapping[str, Any]:
        return {"rows": self._rows, "written": self._written}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._rows.copy_(state["rows"])
        self._written = state["written"]
