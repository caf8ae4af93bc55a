"""Activation checkpointing (Chen et al. 2016): a residual block keeps its input alone, and is computed again for its
gradient. Half of the memory, or less, at the price of one more forward pass."""

import contextlib
from collections.abc import Iterator
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from methods.backbones import network


def recompute_blocks(name: str, trunk: nn.Module) -> None:
    """Make the residual blocks of `trunk`, of the backbone `name`, do so while it trains; outputs, gradients and
    running statistics stay the same, bit for bit where the arithmetic is. Names stay. Raises ValueError where it has no
    such blocks."""
    blocks = [module for module in trunk.modules() if isinstance(module, getattr(network(name), "BLOCK", ()))]
    if not blocks:
        raise ValueError(f"{type(trunk).__name__} has no residual blocks to compute again")
    for block in blocks:
        contexts = partial(_contexts, block)
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=contexts)


def _contexts(block: nn.Module) -> tuple[contextlib.AbstractContextManager, contextlib.AbstractContextManager]:
    return contextlib.nullcontext(), _statistics_stay(block)


@contextlib.contextmanager
def _statistics_stay(block: nn.Module) -> Iterator[None]:
    """The second pass must not move running statistics once more."""
    norms = [module for module in block.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
