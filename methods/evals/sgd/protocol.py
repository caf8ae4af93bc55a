"""A classifier by SGD on extracted features of centre crops, with a hidden layer or without (Kolesnikov et al. 2019,
supplement 2; their linear one sees random crops, as our `linear`).

Features stay on the rank that extracted them: each takes those of a batch that are its own, and gradients are summed.
"""

from typing import Any

import numpy as np
import torch

from launcher.errors import Diverged
from launcher.runtime.preempt import Stopped
from launcher.runtime.store import Store, StoreSlot
from methods.data.sampler import Permutation
from methods.evals.logistic.protocol import accuracy, strength_of
from methods.evals.sgd.dense import Dense
from methods.evals.sgd.spec import Sgd
from methods.evals.subject import Subject
from methods.evals.subsets import Chosen, chosen


def score(subject: Subject, settings: Sgd) -> dict[str, Any]:
    """Accuracies in percent: `top1` and `top5` on the test split, `train` on what it learnt from.

    A function of the seed: the order of the images of (seed, epoch), what is dropped of (seed, step). Collective;
    raises Stopped, after keeping what it has learnt, and Diverged.
    """
    taught, test = chosen(subject, settings), subject.features("test")
    hidden = () if settings.hidden is None else (settings.hidden,)
    dense = Dense((taught.features.shape[1], *hidden, subject.classes), subject.job.world.device)
    if hidden:  # two layers of zeros would stay that
        dense.draw(subject.job.seed_for("sgd weights"))
    with subject.keeping("sgd", [vars(settings), taught.digest], needed=3 * 8 * len(dense.values)) as store:
        _learn(subject, settings, dense, taught, store)
        store.flush()
    top1, top5 = accuracy(subject, dense, *test)
    train, _ = accuracy(subject, dense, taught.features, taught.labels)
    return {"top1": top1, "top5": top5, "train": train}


def rate_at(settings: Sgd, epoch: int) -> float:
    """The learning rate of an epoch, from 0 on."""
    return settings.rate * 0.1 ** sum(epoch >= drop for drop in settings.drops)


def _learn(subject: Subject, settings: Sgd, dense: Dense, taught: Chosen, store: Store) -> None:
    """All steps, from where an earlier start was stopped. Collective; raises Stopped, after keeping, and Diverged."""
    job, batch = subject.job, min(settings.batch, taught.total)
    if batch < settings.batch:
        job.notice(f"sgd: there are {taught.total} images to learn from, fewer than a batch of {settings.batch}")
    per_epoch = taught.total // batch
    steps = per_epoch * settings.epochs
    decay = 2 * strength_of(settings.l2, dense.widths[0], subject.classes)
    slot = store.slot("sgd")
    step = _restore(subject, dense, slot)
    try:
        while step < steps:
            job.decide(job.vote.cast(job.verdict()))
            epoch, number = divmod(step, per_epoch)
            order = Permutation(taught.total, job.seed_for("sgd", epoch))
            places = order(np.arange(number * batch, (number + 1) * batch))
            sums = subject.sum(_gradient(subject, settings, dense, taught, places, step)).div_(batch)
            dense.step(sums[:-1], rate=rate_at(settings, epoch), momentum=settings.momentum, weight_decay=decay)
            step += 1
            _say(subject, step, steps, sums[-1])
            if number + 1 == per_epoch and not dense.values.isfinite().all():  # the same on every rank
                said = f"sgd: after epoch {epoch + 1} the weights are no numbers"
                raise Diverged(f"{said}; give a rate below {settings.rate:g}")
            if store.due():
                _note(subject, dense, slot, step)
        job.safe_point("classifier by SGD", steps, steps)
    except Stopped:
        _note(subject, dense, slot, step)
        raise
    _note(subject, dense, slot, step)


def _gradient(
    subject: Subject, settings: Sgd, dense: Dense, taught: Chosen, places: np.ndarray, step: int
) -> torch.Tensor:
    """Of this rank's images in the batch `places`; what is dropped of an image is the same on whichever rank it is."""
    device = subject.job.world.device
    mine = np.flatnonzero((places >= taught.first) & (places < taught.first + len(taught.labels)))
    rows = torch.from_numpy(places[mine] - taught.first)
    factors = dense.dropped(len(places), settings.dropout, subject.job.seed_for("sgd dropout", step))
    if factors is not None:
        factors = factors[torch.from_numpy(mine).to(device)]
    return dense.gradient(taught.features[rows].to(device), taught.labels[rows].to(device), factors)


def _say(subject: Subject, step: int, steps: int, loss: torch.Tensor) -> None:
    job = subject.job
    job.reporter.progress(stage="classifier by SGD", done=step, total=steps, unkept_s=job.keeping.unkept_s)
    job.heart.point()
    if step % job.config.log_every == 0:
        job.reporter.log(step, **{"sgd/loss": float(loss)})


def _note(subject: Subject, dense: Dense, slot: StoreSlot, step: int) -> None:
    if subject.job.world.is_main:
        slot.note(step, {"weights": dense.values.clone(), "velocity": dense.velocity.clone()}, {})


def _restore(subject: Subject, dense: Dense, slot: StoreSlot) -> int:
    """Go on where an earlier start was stopped. Returns the step. Collective."""
    world = subject.job.world
    found = slot.load() if world.is_main else None
    step = world.broadcast(found and found[0])
    if step is None:
        return 0
    for name, mine in (("weights", dense.values), ("velocity", dense.velocity)):
        if found:
            mine.copy_(found[1][name])
        world.overwrite(mine)
    return step
