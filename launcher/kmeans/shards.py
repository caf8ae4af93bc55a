"""One set of features held by several ranks: who they are, which rows each one holds, and the one collective they use.

The rows of all ranks, in the order of the ranks, are the data set; a sample's position in it is its global index.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Ranks:
    """The ranks of a process group, or this process alone."""

    group: dist.ProcessGroup | None
    rank: int
    world_size: int

    @classmethod
    def of(cls, group: dist.ProcessGroup | None) -> "Ranks":
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
        if self.world_size == 1:
            return tensor
        # NCCL carries only GPU memory; gloo carries CPU memory everywhere and GPU memory only in some builds.
        wire = tensor.to("cuda" if "nccl" in dist.get_backend(self.group) else "cpu")
        dist.all_reduce(wire, group=self.group)
        return wire.to(tensor.device)

    def table(self, row: list[int]) -> list[list[int]]:
        """Every rank's `row` of integers, in the order of the ranks."""
        table = torch.zeros(self.world_size, len(row), dtype=torch.int64)
        table[self.rank] = torch.tensor(row)
        return self.sum(table).tolist()


@dataclass(frozen=True)
class Shards:
    """How the data set lies on the ranks. total: features on all ranks; offset: global index of this rank's first;
    longest: features of the rank that has most."""

    total: int
    offset: int
    longest: int


def survey(features: torch.Tensor, ranks: Ranks, chunk: int = 4096) -> Shards:
    """Exchange the sizes of the shards and check their contents.

    features: floating point [n, d], n may be 0. Raises ValueError if features of any rank are not finite, or the
    ranks differ in d. All ranks raise the same error: one that went on alone would wait for the others for ever.
    """
    if features.ndim != 2 or not features.is_floating_point():
        raise ValueError(
            f"features: {features.dtype} of shape {tuple(features.shape)}; give a floating-point tensor [n, d]"
        )
    table = ranks.table([*features.shape, first_non_finite_row(features, chunk)])
    counts, dims, bad_rows = zip(*table, strict=True)
    if len(set(dims)) > 1:
        raise ValueError(f"features: d={list(dims)} on ranks 0 to {ranks.world_size - 1}; give every rank the same d")
    for rank, row in enumerate(bad_rows):
        if row >= 0:
            raise ValueError(
                f"features: row {row} of rank {rank} is NaN or infinite and has no nearest centroid; "
                "find out why the network gave it, or leave the sample out"
            )
    return Shards(total=sum(counts), offset=sum(counts[: ranks.rank]), longest=max(counts))


def longest(features: torch.Tensor, ranks: Ranks) -> int:
    """Features of the rank that has most."""
    return max(row[0] for row in ranks.table([len(features)]))


def first_non_finite_row(features: torch.Tensor, chunk: int) -> int:
    """Index of the first row with a NaN or an infinity, -1 if there is none."""
    for start in range(0, len(features), chunk):
        finite = features[start : start + chunk].isfinite().all(dim=1)
        if not finite.all():
            return start + int(finite.logical_not().nonzero()[0])
    return -1


def check_count(name: str, value: int, total: int) -> None:
    """Raise ValueError unless 1 <= value <= total: a cluster needs a feature."""
    if value < 1:
        raise ValueError(f"{name}={value}: there is no clustering into fewer than one cluster; set {name} to 1 or more")
    if value > total:
        raise ValueError(
            f"{name}={value}: more clusters than the {total} features of all ranks; set {name} to at most {total}"
        )
