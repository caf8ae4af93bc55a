"""The outputs of a backbone's stages, each averaged into one vector an image."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import nn

from methods import backbones


@contextlib.contextmanager
def encoder(
    backbone: str, network: nn.Module
) -> Iterator[tuple[Callable[[torch.Tensor], torch.Tensor], dict[str, int]]]:
    """(images uint8 [B, C, H, W] -> the stages of `network`, of the backbone called `backbone`, averaged over their
    maps, side by side [B, sum of widths]; name -> width of each stage, known once images went through).

    Of transformers with a class token a stage is that token; of Swin the mean of all. The hooks that it takes are gone
    behind the block.
    """
    caught: dict[str, torch.Tensor] = {}
    widths: dict[str, int] = {}
    family = backbones.network(backbone)
    sides = getattr(family, "MAP", (2, 3))

    def keep(name: str, _module: nn.Module, _given: tuple, output: torch.Tensor) -> None:
        caught[name] = pooled(output, sides)

    def encode(images: torch.Tensor) -> torch.Tensor:
        caught.clear()
        network(images)
        widths.update({name: value.shape[1] for name, value in caught.items()})
        return torch.cat([value.float() for value in caught.values()], dim=1)

    hooks = [module.register_forward_hook(partial(keep, name)) for name, module in family.stages(network.trunk).items()]
    try:
        yield encode, widths
    finally:
        for hook in hooks:
            hook.remove()


def pooled(output: torch.Tensor, sides: tuple[int, int]) -> torch.Tensor:
    """A stage's output as one row an image: a map [B, C, H, W] averaged over its `sides`, of tokens [B, N, d] the
    first, a row [B, d] as it is. A tensor of its own: the next module may work in place. Raises ValueError for another
    shape."""
    if output.ndim == 2:
        return output.clone()
    if output.ndim == 3:
        return output[:, 0].clone()
    if output.ndim == 4:
        return output.mean(sides)
    raise ValueError(f"a stage's output of shape {tuple(output.shape)} is neither a map nor tokens nor rows")
