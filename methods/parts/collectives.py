"""Sums, maxima and rows of all ranks, of tensors on the step's own device: nothing waits for a copy to the host.

Where torch.distributed is not initialised, this process is alone.
"""

from typing import Any

import torch
import torch.distributed as dist

from methods.parts.host import on_device


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
    return _Sum.apply(x, group) if world_size(group) > 1 else x


def differentiable_gather(x: torch.Tensor, group: dist.ProcessGroup | None = None) -> torch.Tensor:
    """The rows of every rank, or of those in `group`, in order of rank, through which gradients flow back to each:
    [B, ...] -> [world_size B, ...], where every rank gives a tensor of the same shape and dtype, as nothing checks.

    Gradients are to be averaged over ranks as those of `differentiable_sum`, and backward is a collective, too. Each
    rank receives world_size - 1 times the bytes of `x`, in backward twice that.

    >>> differentiable_gather(torch.tensor([[1.0, 2.0]])).tolist()  # alone
    [[1.0, 2.0]]
    """
    return _Gather.apply(x, group) if world_size(group) > 1 else x


@torch.no_grad()
def permute_over_ranks(x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """The rows of all ranks, in order of rank, in another order: what was row order[p] of them becomes row p.

    x: [B, ...], equally many on every rank, of one shape and dtype. order: int64 [world_size B] on the CPU, a
    permutation, the same on every rank; `order.argsort()` undoes it. Returns [B, ...], those that come to this rank,
    contiguous and without gradient. Collective: each rank gets B rows and gives as many, its own among them where they
    stay. What is copied to a GPU is copied from pinned memory, so that the host does not wait for it here.

    >>> permute_over_ranks(torch.tensor([5.0, 6.0, 7.0]), torch.tensor([2, 0, 1])).tolist()  # alone
    [7.0, 5.0, 6.0]
    """
    ranks, own = world_size(), len(x)
    sources = order // own  # the rank from which each place is filled
    places = (sources == rank()).nonzero().flatten()  # those that are filled from this one
    sent = x[on_device(order[places] % own, x.device)].contiguous()  # of channels_last, too
    if ranks == 1:
        return sent
    wanted = sources[rank() * own :][:own]
    counts = [of.bincount(minlength=ranks).tolist() for of in (wanted, places // own)]
    got = torch.empty_like(sent)  # by the rank that sent it, in the order of places
    dist.all_to_all_single(got, sent, *counts)
    return got[on_device(wanted.argsort(stable=True).argsort(), x.device)]


# torch has these two as well, but nowhere to build on: torch.distributed.nn.functional warns that it is deprecated, and
# torch.distributed._functional_collectives, which it names instead, is private and gave no gradients before 2026
# (pytorch/pytorch#152127, #168140). What is called here is documented in every version that we take.


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: dist.ProcessGroup | None) -> torch.Tensor:
        ctx.group = group
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _Sum.apply(gradient, ctx.group), None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: dist.ProcessGroup | None) -> torch.Tensor:
        ctx.group = group
        ranks = dist.get_world_size(group)
        rows = x.new_empty(ranks, *x.shape)
        dist.all_gather(list(rows.unbind()), x.contiguous(), group=group)
        return rows.flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        # reduce_scatter would move half the bytes, but not every backend has it.
        total = _Sum.apply(gradient, ctx.group)
        own = len(total) // dist.get_world_size(ctx.group)
        return total.narrow(0, dist.get_rank(ctx.group) * own, own), None
