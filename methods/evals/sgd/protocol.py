"""A classifier by SGD on extracted features of centre crops, with a hidden layer or without (Kolesnikov et al. 2019,
supplement 2; their linear one sees random crops, as our `linear`).

Features stay on the rank that extracted them: each takes those of a batch that are its own, and gradients are summed.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from launcher.errors import Diverged
from launcher.runtime.preempt import Stopped
from launcher.runtime.store import Store, StoreSlot
from methods.data.sampler import Permutation
from methods.evals.cells import seen
from methods.evals.logistic.protocol import accuracy, strength_of
from methods.evals.remarks import few_steps
from methods.evals.settings import key_of
from methods.evals.sgd.dense import Dense
from methods.evals.sgd.spec import Sgd
from methods.evals.subject import Subject
from methods.evals.subsets import Chosen, chosen, parted

NONE = -1.0  # in place of an accuracy


class Trials(NamedTuple):
    """Rates and strengths of the penalty that are tried, and what each reached on the images held out, in percent; NONE
    before it was tried. float64 [trials]."""

    rates: np.ndarray
    l2s: np.ndarray
    reached: torch.Tensor


def score(subject: Subject, settings: Sgd) -> dict[str, Any]:
    """Accuracies in percent: `top1` and `top5` on the test split, `train` on what it learnt from, in so many `steps`.
    With trials also the `rate` and the `l2` of the best of them, the first of several, and what it reached on the
    images `held_out`.

    A function of the seed: the order of the images of (seed, epoch), what is dropped of (seed, step). Collective;
    raises Stopped, after keeping what it has learnt, and Diverged.
    """
    subject = seen(subject, settings)
    taught, test = chosen(subject, settings), subject.features("test")
    settings = replace(settings, batch=settings.batch_of(taught.total))
    if taught.total < settings.batch:
        said = f"sgd: there are {taught.total} images to learn from, fewer than a batch of {settings.batch}"
        subject.job.notice(said)
    batch = min(settings.batch, taught.total)
    steps = taught.total // batch * settings.epochs
    if said := few_steps("sgd", steps, batch, taught.total):
        subject.job.notice(said)
    dense, tried = _new(subject, settings, taught), {}
    needed = (2 if settings.trials else 1) * 3 * 8 * len(dense.values)
    with subject.keeping("sgd", [key_of(settings), taught.digest], needed=needed) as store:
        if settings.trials:
            settings, tried = _searched(subject, settings, store)
        slot = store.slot("sgd")
        step = _restore(subject, slot, dense.kept())
        _learn(subject, settings, dense, taught, step, lambda step: _note(subject, slot, step, dense.kept()), store)
        store.flush()
    top1, top5 = accuracy(subject, dense, *test)
    train, _ = accuracy(subject, dense, taught.features, taught.labels)
    return {"top1": top1, "top5": top5, "train": train, **tried, "steps": steps}


def rate_at(settings: Sgd, epoch: float) -> float:
    """The learning rate of an epoch, from 0 on, or of the step that is this share of the way into it."""
    if settings.schedule == "cosine":
        return settings.rate * (1 + math.cos(math.pi * epoch / settings.epochs)) / 2
    return settings.rate * 0.1 ** sum(epoch >= drop for drop in settings.drops)


def drawn(settings: Sgd, seed: int) -> Trials:
    """More trials begin with those of fewer."""
    shares = np.random.default_rng(seed).random((settings.trials, 2)).T
    low, high = np.log(settings.rate_range)
    least, most = settings.l2_range
    reached = torch.full((settings.trials,), NONE, dtype=torch.float64)
    return Trials(np.exp(low + shares[0] * (high - low)), least + shares[1] * (most - least), reached)


def _new(subject: Subject, settings: Sgd, taught: Chosen) -> Dense:
    hidden = () if settings.hidden is None else (settings.hidden,)
    dense = Dense((taught.features.shape[1], *hidden, subject.classes), subject.job.world.device)
    if hidden:  # two layers of zeros would stay that
        dense.draw(subject.job.seed_for("sgd weights"))
    return dense


def _searched(subject: Subject, settings: Sgd, store: Store) -> tuple[Sgd, dict[str, float]]:
    """(the settings of the best trial, its scores). Kept between any two steps. Collective; raises Stopped."""
    trials, slot = drawn(settings, subject.job.seed_for("sgd trials")), store.slot("trial")
    learn, held_out = parted(subject, settings)
    dense = _new(subject, settings, learn)
    steps = 1 + learn.total // min(settings.batch, learn.total) * settings.epochs  # and one for the end of each trial
    begun, step = divmod(_restore(subject, slot, {**dense.kept(), "reached": trials.reached}), steps)
    for trial in range(begun, settings.trials):
        chosen_ones = {"rate": float(trials.rates[trial]), "l2": float(trials.l2s[trial])}
        if trial > begun:
            dense, step = _new(subject, settings, learn), 0

        def note(step: int, dense: Dense = dense, first: int = trial * steps) -> None:
            _note(subject, slot, first + step, {**dense.kept(), "reached": trials.reached})

        told = f"trial {trial + 1} of {settings.trials}"
        try:
            _learn(subject, replace(settings, **chosen_ones), dense, learn, step, note, store, told)
            trials.reached[trial], _ = accuracy(subject, dense, held_out.features, held_out.labels)
        except Diverged:  # the same on every rank
            trials.reached[trial] = 0.0
    _note(subject, slot, settings.trials * steps, {**dense.kept(), "reached": trials.reached})
    store.flush()
    best = int(trials.reached.argmax())
    found = {"rate": float(trials.rates[best]), "l2": float(trials.l2s[best])}
    return replace(settings, **found), {**found, "held_out": float(trials.reached[best])}


def _learn(
    subject: Subject,
    settings: Sgd,
    dense: Dense,
    taught: Chosen,
    step: int,
    note: Callable[[int], None],
    store: Store,
    told: str = "",
) -> None:
    """All steps from `step` on; `note` keeps what there is after one. told: which of several trainings this is.
    Collective; raises Stopped, after keeping, and Diverged."""
    job, batch = subject.job, min(settings.batch, taught.total)
    per_epoch = taught.total // batch
    steps = per_epoch * settings.epochs
    decay = 2 * strength_of(settings.l2, dense.widths[0], subject.classes)
    stage = f"classifier by SGD, {told}" if told else "classifier by SGD"
    try:
        while step < steps:
            job.decide(job.vote.cast(job.verdict()))
            epoch, number = divmod(step, per_epoch)
            order = Permutation(taught.total, job.seed_for("sgd", epoch))
            places = order(np.arange(number * batch, (number + 1) * batch))
            sums = subject.sum(_gradient(subject, settings, dense, taught, places, step)).div_(batch)
            rate = rate_at(settings, step / per_epoch)
            dense.step(sums[:-1], rate=rate, momentum=settings.momentum, weight_decay=decay)
            step += 1
            _say(subject, stage, step, steps, None if told else sums[-1])
            if number + 1 == per_epoch and not dense.values.isfinite().all():  # the same on every rank
                said = f"sgd: after epoch {epoch + 1} the weights are no numbers"
                lower = "a range of rates that ends" if settings.trials else "a rate"
                raise Diverged(f"{said}; give {lower} below {settings.rate:g}")
            if store.due():
                note(step)
        job.safe_point(stage, steps, steps)
    except Stopped:
        note(step)
        raise
    note(step)


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


def _say(subject: Subject, stage: str, step: int, steps: int, loss: torch.Tensor | None) -> None:
    job = subject.job
    job.reporter.progress(stage=stage, done=step, total=steps, unkept_s=job.keeping.unkept_s)
    job.heart.point()
    if loss is not None and step % job.config.log_every == 0:
        job.reporter.log(step, **{"sgd/loss": float(loss)})


def _note(subject: Subject, slot: StoreSlot, number: int, state: dict[str, torch.Tensor]) -> None:
    if subject.job.world.is_main:
        slot.note(number, {name: tensor.clone() for name, tensor in state.items()}, {})


def _restore(subject: Subject, slot: StoreSlot, state: dict[str, torch.Tensor]) -> int:
    """Overwrite `state` with what an earlier start kept. Returns the number that it was kept under, 0 where there is
    none. Collective."""
    world = subject.job.world
    found = slot.load() if world.is_main else None
    number = world.broadcast(found and found[0])
    if number is None:
        return 0
    for name, mine in state.items():
        if found:
            mine.copy_(found[1][name])
        world.overwrite(mine)
    return number
