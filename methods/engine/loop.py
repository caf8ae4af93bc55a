"""The one training loop of every method.

A trainer (trainer.py) says what a step computes; the engine steps: precision, accumulation, schedule, votes and safe
points, checkpoints, logging, evaluation. Read `train` from top to bottom.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from launcher.runtime import store
from launcher.runtime.checkpoint import Checkpointer
from launcher.runtime.pace import Pace, backward
from launcher.runtime.preempt import Stopped
from launcher.runtime.stateful import ValueState
from methods.backbones import dropout
from methods.data.loader import Batch
from methods.engine.collapse_watch import CollapseWatch
from methods.engine.evaluations import Evaluate, Evaluations
from methods.engine.initialise import continued
from methods.engine.job import Job
from methods.engine.loss_watch import LOSS_SCALE, LossWatch
from methods.engine.running_statistics import RunningStatistics
from methods.engine.saves import Saves
from methods.engine.throughput import Throughput
from methods.engine.trainer import Trainer
from methods.parts.schedules import learning_rate


def train(job: Job, trainer: Trainer, evaluate: Evaluate) -> dict[str, Any]:
    """Train to the end and return the closing figures.

    `evaluate` runs as often as the spec and its probes say, and at the end. Raises Stopped after a save when told to
    stop, RunFailed on divergence, InputError on too many broken images or a disk that stays full.
    """
    config, world, owners = job.config, job.world, job.owners
    per_epoch, steps = trainer.steps_per_epoch, trainer.steps_per_epoch * config.epochs
    # Only fp16 underflows; bf16 has the exponent of fp32.
    scaler = torch.amp.GradScaler(world.device.type, enabled=config.precision == "fp16")
    owners.add("scaler", ValueState(scaler.state_dict, scaler.load_state_dict))
    generation = job.ledger.generation
    checkpoints = Checkpointer(job.run, world, owners, keep=config.keep_checkpoints, generation=generation)
    health = CollapseWatch(job, checkpoints, trainer.watched, per_epoch)

    restored = step = checkpoints.restore() or continued(job, checkpoints, per_epoch)
    job.reporter.start(purge_step=step + 1)
    job.heart.step = step
    job.heart.end_when_stuck()
    _say_restored(job, step)
    job.reporter.progress(force=True, stage="starting", step=step, steps=steps, notices=job.notices)
    watch = LossWatch(job, checkpoints, trainer.networks)
    saves = Saves(job, checkpoints, watch, steps, restored=restored)
    job.keeping.save_first(lambda: saves.before_work(step))
    evaluations = Evaluations(job, trainer, evaluate, step)
    throughput = Throughput(config.global_batch)
    pace = Pace(job.run, world, job.ledger)
    job.heart.opening.passed("restoring")
    try:
        while step < steps:
            epoch = step // per_epoch
            evaluations.catch_up(step)
            job.safe_point("epoch", epoch, config.epochs)
            with job.clock("clustering"):
                trainer.begin_epoch(epoch)
            for network in trainer.networks:
                network.train()
            throughput.restart()
            with contextlib.closing(trainer.steps(epoch, step % per_epoch)) as stream:
                for batches in stream:
                    rate = learning_rate(config, step, steps, per_epoch)
                    with job.clock("training"):
                        scalars = take_step(job, trainer, scaler, batches, step, rate)
                        step += 1
                        pace.end(step)
                        watch.note(step, scalars, [batch.ids for batch in batches])
                    if step == restored + 1:
                        _say_begun(job, step)
                    throughput.count()
                    job.reporter.progress(
                        stage="training", step=step, steps=steps, epoch=epoch, loss=watch.latest,
                        images_per_s=throughput.rate, seconds_left=throughput.seconds(steps - step),
                        broken=job.load.broken, unkept_s=job.keeping.unkept_s,
                    )  # fmt: skip
                    if step % config.log_every == 0 or step == steps:
                        read, means = watch.averaged()
                        job.reporter.log(read, **means, lr=rate, images_per_s=throughput.rate)
                        health.note(step, means)  # what is read may lag by one, and not alike in each start
                    outcome = job.vote.cast(max(job.verdict(), watch.verdict()))
                    job.heart.step = step
                    job.heart.point()
                    watch.decide(outcome)
                    saved = step % saves.every == 0 and step < steps
                    if saved:
                        saves.save(step)
                    judged = evaluations.due(step)
                    if judged:
                        watch.decide(job.vote.now(max(job.verdict(), watch.verdict(wait=True))))
                        evaluations.catch_up(step)
                        throughput.restart()
                    if not saved and not judged:
                        # The step behind these is unlike the others, and the first of an epoch, with its loader.
                        pace.begin()
            pace.leave_out()
            watch.decide(job.vote.now(max(job.verdict(), watch.verdict(wait=True))))
        saves.last(step)
        evaluations.run(step)
        if world.is_main:
            store.remove(job.run.path / store.FOLDER)  # no checkpoint comes that would
        job.reporter.progress(force=True, stage="done", step=step, steps=steps, broken=job.load.broken)
    except Stopped:
        saves.stop(step)
        job.reporter.progress(force=True, stage="stopped", step=step, steps=steps)
        raise
    finally:
        pace.close()
        job.reporter.close()
    return {"step": step, "seconds": job.clock.seconds()}


def take_step(
    job: Job, trainer: Trainer, scaler: torch.amp.GradScaler, batches: list[Batch], step: int, rate: float
) -> dict[str, torch.Tensor]:
    """One optimiser step over the micro-batches `batches`. Returns the mean of what they had to log, on the device."""
    _seed(job, step)
    dropouts = dropout.begin_step(trainer.networks, lambda number: job.seed_for("dropout", step, number))
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        optimizer.zero_grad(set_to_none=True)
    trainer.before_step(step)
    scalars: dict[str, torch.Tensor] = {}
    statistics = RunningStatistics(job, trainer.networks, len(batches))
    for number, batch in enumerate(batches):
        dropout.begin_pass(dropouts, rows_of_pass(job, number))
        with _last_synchronises(trainer.networks, number == len(batches) - 1):
            with job.autocast():
                loss, parts = trainer.loss(batch, step)
            backward(scaler.scale(loss / len(batches)))
        statistics.after_pass()
        for name, value in {"loss": loss.detach(), **parts}.items():
            value = value / len(batches)
            scalars[name] = scalars[name] + value if name in scalars else value  # not every pass need say all
    _agree_on_overflow(job, trainer, scaler)
    for optimizer in trainer.optimizers:
        if _has_gradients(optimizer):
            scaler.unscale_(optimizer)
    trainer.after_backward(step)
    for optimizer in trainer.optimizers:
        if _has_gradients(optimizer):  # heads that a phase does not use have none
            scaler.step(optimizer)
    scaler.update()
    if scaler.is_enabled():
        scalars[LOSS_SCALE] = scaler.scale(torch.ones((), device=job.world.device))  # `get_scale` would wait for a GPU
    statistics.settle()
    trainer.after_step(step)
    return scalars


def _seed(job: Job, step: int) -> None:
    """Of everything that a trainer draws in `step` on the device: there is nothing to save, as for augmentation."""
    seed = job.seed_for("device", step, job.world.rank)
    # Not torch.manual_seed: as long as CUDA is not in use that notes each call, with its stack, for the day it will be.
    torch.default_generator.manual_seed(seed)
    if job.world.device.type == "cuda":
        torch.cuda.manual_seed(seed)


def rows_of_pass(job: Job, number: int) -> tuple[int, int, int]:
    """(first, how many, of how many) rows of the global batch are those of this rank's pass `number`."""
    count = job.layout.per_gpu_batch
    return (job.world.rank * job.layout.accumulation + number) * count, count, job.config.global_batch


def _say_restored(job: Job, step: int) -> None:
    before = job.run.progress()
    if job.world.is_main and (step or job.ledger.generation > 1):
        lost = {"lost_steps": max(0, before.get("step", 0) - step), "lost_seconds": before.get("unkept_s", 0.0)}
        job.ledger.write("restored", step=step, **lost)
        print(f"restored step {step}", flush=True)


def _say_begun(job: Job, step: int) -> None:
    job.heart.opening.passed("step")
    if job.world.is_main:
        job.ledger.write("first_step", step=step, seconds=job.heart.opening.seconds)


@contextlib.contextmanager
def _last_synchronises(networks: list[nn.Module], last: bool) -> Iterator[None]:
    """Gradients travel with the last micro-batch of a step only."""
    with contextlib.ExitStack() as stack:
        for network in networks:
            if not last and hasattr(network, "no_sync"):
                stack.enter_context(network.no_sync())
        yield


def _has_gradients(optimizer: torch.optim.Optimizer) -> bool:
    return any(p.grad is not None for group in optimizer.param_groups for p in group["params"])


def _gradients(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


@torch.no_grad()
def _agree_on_overflow(job: Job, trainer: Trainer, scaler: torch.amp.GradScaler) -> None:
    """fp16: where one rank's gradients overflowed, all skip the step, or their scales part. No rank waits."""
    if not scaler.is_enabled() or job.world.size == 1:
        return
    grads = [gradient for optimizer in trainer.optimizers for gradient in _gradients(optimizer)]
    worst = torch.stack(torch._foreach_norm(grads, float("inf"))).sum()  # inf or nan if any is
    flag = torch.where(torch.isfinite(worst), 0.0, 1.0)
    torch.distributed.all_reduce(flag)
    torch._foreach_add_(grads, torch.where(flag > 0, float("inf"), 0.0))
