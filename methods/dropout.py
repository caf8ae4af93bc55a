"""Dropout that does not depend on how a batch lies on the ranks: a run that goes on in another world draws the same."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from methods.job import Job


class Dropout(nn.Dropout):
    """`nn.Dropout` that draws the masks of the whole global batch, of which each pass of each rank takes its rows.

    [B, ...] -> [B, ...], or [T B, ...] where an image stands for T rows, turn after turn. The draws follow from the
    seed that `begin_step` gives, and there is nothing to save. Before that it is `nn.Dropout`.
    """

    seed: int | None = None
    rows = (0, 0, 0)  # the first of a pass, how many, and how many a global batch has

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.p or self.seed is None:
            return super().forward(x)
        first, count, total = self.rows
        turns, rest = divmod(len(x), count)
        if rest:
            raise ValueError(f"dropout of {len(x)} rows, of a pass over {count} images")
        generator = torch.Generator(x.device).manual_seed(self.seed)
        draws = torch.rand((turns, total, *x.shape[1:]), device=x.device, generator=generator)[:, first : first + count]
        return x * ((draws.reshape(x.shape) >= self.p) / (1 - self.p)).to(x.dtype)


def begin_step(job: "Job", networks: Iterable[nn.Module], step: int) -> None:
    """Seed everything that a trainer draws in `step` on the device: there is nothing to save, as for augmentation."""
    torch.manual_seed(job.seed_for("device", step, job.world.rank))
    for number, module in enumerate(_of(networks)):
        module.seed = job.seed_for("dropout", step, number)


def begin_pass(job: "Job", networks: Iterable[nn.Module], number: int) -> None:
    """Before the forward pass `number` of a step. Ranks, and the passes of one, share a global batch in order."""
    count, total = job.layout.per_gpu_batch, job.config.global_batch
    first = (job.world.rank * job.layout.accumulation + number) * count
    for module in _of(networks):
        module.rows = first, count, total


def _of(networks: Iterable[nn.Module]) -> list[Dropout]:
    return [module for network in networks for module in network.modules() if isinstance(module, Dropout)]
