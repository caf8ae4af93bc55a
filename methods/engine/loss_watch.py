"""A loss that is not a number ends the run, and so do fp16 gradients that are none; the step is named."""

import math
from collections import deque
from typing import NoReturn

import torch
from torch import nn

from launcher.errors import Diverged
from launcher.runtime.checkpoint import Checkpointer
from methods.engine.job import DIVERGED, GO, Job

# (what is wrong, what to do), before and after the step.
NOT_A_NUMBER = "the loss is not a number", "lower method.lr or change the data, as a new run"
OVERFLOW = (
    "gradients overflow fp16 however small the loss is made for them, so that step after step is left out",
    "use method.precision=bf16 or fp32, or lower method.lr, as a new run",
)
LOSS_SCALE = "loss_scale"  # what the loss is multiplied by for the gradients, in fp16, among the scalars of a step
# Steps are left out, and the scale halved, until the gradients fit. 65536 of torch comes below this after 30 of them;
# fp16 then holds no gradient below 6e-4 any more. The bound of fairseq (its --min-loss-scale).
SMALLEST_SCALE = 1e-4


class LossWatch:
    """Sees a loss that is not a number without making the GPU wait: each is read when the next step has been queued."""

    def __init__(self, job: Job, checkpoints: Checkpointer, networks: list[nn.Module]):
        self._job, self._checkpoints, self._networks = job, checkpoints, networks
        self._waiting: deque[tuple[int, list[str], torch.Tensor, torch.cuda.Event | None, list[torch.Tensor]]] = deque()
        self._values: dict[str, float] = {}
        self._read_step, self._read_ids = 0, []  # the samples of each pass
        self._bad: tuple[int, list[int], tuple[str, str]] | None = None
        self._lag = 1 if job.world.device.type == "cuda" else 0

    @property
    def latest(self) -> float | None:
        return self._values.get("loss")

    def note(self, step: int, scalars: dict[str, torch.Tensor], ids: list[torch.Tensor]) -> None:
        values = torch.stack([value.float() for value in scalars.values()]).to("cpu", non_blocking=True)
        arrived = torch.cuda.Event() if self._lag else None
        if arrived is not None:
            arrived.record()
        self._waiting.append((step, list(scalars), values, arrived, ids))
        while len(self._waiting) > self._lag:
            self._read()

    def averaged(self) -> tuple[int, dict[str, float]]:
        """Collective: the newest step whose scalars were read, and their means over the ranks. Waits where a start has
        read none yet."""
        if not self._values:
            self._read()
        names = sorted(self._values)
        values = torch.tensor([self._values[name] for name in names], dtype=torch.float64)
        if self._job.world.size > 1:
            torch.distributed.all_reduce(values, group=self._job.world.control)
        return self._read_step, dict(zip(names, (values / self._job.world.size).tolist(), strict=True))

    def decide(self, outcome: int) -> None:
        """Act on a vote: raises Diverged, Stopped or InputError, on all ranks alike."""
        if outcome == DIVERGED:
            self.raise_diverged()
        self._job.decide(outcome)

    def verdict(self, *, wait: bool = False) -> int:
        """This rank's vote. `wait`: after reading every loss, and looking at the weights, which the last step may have
        spoilt although its loss was a number."""
        while wait and self._waiting:
            self._read()
        parameters = (parameter for network in self._networks for parameter in network.parameters())
        if wait and self._bad is None and not all(bool(each.isfinite().all()) for each in parameters):
            self._note_bad(NOT_A_NUMBER)
        return DIVERGED if self._bad else GO

    def raise_diverged(self) -> NoReturn:
        """Collective: name the earliest step that any rank saw go wrong, and its samples."""
        world = self._job.world
        seen = [(*bad, rank) for rank, bad in enumerate(world.gather(self._bad)) if bad]
        step, ids, (wrong, fix), rank = min(seen)
        last = self._checkpoints.last()
        raise Diverged(
            f"{wrong} at step {step} on rank {rank}, samples {', '.join(map(str, ids[:16]))}"
            f"{', ...' if len(ids) > 16 else ''}; the last good checkpoint is {last.name if last else 'none'}. "
            f"Going on would meet the same step again: {fix}"
        )

    def _read(self) -> None:
        self._read_step, names, values, arrived, ids = self._waiting.popleft()
        if arrived is not None:
            arrived.synchronize()
        self._read_ids, self._values = ids, dict(zip(names, values.tolist(), strict=True))
        if self._bad is None and not all(map(math.isfinite, self._values.values())):
            self._note_bad(NOT_A_NUMBER)
        if self._bad is None and self._values.get(LOSS_SCALE, 1.0) < SMALLEST_SCALE:
            self._note_bad(OVERFLOW)

    def _note_bad(self, what: tuple[str, str]) -> None:
        self._bad = self._read_step, [int(i) for part in self._read_ids for i in part], what
