"""The sub-classifiers W_s of the groups that one rank hosts (Eq. 3.4)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class SubClassifiers(nn.Module):
    """`hosted` linear classifiers from d features to k sub-classes, side by side."""

    def __init__(self, hosted: int, classes: int, features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(hosted, classes, features))
        self.bias = nn.Parameter(torch.zeros(hosted, classes))

    def forward(self, features: torch.Tensor, sizes: list[int]) -> torch.Tensor:
        """features [B, d], `sizes[i]` rows for classifier i after those of classifier i - 1 -> scores [B, k]."""
        parts = zip(features.split(sizes), self.weight.unbind(), self.bias.unbind(), strict=True)
        return torch.cat([nn.functional.linear(x, weight, bias) for x, weight, bias in parts])

    @torch.no_grad()
    def reset(self, slot: int, generator: torch.Generator, std: float) -> None:
        """Draw classifier `slot` anew."""
        self.weight[slot].copy_(torch.randn(self.weight.shape[1:], generator=generator) * std)
        self.bias[slot].zero_()


class GroupState:
    """One W_s with its momentum: the state of a group, whoever hosts it."""

    def __init__(self, module: SubClassifiers, optimizer: torch.optim.Optimizer, slot: int):
        self._module, self._optimizer, self._slot = module, optimizer, slot

    def state(self) -> Mapping[str, Any]:
        state: dict[str, Any] = {}
        for name, parameter in self._module.named_parameters():
            state[name] = parameter.detach()[self._slot]
            momentum = self._optimizer.state.get(parameter, {}).get("momentum_buffer")
            if momentum is not None:
                state[f"{name}:momentum_buffer"] = momentum[self._slot]
        return state

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Any]) -> None:
        for name, parameter in self._module.named_parameters():
            parameter[self._slot].copy_(state[name])
            if f"{name}:momentum_buffer" in state:
                slots = self._optimizer.state[parameter]
                buffer = slots.setdefault("momentum_buffer", torch.zeros_like(parameter))
                buffer[self._slot].copy_(state[f"{name}:momentum_buffer"])
