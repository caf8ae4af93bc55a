"""Training inside an evaluation: all ranks take the same steps, and a start after a stop goes on where it was."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn

from launcher.errors import Diverged
from launcher.runtime.preempt import Stopped
from launcher.runtime.stateful import ModuleState, OptimizerState, ValueState
from launcher.runtime.store import Store, StoreSlot
from methods.evals.subject import Subject

SHARE = 20  # keeping takes at most one part in so many of the time, however large the network

Data = TypeVar("Data")


class Fit:
    """A network that learns for a protocol, beside the backbone that is judged.

    network: on the device, with the same weights on every rank, and the right modes. Where batch statistics are not
    frozen they are synchronised before (`methods.parts.batchnorm.synchronise`): gradients are summed over the ranks,
    buffers are not. optimizer: of its parameters; each group's rate as it is then is the peak that `rate` scales.
    """

    def __init__(self, subject: Subject, name: str, network: nn.Module, optimizer: torch.optim.Optimizer):
        """name: of the protocol, under which the work is kept."""
        self.subject, self.name, self.network, self.optimizer = subject, name, network, optimizer
        job = subject.job
        scaler = torch.amp.GradScaler(job.world.device.type, enabled=job.config.precision == "fp16")
        self._scaler, self._peaks = scaler, [group["lr"] for group in optimizer.param_groups]
        named = {key: p for key, p in network.named_parameters() if p.requires_grad}
        self._learning = [*named.values()]
        self._owners = {
            "network": ModuleState(network),
            "optimizer": OptimizerState(optimizer, named),
            "scaler": ValueState(scaler.state_dict, scaler.load_state_dict),
        }
        self._kept_at = self._took = 0.0  # seconds: when the work was last kept, and how long that took

    def run(
        self,
        steps: int,
        batches: Callable[[int], Iterator[Data]],
        loss: Callable[[Data, int], torch.Tensor],
        rate: Callable[[int], float],
        *,
        key: Any,
        stage: str,
        clip: float | None = None,
    ) -> None:
        """All steps, from where an earlier start was stopped.

        batches(first): this rank's share of the batch of each step from `first` on, asked for a step ahead, and closed
        in the end.
        loss(data, step): what this rank's images give to the loss of the whole batch: the sum over ranks is that loss.
        Whatever is random in it is a function of the seed and the step, or the image. rate(step): what each rate is
        multiplied by. key: JSON, what the weights depend on beside the backbone and the images. stage: on the screen.
        clip: the largest length of the gradient. Collective; raises Stopped, with the work kept, and Diverged where the
        loss is no number.
        """
        job = self.subject.job
        tensors = sum(p.numel() for p in self.network.parameters())
        with self.subject.keeping(self.name, key, needed=2 * 4 * 3 * tensors) as store:
            slot = store.slot(self.name)
            step = self._restore(slot)
            try:
                with contextlib.closing(batches(step)) as stream:
                    data = next(stream, None)
                    while step < steps:
                        job.decide(job.vote.cast(job.verdict()))
                        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
                            group["lr"] = peak * rate(step)
                        total = self._step(functools.partial(loss, data, step), clip)
                        step += 1
                        data = next(stream, None)  # made ready while a GPU works on the step
                        self._say(stage, step, steps, total)
                        self._keep(store, slot, step)
                job.safe_point(stage, steps, steps)
            except Stopped:
                self._note(slot, step)
                raise
            self._note(slot, step)
            store.flush()

    def _step(self, loss: Callable[[], torch.Tensor], clip: float | None) -> torch.Tensor:
        """The loss of the whole batch, float32 [] on the device."""
        with torch.enable_grad():
            with self.subject.job.autocast():
                mine = loss()
            self._scaler.scale(mine).backward()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._learning]
        total = mine.detach().float()
        if self.subject.job.world.size > 1:
            flat = self.subject.sum(torch.cat([total.reshape(1), *(g.float().flatten() for g in gradients)]))
            total, parts = flat[0], flat[1:].split([g.numel() for g in gradients])
            gradients = [part.view_as(g).to(g.dtype) for part, g in zip(parts, gradients, strict=True)]
        for parameter, gradient in zip(self._learning, gradients, strict=True):
            parameter.grad = gradient
        if clip is not None:
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._learning, clip)
        self._scaler.step(self.optimizer)  # all ranks have the same gradients, and leave out the same steps
        self._scaler.update()
        self.optimizer.zero_grad()
        return total

    def _say(self, stage: str, step: int, steps: int, loss: torch.Tensor) -> None:
        job = self.subject.job
        job.reporter.progress(stage=stage, done=step, total=steps, unkept_s=job.keeping.unkept_s)
        job.heart.point()
        if step % job.config.log_every and step != steps:
            return  # to look at the loss is to wait for the device
        if not loss.isfinite():
            raise Diverged(f"{self.name}: the loss is no number at step {step}; give a smaller rate")
        job.reporter.log(step, **{f"{self.name}/loss": float(loss)})

    def _keep(self, store: Store, slot: StoreSlot, step: int) -> None:
        """Where that is due. Rank 0 alone: it has what all have."""
        began = time.monotonic()
        if self.subject.job.world.is_main and store.due() and began - self._kept_at >= SHARE * self._took:
            self._note(slot, step)  # which writes, as it is due
            self._kept_at = time.monotonic()
            self._took = self._kept_at - began

    def _note(self, slot: StoreSlot, step: int) -> None:
        if not self.subject.job.world.is_main:
            return
        tensors, values = _apart({f"{o}/{k}": v for o, own in self._owners.items() for k, v in own.state().items()})
        slot.note(step, tensors, values)

    def _restore(self, slot: StoreSlot) -> int:
        """Go on where an earlier start was stopped. Returns the step. Collective."""
        world = self.subject.job.world
        found = slot.load() if world.is_main else None
        step = world.broadcast(found and found[0])
        if step is None:
            return 0
        tensors, values = _apart(found[1]) if found else ({}, {})
        shapes = world.broadcast({key: [str(v.dtype)[6:], *v.shape] for key, v in tensors.items()})
        state: dict[str, Any] = world.broadcast(values)
        for key, (kind, *shape) in shapes.items():
            state[key] = tensors[key] if found else torch.empty(shape, dtype=getattr(torch, kind))
            world.overwrite(state[key])
        for name, owner in self._owners.items():
            owner.load_state({k.partition("/")[2]: v for k, v in state.items() if k.partition("/")[0] == name})
        return step


def _apart(state: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(the tensors of a state, its other values)."""
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    return tensors, {key: value for key, value in state.items() if key not in tensors}
