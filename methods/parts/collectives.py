"""Sums and maxima over ranks, of tensors on the step's own device: nothing waits for a copy to the host.

`group`: None means all ranks, or this process alone where torch.distributed is not initialised.
"""

import torch
import torch.distributed as dist
from torch.distributed.nn.functional import all_reduce

Group = dist.ProcessGroup | None


def rank_in(group: Group = None) -> int:
    """This process's place in `group`."""
    return dist.get_rank(group) if dist.is_initialized() else 0


def ranks_in(group: Group = None) -> int:
    """How many ranks `group` has."""
    return dist.get_world_size(group) if dist.is_initialized() else 1


@torch.no_grad()
def sum_over_ranks(x: torch.Tensor, group: Group = None) -> torch.Tensor:
    """The sum of every rank's `x`, the same on each; overwrites `x`."""
    if ranks_in(group) > 1:
        dist.all_reduce(x, group=group)
    return x


@torch.no_grad()
def max_over_ranks(x: torch.Tensor, group: Group = None) -> torch.Tensor:
    """The largest of every rank's `x`, element by element, the same on each; overwrites `x`."""
    if ranks_in(group) > 1:
        dist.all_reduce(x, op=dist.ReduceOp.MAX, group=group)
    return x


def differentiable_sum(x: torch.Tensor, group: Group = None) -> torch.Tensor:
    """The sum of every rank's `x`, through which gradients flow back to the `x` of every rank.

    A rank's gradient is that of the sum of all ranks' losses; averaged over ranks, as DistributedDataParallel does, it
    is that of their mean. Backward is a collective, too.
    """
    return all_reduce(x, group=group or dist.group.WORLD) if ranks_in(group) > 1 else x
