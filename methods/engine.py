"""The one training loop of every method.

A trainer (see `Trainer`) says what a step computes; the engine steps: precision, accumulation, schedule, votes and safe
points, checkpoints, logging, evaluation. Read `train` from top to bottom.
"""

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Any, NoReturn, Protocol

import torch
from torch import nn

from launcher.errors import InputError, RunFailed
from launcher.runtime.checkpoint import Checkpointer, SaveFailed
from launcher.runtime.metrics import Reporter
from launcher.runtime.preempt import Stopped
from launcher.runtime.stateful import ValueState
from methods.data.loader import Batch
from methods.job import DIVERGED, GO, Job
from methods.schedules import learning_rate
from methods.throughput import Throughput

SAVES_THAT_MAY_FAIL = 3  # in a row, before a run that cannot save stops


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


def train(job: Job, trainer: Trainer, evaluate: Any) -> dict[str, Any]:
    """Train to the end and return the closing figures.

    `evaluate(job, trainer, step)` runs every `eval_every` epochs and at the end. Raises Stopped after a save when told
    to stop, RunFailed on divergence, InputError on too many broken images or a disk that stays full.
    """
    config, world, registry = job.config, job.world, job.registry
    per_epoch, steps = trainer.steps_per_epoch, trainer.steps_per_epoch * config.epochs
    # Only fp16 underflows; bf16 has the exponent of fp32.
    scaler = torch.amp.GradScaler(world.device.type, enabled=config.precision == "fp16")
    registry.add("scaler", ValueState(scaler.state_dict, scaler.load_state_dict))
    generation = job.ledger.generation
    checkpoints = Checkpointer(job.run, world, registry, keep=config.keep_checkpoints, generation=generation)

    step = checkpoints.restore()
    job.reporter = Reporter(job.run, speaks=world.is_main, purge_step=step)
    _say_restored(job, step)
    job.reporter.progress(force=True, stage="starting", step=step, steps=steps, notices=job.notices)
    saves = _Saves(job, checkpoints, steps)
    loss_watch = _LossWatch(job, checkpoints)
    throughput = Throughput(config.global_batch)
    try:
        while step < steps:
            epoch = step // per_epoch
            job.safe_point("epoch", epoch, config.epochs)
            with job.clock("clustering"):
                trainer.begin_epoch(epoch)
            for network in trainer.networks:
                network.train()
            throughput.restart()
            with contextlib.closing(trainer.steps(epoch, step % per_epoch)) as stream:
                for batches in stream:
                    rate = learning_rate(config, step, steps, per_epoch)
                    torch.manual_seed(job.seed_for(step, world.rank))  # dropout has no state to save, as data has none
                    with job.clock("training"):
                        scalars = _step(job, trainer, scaler, batches, rate)
                    step += 1
                    loss_watch.note(step, scalars, [batch.ids for batch in batches])
                    throughput.count()
                    job.reporter.progress(
                        stage="training", step=step, steps=steps, epoch=epoch, loss=loss_watch.latest,
                        images_per_s=throughput.rate, seconds_left=throughput.seconds(steps - step), broken=job.broken,
                    )  # fmt: skip
                    if step % config.log_every == 0 or step == steps:
                        job.reporter.log(step, **loss_watch.settled(), lr=rate, images_per_s=throughput.rate)
                    outcome = job.vote.cast(max(job.verdict(), loss_watch.verdict()))
                    if outcome == DIVERGED:
                        loss_watch.raise_diverged()
                    job.decide(outcome)
                    if step % saves.every == 0 and step < steps:
                        saves.save(step, loss_watch)
            if config.eval_every and (epoch + 1) % config.eval_every == 0 and step < steps:
                _evaluate(job, trainer, evaluate, step)
        saves.save(step, loss_watch, final=True)
        _evaluate(job, trainer, evaluate, step)
        job.reporter.progress(force=True, stage="done", step=step, steps=steps, broken=job.broken)
    except Stopped:
        saves.save(step, loss_watch, final=True)
        job.reporter.progress(force=True, stage="stopped", step=step, steps=steps)
        raise
    finally:
        job.reporter.close()
    return {"step": step, "seconds": {name: round(value, 3) for name, value in job.seconds.items()}}


def _step(
    job: Job, trainer: Trainer, scaler: torch.amp.GradScaler, batches: list[Batch], rate: float
) -> dict[str, torch.Tensor]:
    """One optimiser step over the micro-batches `batches`. Returns the mean of what they had to log, on the device."""
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
    scalars: dict[str, torch.Tensor] = {}
    for number, batch in enumerate(batches):
        with _last_synchronises(trainer.networks, number == len(batches) - 1):
            with job.autocast():
                loss, parts = trainer.loss(batch)
            scaler.scale(loss / len(batches)).backward()
        for name, value in {"loss": loss.detach(), **parts}.items():
            scalars[name] = scalars.get(name, 0) + value / len(batches)
    _agree_on_overflow(job, trainer, scaler)
    for optimizer in trainer.optimizers:
        if _gradients(optimizer):  # heads that a phase does not use have none
            scaler.step(optimizer)
    scaler.update()
    _average_statistics(job, trainer.networks)
    return scalars


def _say_restored(job: Job, step: int) -> None:
    reached = job.run.progress().get("step", 0)
    if job.world.is_main and (step or job.ledger.generation > 1):
        job.ledger.write("restored", step=step, lost_steps=max(0, reached - step))
        print(f"restored step {step}", flush=True)


def _evaluate(job: Job, trainer: Trainer, evaluate: Any, step: int) -> None:
    with job.clock("evaluation"):
        for network in trainer.networks:
            network.eval()
        evaluate(job, trainer, step)


class _Saves:
    """Periodic saves: a failed one is said and leaves the last one standing; several in a row end the run."""

    def __init__(self, job: Job, checkpoints: Checkpointer, steps: int):
        self._job, self._checkpoints, self._steps = job, checkpoints, steps
        self._failed = 0
        self.every = job.config.checkpoint_every or job.run.plan()["checkpoint_every"]

    def save(self, step: int, watch: "_LossWatch", *, final: bool = False) -> None:
        """Save, unless the loss diverged. Raises InputError when the last chance to save failed."""
        job = self._job
        if job.vote.now(watch.verdict(wait=True)) == DIVERGED:
            watch.raise_diverged()
        with job.clock("checkpointing"):
            try:
                path = self._checkpoints.save(step, self._steps)
            except SaveFailed as error:
                self._failed += 1
                if job.world.is_main:
                    job.ledger.write("save_failed", step=step, reason=str(error))
                    print(f"checkpoint at step {step} failed: {error}", flush=True)
                if final or self._failed >= SAVES_THAT_MAY_FAIL:
                    last = self._checkpoints.last()
                    raise InputError.of(
                        "runs",
                        job.run.path,
                        f"the checkpoint at step {step} could not be written ({error})",
                        f"free some space and `sslrun resume {job.run.id}`; {last.name if last else 'nothing'} stands",
                    ) from None
                return
        self._failed = 0
        if job.world.is_main:
            job.ledger.write("checkpoint", step=step, path=path.name)


class _LossWatch:
    """Sees a loss that is not a number without making the GPU wait: each is read when the next step has been queued."""

    def __init__(self, job: Job, checkpoints: Checkpointer):
        self._job, self._checkpoints = job, checkpoints
        self._waiting: deque[tuple[int, dict[str, torch.Tensor], list[torch.Tensor]]] = deque()
        self._values: dict[str, float] = {}
        self._bad: tuple[int, list[int]] | None = None
        self._lag = 1 if job.world.device.type == "cuda" else 0

    @property
    def latest(self) -> float | None:
        return self._values.get("loss")

    def note(self, step: int, scalars: dict[str, torch.Tensor], ids: list[torch.Tensor]) -> None:
        names = list(scalars)
        stacked = torch.stack([scalars[name].float() for name in names]).to("cpu", non_blocking=True)
        ready = None
        if self._lag:
            ready = torch.cuda.Event()
            ready.record()
        self._waiting.append((step, {"names": names, "values": stacked, "ready": ready}, ids))
        while len(self._waiting) > self._lag:
            self._read()

    def settled(self) -> dict[str, float]:
        """The newest scalars that were read."""
        return dict(self._values)

    def verdict(self, *, wait: bool = False) -> int:
        while wait and self._waiting:
            self._read()
        return DIVERGED if self._bad else GO

    def raise_diverged(self) -> NoReturn:
        """Collective: name the earliest step that any rank saw go wrong, and its samples."""
        world = self._job.world
        seen = [(*bad, rank) for rank, bad in enumerate(world.gather(self._bad)) if bad]
        step, ids, rank = min(seen)
        last = self._checkpoints.last()
        raise RunFailed(
            f"the loss is not a number at step {step} on rank {rank}, samples {', '.join(map(str, ids[:16]))}"
            f"{', ...' if len(ids) > 16 else ''}; the last good checkpoint is {last.name if last else 'none'}. "
            "Going on would meet the same step again: lower method.lr or change the data, as a new run"
        )

    def _read(self) -> None:
        step, scalars, ids = self._waiting.popleft()
        if scalars["ready"] is not None:
            scalars["ready"].synchronize()
        values = scalars["values"]
        self._values = dict(zip(scalars["names"], values.tolist(), strict=True))
        if self._bad is None and not bool(torch.isfinite(values).all()):
            self._bad = (step, [int(i) for part in ids for i in part])


class _last_synchronises:
    """Gradients travel with the last micro-batch of a step only."""

    def __init__(self, networks: list[nn.Module], last: bool):
        self._contexts = [] if last else [n.no_sync() for n in networks if hasattr(n, "no_sync")]

    def __enter__(self) -> None:
        for context in self._contexts:
            context.__enter__()

    def __exit__(self, *error: Any) -> None:
        for context in reversed(self._contexts):
            context.__exit__(*error)


def _gradients(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


@torch.no_grad()
def _agree_on_overflow(job: Job, trainer: Trainer, scaler: torch.amp.GradScaler) -> None:
    """fp16: where one rank's gradients overflowed, all skip the step, or their scales part. No rank waits."""
    if not scaler.is_enabled() or job.world.size == 1:
        return
    grads = [gradient for optimizer in trainer.optimizers for gradient in _gradients(optimizer)]
    worst = torch.stack([g.abs().max() for g in grads]).sum()  # inf or nan if any is
    flag = torch.where(torch.isfinite(worst), 0.0, 1.0)
    torch.distributed.all_reduce(flag)
    for grad in grads:
        grad.masked_fill_(flag > 0, float("inf"))


@torch.no_grad()
def _average_statistics(job: Job, networks: list[nn.Module]) -> None:
    """Running batch statistics are equal on all ranks: each rank sees its own groups only, so their mean is kept."""
    if job.world.size == 1 or job.layout.batch_norm_ranks == job.world.size:
        return
    buffers = [b for n in networks for name, b in n.named_buffers() if name.endswith(("running_mean", "running_var"))]
    if not buffers:
        return
    flat = torch.cat([b.flatten() for b in buffers])
    torch.distributed.all_reduce(flat)
    flat /= job.world.size
    for buffer, part in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(part.view_as(buffer))
