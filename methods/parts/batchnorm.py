"""Batch statistics over several ranks, on GPUs and on CPU.

`torch.nn.SyncBatchNorm` works on GPUs only; `RankBatchNorm` gives the same result over a differentiable all-reduce, so
that a run with several CPU ranks is the run that it would be on one.
"""

from typing import Any

import torch
from torch import nn

from launcher.runtime.dist import World
from methods.parts.collectives import differentiable_sum

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d)


def synchronise(network: nn.Module, world: World, ranks: int) -> nn.Module:
    """Make the batch normalisation of `network` share its statistics over blocks of `ranks` neighbouring ranks.

    Raises TypeError for classes other than BatchNorm1d and BatchNorm2d, such as timm's with an activation inside: on
    GPUs torch would make a SyncBatchNorm of it, without the activation (pytorch/pytorch#187298).
    """
    if ranks == 1:
        return network
    for module in network.modules():
        shared = isinstance(module, nn.SyncBatchNorm | RankBatchNorm)  # as a network of the user's own may bring it
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and type(module) not in PLAIN and not shared:
            raise TypeError(
                f"{type(module).__name__} is not plain batch normalisation, whose statistics ranks can share"
            )
    blocks = [range(start, start + ranks) for start in range(0, world.size, ranks)]
    group = world.group_of(blocks)
    if world.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network, group)
    for parent in network.modules():
        for name, child in parent.named_children():
            if type(child) in PLAIN:
                setattr(parent, name, RankBatchNorm(child, group, ranks))
    return network


class RankBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the inputs of all ranks of `group`, which must hold equally many.

    Takes over the parameters and buffers of `module`. Mean and variance in two passes: stable, and on CPU cheap enough.
    """

    def __init__(self, module: nn.modules.batchnorm._BatchNorm, group: Any, ranks: int):
        super().__init__(module.num_features, eps=module.eps, momentum=module.momentum)
        self.load_state_dict(module.state_dict())
        self.weight, self.bias = module.weight, module.bias  # one of them may not train
        self._group, self._ranks = group, ranks

    def _check_input_dim(self, _: torch.Tensor) -> None:
        """Any number of dimensions: the second one holds the channels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        given, x = x.dtype, x.float()  # as PyTorch's own: statistics in fp32 under autocast
        axes = [d for d in range(x.dim()) if d != 1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = x.numel() // x.shape[1] * self._ranks
        mean = self._sum(x.sum(axes)) / count
        centred = x - mean.view(shape)
        variance = self._sum(centred.square().sum(axes)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(given)

    def _sum(self, value: torch.Tensor) -> torch.Tensor:
        return differentiable_sum(value, self._group)
