"""Running batch statistics that are the same on every rank, whatever the passes of a step."""

import torch
from torch import nn

from methods.engine.job import Job


class RunningStatistics:
    """Running batch statistics of a step: the mean over its forward passes and over the ranks, counted as one batch.

    Passes are ordered by group, and ranks serve different ones: left alone, the last group would weigh most, and each
    rank would keep its own.
    """

    def __init__(self, job: Job, networks: list[nn.Module], passes: int):
        names = ("running_mean", "running_var")
        self._job, self._passes = job, passes
        self._alike = job.world.size == 1 or job.layout.batch_norm_ranks == job.world.size
        wanted = passes > 1 or not self._alike
        named = [each for network in networks for each in network.named_buffers()]
        self._buffers = [b for k, b in named if k.endswith(names)] if wanted else []
        self._before = [b.clone() for b in self._buffers] if passes > 1 else []
        self._counters = [b for k, b in named if k.endswith("num_batches_tracked")]
        self._counted = torch._foreach_add(self._counters, 1) if self._counters else []
        self._sums = [torch.zeros_like(b) for b in self._before]

    def after_pass(self) -> None:
        """Add what the pass made of them, and put back what it found."""
        for total, buffer, before in zip(self._sums, self._buffers, self._before, strict=False):  # no sums of one pass
            total += buffer
            buffer.copy_(before)

    @torch.no_grad()
    def settle(self) -> None:
        if self._counters:
            torch._foreach_copy_(self._counters, self._counted)  # also where one pass has several resolutions
        if not self._buffers:
            return
        mean = torch.cat([b.flatten() for b in self._sums or self._buffers]) / (self._passes if self._sums else 1)
        if not self._alike:
            torch.distributed.all_reduce(mean)
            mean /= self._job.world.size
        for buffer, part in zip(self._buffers, mean.split([b.numel() for b in self._buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))
