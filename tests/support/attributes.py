"""What an object holds, attribute by attribute, so that two of them can be compared: tensors, modules, optimisers,
arrays, numbers, containers and random generators, however deep. What the runtime shares out (process groups, functions)
has no value of its own and is left out.
"""

import enum
import hashlib
import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

PLAIN = (bool, int, float, complex, str, bytes, enum.Enum, PurePath, torch.dtype, torch.device, torch.Size, np.generic)
NO_VALUE = (type, FunctionType, MethodType, BuiltinFunctionType, GeneratorType, ModuleType)
OF_EVERY_MODULE = set(vars(nn.Module())) - {"training"}


def attributes(owner: object, *, without: Sequence[object] = ()) -> dict[str, str]:
    """{path: value or digest} of everything that `owner` holds: {"queue": "torch.float32 [8, 4] 3f2a...", "seen": "7"}.

    An object that is held in several places stands where it is met first. `without`: objects that are passed over.
    """
    walk = _Walk(without)
    return dict(walk.members(vars(owner), ""))


class _Walk:
    def __init__(self, without: Sequence[object]):
        self._met: dict[int, object] = {id(each): each for each in without}  # held, or an id might be given again

    def members(self, named: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
        for name, value in named.items():
            yield from self._value(value, f"{path}.{name}" if path else name)

    def _value(self, value: Any, path: str) -> Iterator[tuple[str, str]]:
        if value is None or isinstance(value, PLAIN):
            yield path, repr(value)
            return
        if isinstance(value, NO_VALUE) or id(value) in self._met:
            return
        self._met[id(value)] = value
        if isinstance(value, torch.Tensor | np.ndarray):
            yield path, _digest(value)
        elif isinstance(value, torch.Generator):
            yield path, _digest(value.get_state())
        elif isinstance(value, np.random.Generator):
            yield path, repr(value.bit_generator.state)
        elif isinstance(value, np.random.RandomState):
            yield path, repr(value.get_state(legacy=False))
        elif isinstance(value, random.Random):
            yield path, repr(value.getstate())
        elif isinstance(value, torch.optim.Optimizer):
            yield from self._optimizer(value, path)
        elif isinstance(value, DistributedDataParallel):
            yield from self._value(value.module, path)  # around it are counters and buckets of torch's own
        elif isinstance(value, nn.Module):
            yield from self._module(value, path)
        elif isinstance(value, Mapping):
            yield path, repr([key if isinstance(key, PLAIN) else type(key).__name__ for key in value])
            for number, (key, item) in enumerate(value.items()):
                yield from self._value(item, f"{path}[{key!r}]" if isinstance(key, PLAIN) else f"{path}[{number}]")
        elif isinstance(value, Set):
            yield path, repr(sorted(map(repr, value)))
        elif isinstance(value, list | tuple | deque):
            yield path, f"{type(value).__name__} of {len(value)}"
            for number, item in enumerate(value):
                yield from self._value(item, f"{path}[{number}]")
        elif not type(value).__module__.startswith("torch."):
            slots = {n: getattr(value, n) for n in getattr(type(value), "__slots__", ()) if hasattr(value, n)}
            yield from self.members({**slots, **getattr(value, "__dict__", {})}, path)

    def _module(self, module: nn.Module, path: str) -> Iterator[tuple[str, str]]:
        own = {name: value for name, value in vars(module).items() if name not in OF_EVERY_MODULE}
        yield from self.members({**module._parameters, **module._buffers, **module._modules, **own}, path)

    def _optimizer(self, optimizer: torch.optim.Optimizer, path: str) -> Iterator[tuple[str, str]]:
        for number, group in enumerate(optimizer.param_groups):
            options = {name: value for name, value in group.items() if name != "params"}
            yield from self.members(options, f"{path}.param_groups[{number}]")
            for position, parameter in enumerate(group["params"]):
                where = f"{path}.param_groups[{number}].params[{position}]"
                yield from self._value(parameter, where)
                yield from self.members(optimizer.state.get(parameter, {}), where)


def _digest(value: torch.Tensor | np.ndarray) -> str:
    if isinstance(value, torch.Tensor):
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    else:
        raw = value.tobytes() if value.dtype != object else repr(value.tolist()).encode()
    return f"{value.dtype} {list(value.shape)} {hashlib.sha256(raw).hexdigest()}"
