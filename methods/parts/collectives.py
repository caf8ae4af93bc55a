"""Sums and maxima over all ranks, of tensors on the step's own device: nothing waits for a copy to the host.

Where torch.distributed is not initialised, this process is alone.
"""

import torch
import torch.distributed as dist
from torch.distributed.nn.functional import all_reduce


def rank() -> int:
    """This process's place among the ranks."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size(group: dist.ProcessGroup | None = None) -> int:
    """How many ranks there are, or are in `group`."""
    return dist.get_world_size(group) if dist.is_initialized() else 1


@torch.no_grad()
def sum_over_ranks(x: torch.Tensor) -> torch.Tensor:
    """The sum of every rank's `x`, the same on each; overwrites `x`."""
    if world_size() > 1:
        dist.all_reduce(x)
    return x


@torch.no_grad()
def max_over_ranks(x: torch.Tensor) -> torch.Tensor:
    """The largest of every rank's `x`, element by element, the same on each; overwrites `x`."""
    if world_size() > 1:
        dist.all_reduce(x, op=dist.ReduceOp.MAX)
    return x


def differentiable_sum(x: torch.Tensor, group: dist.ProcessGroup | None = None) -> torch.Tensor:
    """The sum of the `x` of every rank, or of those in `group`, through which gradients flow back to each of them.

    A rank's gradient is that of the sum of all ranks' losses; averaged over ranks, as DistributedDataParallel does, it
    is that of their mean. Backward is a collective, too.
    """
    return all_reduce(x, group=group or dist.group.WORLD) if world_size(group) > 1 else x
