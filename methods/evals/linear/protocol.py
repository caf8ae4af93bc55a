"""A linear classifier by SGD on frozen features of augmented images (thesis 5.3.2), at many learning rates in one pass.

The backbone sees an image once a step, whatever the number of rates: all classifiers learn from the same feature.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from launcher.errors import Diverged, InputError
from launcher.runtime.preempt import Stopped
from launcher.runtime.store import StoreSlot
from methods.augment.views import TrainView
from methods.data.loader import Batch, Request
from methods.data.sampler import Permutation, shares
from methods.engine.features import BATCH
from methods.evals.linear.spec import Linear
from methods.evals.remarks import few_steps, tied
from methods.evals.subject import Subject, percent
from methods.parts.schedules import cosine

REFERENCE = 256  # images of a batch that rates are given for (Goyal et al. 2017)


class Probes:
    """R linear classifiers of the same features, each trained at its own rate.

    SGD with momentum, as torch.optim.SGD has it, on the mean cross-entropy; weights begin at 0: nothing is drawn.
    """

    def __init__(self, rates: list[float], features: int, classes: int, device: torch.device):
        self.rates = torch.tensor(rates, device=device)
        shape = len(rates), classes, features + 1  # the last column is the bias
        self.weight = torch.zeros(shape, device=device)
        self.velocity = torch.zeros(shape, device=device)

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """float32 [B, d] -> logits [B, R, classes]."""
        rates, classes, _ = self.weight.shape
        flat = self.weight.flatten(0, 1)
        return torch.addmm(flat[:, -1], features, flat[:, :-1].T).view(-1, rates, classes)

    def gradient(self, features: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(gradient of the sum over images of each classifier's cross-entropy, that sum [R]), of this rank's images."""
        with torch.enable_grad():
            self.weight.requires_grad_()
            logits = self(features)
            target = labels[:, None].expand(logits.shape[:2])
            losses = cross_entropy(logits.transpose(1, 2), target, reduction="none").sum(0)
            (gradient,) = torch.autograd.grad(losses.sum(), self.weight)
        self.weight.requires_grad_(False)
        return gradient, losses.detach()

    def step(self, gradient: torch.Tensor, share: float, *, momentum: float, weight_decay: float) -> None:
        """One step at `share` of each rate; biases do not decay."""
        gradient[..., :-1].add_(self.weight[..., :-1], alpha=weight_decay)
        self.velocity.mul_(momentum).add_(gradient)
        self.weight.sub_(self.rates.view(-1, 1, 1) * share * self.velocity)


def score(subject: Subject, settings: Linear) -> dict[str, Any]:
    """Accuracies in percent on the test split: `top1` and `top5` at the best rate, that `rate`, `top1_by_rate` at each;
    and the `steps` that it learnt in.

    The best is chosen by accuracy on the test split itself, as the papers do: an optimistic choice, which is why all
    are given. Collective; raises Stopped, after keeping what it has learnt.
    """
    job, classes = subject.job, subject.classes
    dataset, world = subject.splits["train"], job.world
    settings = replace(settings, batch=settings.batch_of(len(dataset), world.size))
    batch = min(settings.batch, len(dataset)) // world.size * world.size
    if not batch:
        reason = f"{min(settings.batch, len(dataset))} images a step do not share out to {world.size} ranks"
        raise InputError.of("linear.batch", settings.batch, reason, "use fewer ranks")
    if settings.batch > len(dataset):
        job.notice(f"linear: there are {len(dataset)} images to learn from, fewer than a batch of {settings.batch}")
    per_epoch = len(dataset) // batch
    steps = per_epoch * settings.epochs
    if said := few_steps("linear", steps, batch, len(dataset)):
        job.notice(said)
    rates = [rate * batch / REFERENCE for rate in settings.rates]
    probes = Probes(rates, subject.backbone.feature_dim, classes, world.device)
    subject.features("test")  # weights that make no numbers are found out before all the epochs
    with subject.keeping("linear", vars(settings), needed=3 * 8 * probes.weight.numel()) as store:
        slot = store.slot("linear")
        first = step = _restore(subject, probes, slot)
        try:
            with contextlib.closing(_batches(subject, settings, batch, first, steps)) as stream:
                for data in stream:
                    job.decide(job.vote.cast(job.verdict()))
                    features, labels = _encoded(subject, data)
                    gradient, losses = probes.gradient(features, labels)
                    subject.sum(gradient).div_(batch)
                    share = cosine(step, steps, 1.0, 0.0)
                    probes.step(gradient, share, momentum=settings.momentum, weight_decay=settings.weight_decay)
                    step += 1
                    _say(subject, step, steps, losses, len(labels))
                    if store.due():
                        _note(subject, probes, slot, step)
            job.safe_point("linear probe", steps, steps)
        except Stopped:
            _note(subject, probes, slot, step)
            raise
        _note(subject, probes, slot, step)
        store.flush()
    scores = _judged(subject, probes, settings)
    if said := tied("linear", scores["top1_by_rate"]):
        job.notice(said)
    return {**scores, "steps": steps}


def _batches(subject: Subject, settings: Linear, batch: int, first: int, steps: int) -> Iterator[Batch]:
    """This rank's part of the batch of each step: random crops and flips, functions of (seed, epoch, sample)."""
    job, dataset = subject.job, subject.splits["train"]
    per_epoch = len(dataset) // batch
    view = TrainView(job.seed_for("linear view"), job.config.image_size, tuple(settings.crop_scale))

    def requests() -> Iterator[Request]:
        for epoch in range(first // per_epoch, settings.epochs):
            order = Permutation(len(dataset), job.seed_for("linear", epoch))
            todo = range(first % per_epoch if epoch == first // per_epoch else 0, per_epoch)
            mine = shares(
                order,
                todo,
                rank=job.world.rank,
                world_size=job.world.size,
                accumulation=1,
                per_rank=batch // job.world.size,
            )
            yield from (Request(ids, epoch, {}) for ids in mine)

    return job.load(view, requests(), dataset=dataset)


@torch.no_grad()
def _encoded(subject: Subject, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """(features float32 [B, d], labels int64 [B]) on the device."""
    device = subject.job.world.device
    with subject.job.autocast():
        parts = [subject.backbone(images.to(device)).float() for images in batch.images.split(BATCH)]
    return torch.cat(parts), subject.labels("train", batch.ids.numpy()).to(device)


def _say(subject: Subject, step: int, steps: int, losses: torch.Tensor, images: int) -> None:
    job = subject.job
    job.reporter.progress(stage="linear probe", done=step, total=steps, unkept_s=job.keeping.unkept_s)
    job.heart.point()
    if step % job.config.log_every == 0:
        known = losses.nan_to_num(nan=math.inf, posinf=math.inf)  # one rate that diverged hides none of the others
        best = float(known.min()) / images
        job.reporter.log(step, **{"linear/loss_of_best": best})


def _judged(subject: Subject, probes: Probes, settings: Linear) -> dict[str, Any]:
    features, labels = subject.features("test")
    device, rates = subject.job.world.device, len(settings.rates)
    learnt = probes.weight.isfinite().flatten(1).all(1)  # [R], the same on every rank
    if not learnt.any():
        given = min(settings.rates)
        raise Diverged(
            f"linear: at every rate the weights are no numbers in the end; add some below {given:g} to rates"
        )
    right = torch.zeros(3, rates, dtype=torch.int64, device=device)  # top-1, top-5, images
    for rows, truth in zip(features.split(BATCH), labels.split(BATCH), strict=True):
        hits = probes(rows.to(device)).topk(min(5, subject.classes), dim=-1).indices == truth.to(device)[:, None, None]
        hits &= learnt[:, None]  # a rate that diverged is right about no image, whichever classes come first
        right += torch.stack([hits[..., 0].sum(0), hits.any(-1).sum(0), torch.full_like(right[2], len(rows))])
    top1, top5, total = subject.sum(right).cpu().numpy()
    best = int(np.argmax(top1))
    return {
        "top1": percent(top1[best], total[best]),
        "top5": percent(top5[best], total[best]),
        "rate": settings.rates[best],
        "top1_by_rate": {f"{rate:g}": percent(n, total[0]) for rate, n in zip(settings.rates, top1, strict=True)},
    }


def _note(subject: Subject, probes: Probes, slot: StoreSlot, step: int) -> None:
    if subject.job.world.is_main:
        slot.note(step, {"weight": probes.weight.clone(), "velocity": probes.velocity.clone()}, {})


def _restore(subject: Subject, probes: Probes, slot: StoreSlot) -> int:
    """Go on where an earlier start was stopped. Returns the step. Collective."""
    world = subject.job.world
    found = slot.load() if world.is_main else None
    step = world.broadcast(found and found[0])
    if step is None:
        return 0
    for name, mine in (("weight", probes.weight), ("velocity", probes.velocity)):
        if found:
            mine.copy_(found[1][name])
        world.overwrite(mine)
    return step
