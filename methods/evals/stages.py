"""What the stages of each backbone give: where one looks into a network layer by layer."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn


def stages(backbone: str, trunk: nn.Module) -> dict[str, nn.Module]:
    """Name -> the module of `trunk` whose output is a stage of the backbone called `backbone`, in order. Raises
    KeyError for a backbone that is not in backbones.spec.BACKBONES."""
    if backbone.startswith("resnet50"):
        return {f"layer{n}": getattr(trunk, f"layer{n}") for n in range(1, 5)}
    if backbone == "small_resnet":
        return {f"layer{n}": block for n, block in enumerate(trunk.blocks, 1)}
    if backbone.startswith("regnety"):
        return {f"s{n}": getattr(trunk, f"s{n}") for n in range(1, 5)}
    if backbone == "swin_tiny":
        return {f"layer{n}": layer for n, layer in enumerate(trunk.layers, 1)}
    if backbone.startswith("vit") or backbone == "small_vit":
        return {f"block{n}": block for n, block in enumerate(trunk.blocks, 1)}
    if backbone in ("vgg16_bn", "alexnet_bn", "small_vgg"):
        # As the papers count: what a convolution gives after its ReLU, and the output.
        after = [module for module in trunk.features if isinstance(module, nn.ReLU)]
        return {**{f"conv{n}": module for n, module in enumerate(after, 1)}, "fc": trunk.classifier}
    raise KeyError(backbone)


@contextlib.contextmanager
def encoder(
    backbone: str, network: nn.Module
) -> Iterator[tuple[Callable[[torch.Tensor], torch.Tensor], dict[str, int]]]:
    """(images uint8 [B, C, H, W] -> the stages of a `methods.backbones` network, averaged over their maps, side by side
    [B, sum of widths]; name -> width of each stage, known once images went through).

    Of transformers with a class token a stage is that token; of Swin the mean of all. The hooks that it takes are gone
    behind the block.
    """
    caught: dict[str, torch.Tensor] = {}
    widths: dict[str, int] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _given: tuple, output: torch.Tensor) -> None:
            caught[name] = pooled(output, backbone)

        return hook

    def encode(images: torch.Tensor) -> torch.Tensor:
        caught.clear()
        network(images)
        widths.update({name: value.shape[1] for name, value in caught.items()})
        return torch.cat([value.float() for value in caught.values()], dim=1)

    hooks = [module.register_forward_hook(keep(name)) for name, module in stages(backbone, network.trunk).items()]
    try:
        yield encode, widths
    finally:
        for hook in hooks:
            hook.remove()


def pooled(output: torch.Tensor, backbone: str) -> torch.Tensor:
    """A stage's output as one row an image: a map [B, C, H, W] (Swin's: [B, H, W, C]) averaged, of tokens [B, N, d] the
    first, a row [B, d] as it is. A tensor of its own: the next module may work in place. Raises ValueError for another
    shape."""
    if output.ndim == 2:
        return output.clone()
    if output.ndim == 3:
        return output[:, 0].clone()
    if output.ndim == 4:
        return output.mean((1, 2) if backbone == "swin_tiny" else (2, 3))
    raise ValueError(f"a stage's output of shape {tuple(output.shape)} is neither a map nor tokens nor rows")
