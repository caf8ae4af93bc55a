"""Keeps a rank from importing torch's compiler, which it never uses: 1.5 s of CPU and over a thousand files a start.

Torch has no public switch for that. Its optimisers and DistributedDataParallel import `torch._dynamo` when they are
first called, to hear that there is nothing to compile; the environment variables that turn it off are read after that.
So the answer is put beforehand into the private attributes where torch keeps it. A torch that asks in another way
imports the compiler as before, and nothing else changes; torch.compile works, but for steps of an optimiser inside what
it compiles.
"""

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel


def leave_alone() -> None:
    """From now on optimisers and the forward pass of DistributedDataParallel do not ask for the compiler."""
    for owner in (torch.optim.Optimizer, DistributedDataParallel):
        for function in vars(owner).values():
            while function := getattr(function, "__wrapped__", None):
                function.__dynamo_disable = function  # where torch/_compile.py keeps what the compiler made of it
    for optimizer in vars(torch.optim).values():
        step = getattr(optimizer, "step", None)
        if getattr(getattr(step, "__code__", None), "co_name", None) == "_use_grad":  # imports it at every step
            optimizer.step = _with_gradients_as_it_says(step.__wrapped__)


@contextlib.contextmanager
def unasked() -> Iterator[None]:
    """Inside, DistributedDataParallel is made without the compiler."""
    if "_dynamo" in vars(torch):  # it is loaded, and may have been told something
        yield
        return
    # torch._dynamo.config.optimize_ddp as nobody has changed it; it matters to compiled modules only.
    utils = _Compiler("torch._dynamo.utils", get_optimize_ddp_mode=lambda: "ddp_optimizer")
    torch._dynamo = _Compiler("torch._dynamo", utils=utils)
    try:
        yield
    finally:
        if isinstance(vars(torch).get("_dynamo"), _Compiler):
            del torch._dynamo


class _Compiler(SimpleNamespace):
    """Stands for a module of the compiler; whatever it was not given is the module's own, which it then loads."""

    def __init__(self, module: str, **given: Any):
        super().__init__(**given)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._module), name)


def _with_gradients_as_it_says(step: Callable) -> Callable:
    """What torch.optim's own decorator does to `step`, but for its calls of the compiler."""

    @functools.wraps(step)
    def run(self: torch.optim.Optimizer, *arguments: Any, **named: Any) -> Any:
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return step(self, *arguments, **named)

    return run
