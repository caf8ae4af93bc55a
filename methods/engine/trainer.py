"""What the engine asks of a method's trainer."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import nn

from methods.data.loader import Batch
from methods.engine.collapse import Watched


class Trainer(Protocol):
    """What a method gives to the loop. Its constructor takes the Job, and registers every changing state there."""

    backbone: nn.Module  # what is evaluated and exported
    networks: list[nn.Module]  # everything that trains, for train/eval mode and running statistics
    optimizers: list[torch.optim.Optimizer]
    steps_per_epoch: int

    def begin_epoch(self, epoch: int) -> None:
        """Between epochs, before the steps of `epoch`; also after a restore in its middle. Collective; may raise
        Stopped and must then have changed nothing."""

    def steps(self, epoch: int, first: int) -> Iterator[list[Batch]]:
        """The micro-batches of each step of `epoch` from step `first` on."""

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """(mean loss of a micro-batch, detached scalars to log)."""

    def evaluate(self, step: int) -> dict[str, Any]:
        """What a method has to say of its own state at an evaluation (clusters, pictures); written to the ledger."""

    watched: Watched  # which of its scalars tell of a collapse; a trainer may lack it

    # Optional hooks; `step` counts from 0. What a hook sets must be computable from `step`, or be registered as state.

    def before_step(self, step: int) -> None:
        """Before the first forward pass, when gradients and learning rates are set: weight decay, for example."""

    def after_backward(self, step: int) -> None:
        """When gradients are complete, averaged over ranks and passes, and of their true scale: clip or drop them."""

    def after_step(self, step: int) -> None:
        """After the optimisers: networks that follow the trained ones, for example."""
