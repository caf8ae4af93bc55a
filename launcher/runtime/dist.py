"""The ranks of one job: who am I, which device, which groups. One process without a launcher is a world of one."""

import contextlib
import datetime
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class World:
    """This process among the ranks. `control` is a gloo group of its own for votes and small objects."""

    rank: int
    size: int
    device: torch.device
    control: Any = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier(group=self.control)

    def broadcast(self, value: Any) -> Any:
        """Rank 0's `value` on every rank, as JSON gives it back: a tuple as a list. Raises TypeError for what JSON has
        no words for; nothing that comes from another rank is ever executed, as a pickle would be."""
        text = _text(value) if self.is_main else torch.empty(0, dtype=torch.uint8)
        if self.size > 1:
            length = torch.tensor([len(text)])
            dist.broadcast(length, src=0, group=self.control)
            text = text if self.is_main else torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(text, src=0, group=self.control)
        return _value(text)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's `value`, by rank, on every rank, as JSON gives it back; see `broadcast`."""
        text = _text(value)
        if self.size == 1:
            return [_value(text)]
        lengths = [length for (length,) in self._rows([len(text)])]
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(text)] = text
        texts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(texts, padded, group=self.control)
        return [_value(text[:length]) for text, length in zip(texts, lengths, strict=True)]

    def overwrite(self, tensor: torch.Tensor) -> None:
        """Make every rank's `tensor`, of one shape and dtype, rank 0's."""
        if self.size > 1:
            wire = tensor.detach().cpu().contiguous()
            dist.broadcast(wire, src=0, group=self.control)
            tensor.detach().copy_(wire)

    def collect(self, rows: torch.Tensor) -> torch.Tensor | None:
        """Every rank's `rows` [n_r, ...], in order of rank, on rank 0; None elsewhere. n_r may differ."""
        if self.size == 1:
            return rows
        counts = [count for (count,) in self._rows([len(rows)])]
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts] if self.is_main else None
        dist.gather(padded, parts, dst=0, group=self.control)
        return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)]) if parts else None

    def exchange(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Send parts[r] [n, ...] to rank r; returns what was sent to this rank, in order of the senders."""
        if self.size == 1:
            return parts[0]
        counts = self._rows([len(part) for part in parts])
        incoming = [counts[sender][self.rank] for sender in range(self.size)]
        received = parts[0].new_empty((sum(incoming), *parts[0].shape[1:]))
        dist.all_to_all_single(
            received, torch.cat(list(parts)), incoming, [len(part) for part in parts], group=self.control
        )
        return received

    def _rows(self, row: Sequence[int]) -> list[list[int]]:
        """Every rank's `row` of as many integers, by rank."""
        rows = [torch.empty(len(row), dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(rows, torch.tensor(row), group=self.control)
        return [row.tolist() for row in rows]

    def apart(self) -> "World":
        """The same ranks with a control group of its own, for a thread beside the main one. Collective."""
        return self if self.size == 1 else replace(self, control=dist.new_group(backend="gloo"))

    def group_of(self, ranks: Sequence[Sequence[int]]) -> Any:
        """Partition the world into process groups and return the one that holds this rank; None for a group of one.

        Collective: every rank passes the same partition.
        """
        mine = None
        for members in ranks:
            group = dist.new_group(list(members)) if len(members) > 1 else None
            if self.rank in members:
                mine = group
        return mine


def _text(value: Any) -> torch.Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def _value(text: torch.Tensor) -> Any:
    return json.loads(text.numpy().tobytes())


def init(rendezvous: str | None = None) -> World:
    """Join the ranks as the environment says: RANK, WORLD_SIZE, LOCAL_RANK; rendezvous is a file or env://."""
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    if size == 1:
        return World(rank, size, device)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=rendezvous or "env://",
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(minutes=30),  # a k-means pass or a save may keep the others waiting
    )
    return World(rank, size, device, control=dist.new_group(backend="gloo"))


def shutdown() -> None:
    """Leave the process group. A rank that fails must not wait for the others here."""
    if dist.is_initialized():
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


class Vote:
    """All ranks stop together: an all-reduce of a small number that nobody waits for, read one step later.

    `cast(code)` starts this step's vote and returns the previous one's outcome: the largest code of any rank.
    """

    def __init__(self, world: World):
        self._world = world
        self._pending: tuple[torch.Tensor, Any] | None = None

    def cast(self, code: int) -> int:
        outcome = self.settle()
        ballot = torch.tensor([code], dtype=torch.int32)
        alone, group = self._world.size == 1, self._world.control
        work = None if alone else dist.all_reduce(ballot, op=dist.ReduceOp.MAX, group=group, async_op=True)
        self._pending = (ballot, work)
        return outcome

    def settle(self) -> int:
        """Wait for the vote under way and return its outcome."""
        if self._pending is None:
            return 0
        (ballot, work), self._pending = self._pending, None
        if work is not None:
            work.wait()
        return int(ballot.item())

    def now(self, code: int) -> int:
        """Vote and wait: for safe points that are seconds apart, not for training steps."""
        earlier = self.cast(code)
        return max(earlier, self.settle())
