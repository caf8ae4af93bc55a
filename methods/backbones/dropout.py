"""Dropout that does not depend on how a batch lies on the ranks: a run that goes on in another world draws the same."""

from collections.abc import Callable, Iterable

import torch
from torch import nn


class Dropout(nn.Dropout):
    """`nn.Dropout` that draws the masks of the whole global batch, of which each pass of each rank takes its rows.

    [B, ...] -> [B, ...], or [T B, ...] where an image stands for T rows, turn after turn. The draws follow from the
    seed that `begin_step` gives and from how often the pass came here before, and there is nothing to save. Before that
    they come from torch's generator.
    """

    seed: int | None = None
    rows = (0, 0, 0)  # the first of a pass, how many, and how many a global batch has
    calls = 0  # of this pass: crops of another size come in a call of their own

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.p:
            return x
        draws = self._draws(len(x), self._drawn(x), x.device)
        return x * ((draws >= self.p) / (1 - self.p)).to(x.dtype)

    def _drawn(self, x: torch.Tensor) -> torch.Size:
        """The shape that is drawn for each row of `x`."""
        return x.shape[1:]

    def _draws(self, length: int, shape: torch.Size, device: torch.device) -> torch.Tensor:
        """Uniform in 0..1 [length, *shape]."""
        if self.seed is None:
            return torch.rand((length, *shape), device=device)
        first, count, total = self.rows
        turns, rest = divmod(length, count)
        if rest:
            raise ValueError(f"dropout of {length} rows, of a pass over {count} images")
        generator = torch.Generator(device).manual_seed(self.seed + self.calls)
        self.calls += 1
        draws = torch.rand((turns, total, *shape), device=device, generator=generator)[:, first : first + count]
        return draws.reshape(length, *shape)


class DropPath(Dropout):
    """Stochastic depth (Huang et al. 2016): drops a residual branch of a whole row, and scales those that it keeps."""

    def _drawn(self, x: torch.Tensor) -> torch.Size:
        return torch.Size([1] * (x.dim() - 1))


def begin_step(networks: Iterable[nn.Module], seed: Callable[[int], int]) -> list[Dropout]:
    """Before a step: seed(number) gives the seed of the dropout `number`. Returns those that there are, which is all
    that `begin_pass` needs of the networks."""
    found = _of(networks)
    for number, module in enumerate(found):
        module.seed = seed(number)
    return found


def begin_pass(networks: Iterable[nn.Module], rows: tuple[int, int, int]) -> None:
    """Before a forward pass over `rows`: the first of it, how many, and how many the global batch has."""
    for module in _of(networks):
        module.rows, module.calls = rows, 0


def _of(networks: Iterable[nn.Module]) -> list[Dropout]:
    return [module for network in networks for module in network.modules() if isinstance(module, Dropout)]
