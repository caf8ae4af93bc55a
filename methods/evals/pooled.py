"""Features that keep some of the places: a backbone's last map averaged over a few cells (Goyal et al. 2019)."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from methods import backbones
from methods.backbones.spec import BACKBONES
from methods.engine.job import Job

CHANNELS_FIRST = (2, 3)  # the sides of a convolutional network's map


@contextlib.contextmanager
def encoder(backbone: str, network: nn.Module, cells: int) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """images uint8 [B, C, H, W] -> float32 [B, width]: the last map of `network`, of the backbone called `backbone`,
    averaged over cells x cells parts of it, or as it is where it has fewer, and flattened, channels first: 8192 numbers
    for 2 x 2 of ResNet-50.

    Of a transformer, Swin too, it is the usual feature. The hooks that it takes are gone behind the block.
    """
    caught: list[torch.Tensor] = []

    def keep(_module: nn.Module, _given: tuple, output: torch.Tensor) -> None:
        if output.ndim == 4:  # behind the last map there may be linear layers; each map is pooled at once, because the
            sides = [min(cells, side) for side in output.shape[2:]]  # next module may work in place
            caught[:] = [adaptive_avg_pool2d(output.float(), sides).flatten(1)]

    def encode(images: torch.Tensor) -> torch.Tensor:
        caught.clear()
        feature = network(images)
        return caught[0] if caught else feature.float()

    stages = backbones.network(backbone).stages(network.trunk).values() if has_map(backbone) else ()
    hooks = [module.register_forward_hook(keep) for module in stages]
    try:
        yield encode
    finally:
        for hook in hooks:
            hook.remove()


def has_map(backbone: str) -> bool:
    """Whether it is a convolutional network, whose last map has places."""
    sides = getattr(backbones.network(backbone), "MAP", CHANNELS_FIRST)
    return sides == CHANNELS_FIRST and not BACKBONES[backbone].class_token


@torch.no_grad()
def width_of(job: Job, encode: Callable[[torch.Tensor], torch.Tensor]) -> int:
    """How many numbers `encode` makes of one of the labelled images, as one blank image tells."""
    channels, size = job.labelled[0].channels, job.config.image_size
    with job.autocast():
        blank = torch.zeros(1, channels, size, size, dtype=torch.uint8, device=job.world.device)
        return encode(blank).shape[1]
