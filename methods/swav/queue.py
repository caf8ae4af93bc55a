"""SwAV's queue: the embeddings of the last few batches make small batches larger for the transport (thesis 4.2.3)."""

import torch

from launcher.errors import InputError
from methods.parts.memory import Memory


def make_queue(
    length: int,
    *,
    global_batch: int,
    world_size: int,
    views: int,
    features: int,
    device: torch.device | str = "cpu",
) -> Memory:
    """A rank's part of a queue that holds `length` images over all ranks, rounded down to whole global batches.

    Its batches are [views, global_batch / world_size, features], the embeddings of the views that labels are computed
    of. Use it only once it is full; embeddings and not scores are kept, because prototypes move (released code).
    Raises InputError where it is shorter than a batch.

    >>> queue = make_queue(10, global_batch=4, world_size=2, views=2, features=3)
    >>> queue.put(torch.ones(2, 2, 3)), queue.full, queue.put(torch.ones(2, 2, 3)), queue.full
    (None, False, None, True)
    >>> as_one_batch(queue.newest_first()).shape
    torch.Size([2, 4, 3])
    """
    steps = length // global_batch
    if not steps:
        raise InputError.of(
            "method.queue",
            length,
            f"it holds no batch of {global_batch}",
            f"use at least {global_batch}, or 0 for none",
        )
    return Memory(steps, (views, global_batch // world_size, features), device=device)


def as_one_batch(rows: torch.Tensor) -> torch.Tensor:
    """[n, views, B, d] -> [views, n B, d], the newest batch first."""
    return rows.transpose(0, 1).flatten(1, 2)
