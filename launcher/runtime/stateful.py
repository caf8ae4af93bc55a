"""Owners of state made from torch's own objects; see `checkpoint.Owners`."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn


class ModuleState:
    """Parameters and persistent buffers of a module."""

    def __init__(self, module: nn.Module):
        self._module = module

    def state(self) -> dict[str, Any]:
        return dict(self._module.state_dict())

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._module.load_state_dict(dict(state), strict=True)


class OptimizerState:
    """What an optimiser keeps for each parameter, under the parameter's name. Options are the spec's, not saved."""

    def __init__(self, optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]):
        self._optimizer, self._named = optimizer, dict(named)

    def state(self) -> dict[str, Any]:
        slots = self._optimizer.state
        return {f"{name}:{slot}": v for name, p in self._named.items() for slot, v in slots.get(p, {}).items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        for parameter in self._named.values():
            self._optimizer.state.pop(parameter, None)
        for key, value in state.items():
            name, _, slot = key.rpartition(":")
            parameter = self._named[name]
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                value = value.to(parameter.device, memory_format=torch.preserve_format)
            self._optimizer.state[parameter][slot] = value


class ValueState(NamedTuple):
    """Any JSON values or tensors behind a getter and a setter."""

    state: Callable[[], Mapping[str, Any]]
    load_state: Callable[[Mapping[str, Any]], None]
