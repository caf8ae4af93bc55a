"""One set of features held by several ranks: who they are, which rows each one holds, and the collectives they use.

The rows of all ranks, in the order of the ranks, are the data set; a sample's position in it is its global index.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

from launcher.kmeans.features import Features, first_bad_row


@dataclass(frozen=True)
class Ranks:
    """The ranks of a process group, or this process alone."""

    group: dist.ProcessGroup | None
    rank: int
    world_size: int

    @classmethod
    def of(cls, group: dist.ProcessGroup | None = None) -> "Ranks":
        """The ranks of `group`; None: all ranks if torch.distributed is initialised, else this process alone.

        Raises ValueError if this process is not in `group`.
        """
        if group is None and not (dist.is_available() and dist.is_initialized()):
            return cls(None, 0, 1)
        rank = dist.get_rank(group)
        if rank < 0:
            raise ValueError(f"group: rank {dist.get_rank()} is not in it; call this only on the ranks of the group")
        return cls(group, rank, dist.get_world_size(group))

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, the same on each of them; overwrites `tensor` where that spares a copy."""
        return self._reduce(tensor, dist.ReduceOp.SUM)

    def max(self, tensor: torch.Tensor) -> torch.Tensor:
        """The largest of all ranks, element by element; overwrites `tensor` where that spares a copy."""
        return self._reduce(tensor, dist.ReduceOp.MAX)

    def _reduce(self, tensor: torch.Tensor, operation: dist.ReduceOp) -> torch.Tensor:
        if self.world_size == 1:
            return tensor
        # NCCL carries only GPU memory; gloo carries CPU memory everywhere and GPU memory only in some builds.
        wire = tensor.to("cuda" if "nccl" in dist.get_backend(self.group) else "cpu")
        dist.all_reduce(wire, op=operation, group=self.group)
        return wire.to(tensor.device)

    def first(self, tensor: torch.Tensor) -> torch.Tensor:
        """Rank 0's `tensor`, on every rank; all give one of its shape."""
        return self.sum(tensor if self.rank == 0 else torch.zeros_like(tensor))

    def table(self, row: list[int]) -> list[list[int]]:
        """Every rank's `row` of integers, in the order of the ranks."""
        table = torch.zeros(self.world_size, len(row), dtype=torch.int64)
        table[self.rank] = torch.tensor(row, dtype=torch.int64)
        return self.sum(table).tolist()

    def told(self, text: bytes, length: int, teller: int) -> bytes:
        """The `length` bytes of `text` of the rank `teller`, on every rank."""
        wire = torch.zeros(length, dtype=torch.int32)
        if self.rank == teller:
            wire += torch.frombuffer(bytearray(text), dtype=torch.uint8)
        return bytes(self.sum(wire).tolist())

    def refuse(self, lengths: list[int], complaint: str | None) -> None:
        """Raise ValueError with the complaint of the first rank that has one, on all ranks.

        lengths: bytes of every rank's complaint, 0 where there is none. All ranks raise the same error: one that
        went on alone would wait for the others for ever.
        """
        for rank, length in enumerate(lengths):
            if length:
                raise ValueError(self.told((complaint or "").encode(), length, rank).decode())


@dataclass(frozen=True)
class FeatureShards:
    """How the data set lies on the ranks. total: features on all ranks; offset: global index of this rank's first;
    longest: features of the rank that has most; workers: threads of the rank that has most."""

    total: int
    offset: int
    longest: int
    workers: int = 1


def survey(features: Features, ranks: Ranks, check: Callable[[], str | None] = lambda: None) -> FeatureShards:
    """Exchange the sizes of the shards and check their contents.

    features: n may be 0. check: what else this rank may have to complain about. Raises ValueError, the same on all
    ranks, if features of any rank are not finite, the ranks differ in d, or any rank has a complaint.
    """
    complaint = features.complaint() or check() or non_finite(features, ranks.rank)
    workers = torch.get_num_threads() if features.device.type == "cpu" else 1
    row = [len((complaint or "").encode()), features.n, features.d, workers]
    lengths, counts, dims, threads = zip(*ranks.table(row), strict=True)
    if len(set(dims)) > 1 and not any(lengths):
        raise ValueError(f"features: d={list(dims)} on ranks 0 to {ranks.world_size - 1}; give every rank the same d")
    ranks.refuse(list(lengths), complaint)
    return FeatureShards(total=sum(counts), offset=sum(counts[: ranks.rank]), longest=max(counts), workers=max(threads))


def non_finite(features: Features, rank: int) -> str | None:
    """Complaint about the first row with a NaN or an infinity."""
    row = first_bad_row(features)
    if row is None:
        return None
    return (
        f"features: row {row} of rank {rank} is NaN or infinite and has no nearest centroid; "
        "find out why the network gave it, or leave the sample out"
    )


def check_count(name: str, value: int, total: int) -> None:
    """Raise ValueError unless 1 <= value <= total: a cluster needs a feature."""
    if value < 1:
        raise ValueError(f"{name}={value}: there is no clustering into fewer than one cluster; set {name} to 1 or more")
    if value > total:
        raise ValueError(
            f"{name}={value}: more clusters than the {total} features of all ranks; set {name} to at most {total}"
        )
