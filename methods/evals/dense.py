"""A backbone's last map: of a vision transformer its patch tokens, of a convolutional network its last stage."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn

from methods import backbones
from methods.backbones.spec import BACKBONES

CHANNELS_FIRST = (2, 3)  # the sides of a convolutional network's map


def stride_of(backbone: str) -> int:
    """Pixels a side that images of one size want to be a multiple of: a patch, or what the last map is reduced by."""
    size = BACKBONES[backbone]
    return size.patch if size.class_token else 32  # Swin joins its patches until they have 32 pixels


@contextlib.contextmanager
def mapper(backbone: str, network: nn.Module) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """images uint8 [B, C, H, W] -> float32 [B, d, h, w]: the last map of `network`, of the backbone called `backbone`.

    Patch tokens are those after the last norm, as in the released evaluations of DINO. The hook that it takes is gone
    behind the block.
    """
    family, trunk = backbones.network(backbone), network.trunk
    if BACKBONES[backbone].class_token:

        def tokens(images: torch.Tensor) -> torch.Tensor:
            found = trunk.forward_features(network.input(images))[:, 1:]
            grid = [side // BACKBONES[backbone].patch for side in images.shape[2:]]
            return found.float().transpose(1, 2).unflatten(2, grid)

        yield tokens
        return
    caught: list[torch.Tensor] = []
    sides = getattr(family, "MAP", CHANNELS_FIRST)

    def keep(_module: nn.Module, _given: tuple, output: torch.Tensor) -> None:
        if output.ndim == 4:  # behind the last map there may be linear layers
            caught[:] = [output.movedim(sides, CHANNELS_FIRST).float().clone()]  # the next module may work in place

    def last_map(images: torch.Tensor) -> torch.Tensor:
        caught.clear()
        network(images)
        return caught[0]

    hooks = [module.register_forward_hook(keep) for module in family.stages(trunk).values()]
    try:
        yield last_map
    finally:
        for hook in hooks:
            hook.remove()
