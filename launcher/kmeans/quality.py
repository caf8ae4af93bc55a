"""What can be said of a clustering whose assignments are spread over ranks: sizes, entropy, NMI. Labels of single
samples never travel, only how many samples fall into each cell of the contingency table."""

import math
from dataclasses import dataclass

import torch
import torch.distributed as dist

from launcher.kmeans.shards import Ranks


@dataclass(frozen=True)
class SizeRange:
    """How many clusters have from `least` to `most` members."""

    least: int
    most: int
    clusters: int


def size_histogram(counts: torch.Tensor) -> list[SizeRange]:
    """Clusters by their size: empty ones, then 1, 2 to 3, 4 to 7 and so on up to the largest.

    counts: int64 [k] or any shape, members of each cluster over all ranks, as `fit` gives them.
    """
    counts = counts.flatten().cpu()
    ranges = [SizeRange(0, 0, int((counts == 0).sum()))]
    least = 1
    while least <= int(counts.max()):
        inside = (counts >= least) & (counts < 2 * least)
        ranges.append(SizeRange(least, 2 * least - 1, int(inside.sum())))
        least *= 2
    return ranges


@torch.no_grad()
def cluster_sizes(assignments: torch.Tensor, k: int) -> torch.Tensor:
    """int64 [k], members of each cluster over all ranks, the same on each of them; one all-reduce.

    assignments: integers [n] in 0..k-1, of this rank's samples; those below 0 belong to no cluster. Raises ValueError,
    the same on all ranks, if one is k or more.
    """
    ranks = Ranks.of()
    ((a,), _) = _checked({"assignments": assignments}, ranks, k)
    return ranks.sum(torch.bincount(a, minlength=k))


@torch.no_grad()
def cluster_entropy(assignments: torch.Tensor, labels: torch.Tensor, k: int) -> torch.Tensor:
    """Entropy of the class labels within each cluster: -sum_i p_i log p_i in nats, p_i the share of class i among the
    members (SMoG, "Grouping quality" and Figure 5). Low where a cluster means one thing; NaN where it has no member.
    Collective.

    assignments: integers [n] in 0..k-1 and labels: integers [n], of this rank's samples; a sample of which either is
    below 0 is left out. Returns float64 [k] on the CPU, the same on all ranks; a table of k x classes is never made.
    Raises ValueError, the same on all ranks, if the lengths differ, nothing is left, or an assignment is k or more.
    """
    ranks = Ranks.of()
    (a, b), (_, classes) = _checked({"assignments": assignments, "labels": labels}, ranks, k)
    codes, cells = _owned_cells(a, b, classes + 1, ranks)
    # H = log n - (sum_i n_i log n_i) / n. A cluster has one owner, so that every sum has one order of summation.
    packed = torch.zeros(2, k, dtype=torch.float64)
    clusters = codes // (classes + 1)
    packed[0].index_add_(0, clusters, cells.double())
    packed[1].index_add_(0, clusters, _c_log_c(cells))
    members, crossed = ranks.sum(packed)
    entropy = (members.log() - crossed / members).clamp(min=0)
    return torch.where(members > 0, entropy, math.nan)


@torch.no_grad()
def sharded_nmi(a: torch.Tensor, b: torch.Tensor) -> float:
    """`nmi` of two labellings of samples that are spread over ranks, normalised by the geometric mean; collective.

    a, b: integers [n] of this rank's samples; a sample of which either is below 0 is left out. Raises ValueError, the
    same on all ranks, if the lengths differ or nothing is left.
    """
    ranks = Ranks.of()
    (a, b), (largest_a, largest_b) = _checked({"a": a, "b": b}, ranks)
    counts_a = ranks.sum(torch.bincount(a, minlength=largest_a + 1))
    counts_b = ranks.sum(torch.bincount(b, minlength=largest_b + 1))
    several_a, several_b = int((counts_a > 0).sum()) > 1, int((counts_b > 0).sum()) > 1
    if not (several_a and several_b):
        return float(several_a == several_b)
    total = int(counts_a.sum())
    _, cells = _owned_cells(a, b, largest_b + 1, ranks)
    joint = float(ranks.sum(_c_log_c(cells).sum()))
    # Sums of c log c in place of entropies: H = log N - sum / N.
    entropies = [math.log(total) - float(_c_log_c(counts).sum()) / total for counts in (counts_a, counts_b)]
    information = sum(entropies) - (math.log(total) - joint / total)
    return min(1.0, max(0.0, information / math.sqrt(entropies[0] * entropies[1])))


def _checked(
    columns: dict[str, torch.Tensor], ranks: Ranks, k: float = math.inf
) -> tuple[list[torch.Tensor], list[int]]:
    """(the columns as int64 on the CPU without the samples of which one is below 0, the largest value of each over all
    ranks). Raises ValueError, the same on all ranks, also where one of the first column is `k` or more."""
    flat = [torch.as_tensor(column).flatten().cpu().long() for column in columns.values()]
    same = len({len(column) for column in flat}) == 1
    if same:
        known = torch.stack([column >= 0 for column in flat]).all(dim=0)
        flat = [column[known] for column in flat]
    table = ranks.table([int(same), len(flat[0]), *(int(c.max()) if len(c) else -1 for c in flat)])
    if not all(row[0] for row in table):
        wrong = next(rank for rank, row in enumerate(table) if not row[0])
        raise ValueError(f"{', '.join(columns)}: of different lengths on rank {wrong}; give one of each a sample")
    if not sum(row[1] for row in table):
        raise ValueError(f"{', '.join(columns)}: no sample of any rank has all of them; there is nothing to compare")
    largest = [max(row[2 + number] for row in table) for number in range(len(flat))]
    if largest[0] >= k:
        raise ValueError(f"assignments: cluster {largest[0]} is none of 0 to {k - 1}; give k={largest[0] + 1} or more")
    return flat, largest


def _owned_cells(a: torch.Tensor, b: torch.Tensor, width: int, ranks: Ranks) -> tuple[torch.Tensor, torch.Tensor]:
    """Cells of the contingency table that occur in the clusters that this rank owns, over the samples of all ranks:
    (codes a * width + b, counts), int64. Rank r owns the clusters c with c mod world size = r."""
    codes, counts = torch.unique(a * width + b, return_counts=True)
    if ranks.world_size == 1:
        return codes, counts
    owner = codes // width % ranks.world_size
    order = torch.argsort(owner, stable=True)
    outgoing = torch.bincount(owner, minlength=ranks.world_size).tolist()
    incoming = [row[ranks.rank] for row in ranks.table(outgoing)]
    device = "cuda" if "nccl" in dist.get_backend(ranks.group) else "cpu"  # NCCL carries nothing else
    sent = torch.stack([codes, counts], dim=1)[order].to(device)
    received = sent.new_empty((sum(incoming), 2))
    dist.all_to_all_single(received, sent, incoming, outgoing, group=ranks.group)
    codes, counts = received.cpu().T
    owned, where = torch.unique(codes, return_inverse=True)
    return owned, torch.zeros(len(owned), dtype=torch.int64).index_add_(0, where, counts)


def _c_log_c(counts: torch.Tensor) -> torch.Tensor:
    """c log c, float64; 0 where c is 0."""
    return torch.xlogy(counts.double(), counts.double())
