"""Multinomial logistic regression by L-BFGS on extracted features (Kolesnikov et al. 2019, supplement 2)."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.optim import LBFGS

from launcher.runtime.store import StoreSlot
from methods.evals.cells import seen
from methods.evals.logistic.spec import Logistic
from methods.evals.settings import key_of
from methods.evals.subject import Subject, percent
from methods.evals.subsets import chosen, parted

CHUNK = 16_384  # features multiplied at a time
SLICE = 50  # iterations after which L-BFGS forgets its history: a stop costs at most so many, and changes nothing
SMALLEST = 1e-7  # largest component of a gradient at which the fit has ended
SMALLEST_GAIN = 1e-9  # share of the objective that a slice must gain for another one to begin


class Fitted(NamedTuple):
    """Logits of features x are x weight^T + bias; float64 [classes, d] and [classes]. iterations: that it took;
    objective: mean loss and penalty."""

    weight: torch.Tensor
    bias: torch.Tensor
    iterations: int
    objective: float

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """[n, d] -> logits float64 [n, classes]."""
        return torch.addmm(self.bias, features.double(), self.weight.T)


def score(subject: Subject, settings: Logistic) -> dict[str, Any]:
    """Accuracies in percent: `top1` and `top5` on the test split, `train` on what it was fitted to; the strength `l2`
    of the penalty, and the `iterations` that were needed. With trials `l2` is of the best of them, the first of
    several, and `held_out` what it reached on the images held out. Collective; raises Stopped."""
    subject = seen(subject, settings)
    taught, test = chosen(subject, settings), subject.features("test")
    width, tried = taught.features.shape[1], {}
    # What is kept of a fit to all images is under the name that it had when there was no choice.
    given = {name: value for name, value in key_of(settings).items() if name not in ("share", "subset")}
    key = {**given, **({"images": taught.digest} if taught.digest else {})}
    needed = (2 if settings.trials else 1) * 3 * 8 * (width + 1) * subject.classes
    with subject.keeping("logistic", key, needed=needed) as store:
        strength = strength_of(settings.l2, width, subject.classes)
        if settings.trials:
            strength, tried = _searched(subject, settings, store.slot("trials"))
        how = {"l2": strength, "iterations": settings.iterations, "slot": store.slot("logistic")}
        found = fit(subject, taught.features, taught.labels, **how)
    top1, top5 = accuracy(subject, found, *test)
    fitted, _ = accuracy(subject, found, taught.features, taught.labels)
    return {"top1": top1, "top5": top5, "train": fitted, "l2": strength, "iterations": found.iterations, **tried}


def drawn(settings: Logistic, seed: int) -> list[float]:
    """Strengths of the penalty, log-uniform. More trials begin with those of fewer."""
    low, high = np.log(settings.l2_range)
    shares = np.random.default_rng(seed).random(settings.trials)
    return np.exp(low + shares * (high - low)).tolist()


class _Part:
    """The part of a slot that one of several fits has: its iterations are numbered behind those of the fits before,
    and what these `reached` is kept beside it. found: what an earlier start kept of it."""

    def __init__(self, slot: StoreSlot, first: int, reached: list[float], found: tuple[int, dict[str, Any]] | None):
        self._slot, self._first, self._reached, self._found = slot, first, reached, found

    def load(self) -> tuple[int, dict[str, Any]] | None:
        return self._found and (self._found[0] - self._first, self._found[1])

    def note(self, number: int, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        self._slot.note(self._first + number, tensors, {**values, "reached": [*self._reached]})


def _searched(subject: Subject, settings: Logistic, slot: StoreSlot) -> tuple[float, dict[str, float]]:
    """(the strength of the best trial, what it reached). Collective; raises Stopped."""
    job, world, span = subject.job, subject.job.world, settings.iterations + 1
    strengths = drawn(settings, job.seed_for("logistic trials"))
    found = slot.load() if world.is_main else None
    number, reached = world.broadcast((found[0], found[1]["reached"]) if found else (0, []))
    learn, held_out = parted(subject, settings)
    for trial in range(len(reached), settings.trials):
        begun = found if found and trial * span < number < (trial + 1) * span else None
        how = {"iterations": settings.iterations, "slot": _Part(slot, trial * span, reached, begun)}
        stage = f"logistic regression, trial {trial + 1} of {settings.trials}"
        tried = fit(subject, learn.features, learn.labels, l2=strengths[trial], stage=stage, **how)
        reached.append(accuracy(subject, tried, held_out.features, held_out.labels)[0])
        if world.is_main:
            slot.note((trial + 1) * span, {}, {"reached": [*reached]})
    best = int(np.argmax(reached))
    return strengths[best], {"held_out": reached[best]}


def kept_fit(
    subject: Subject,
    settings: Any,
    features: torch.Tensor,
    labels: torch.Tensor,
    *,
    key: Any,
    work: str,
    name: str,
    stage: str,
) -> tuple[Fitted, float]:
    """(what `fit` finds, the strength of the penalty). The work is kept on disk under `name`, in the store of `work`.
    settings: with `l2` and `iterations`, as `Logistic`; key: what the work depends on, JSON. Collective."""
    width, classes = features.shape[1], subject.classes
    strength = strength_of(settings.l2, width, classes)
    with subject.keeping(work, key, needed=3 * 8 * (width + 1) * classes) as store:
        how = {"l2": strength, "iterations": settings.iterations, "slot": store.slot(name), "stage": stage}
        return fit(subject, features, labels, **how), strength


def strength_of(l2: float | None, features: int, classes: int) -> float:
    """Of the penalty: as given, else lambda = 100 / (M C) of the paper."""
    return 100 / (features * classes) if l2 is None else l2


def fit(
    subject: Subject,
    features: torch.Tensor,
    labels: torch.Tensor,
    *,
    l2: float,
    iterations: int,
    slot: StoreSlot | None = None,
    stage: str = "logistic regression",
    codes: torch.Tensor | None = None,
) -> Fitted:
    """Minimise mean cross-entropy + l2 |weight|^2 over the features of all ranks; the bias is free.

    codes: float64 [classes, a], on the device: then weight is [a, d], bias [a], and the logits of features x are
    codes (weight x + bias).

    features: float32 [n, d], labels: int64 [n], of this rank. Only sums of gradients travel, and all ranks take the
    same steps. Sums are in float64, and so are products on a CPU. slot: where it is kept between slices. Collective.
    """
    device, classes = subject.job.world.device, subject.classes if codes is None else len(codes)
    outputs = classes if codes is None else codes.shape[1]
    exact = torch.float64 if device.type == "cpu" else torch.float32
    weight = torch.zeros(outputs, features.shape[1], dtype=torch.float64, device=device)
    bias = torch.zeros(outputs, dtype=torch.float64, device=device)
    total = int(subject.sum(torch.tensor([len(labels)], device=device)))
    done, ended, objective = _restored(subject, slot, weight, bias)

    def closure() -> float:
        subject.job.safe_point(stage, done, iterations)
        sums = torch.zeros(classes * (features.shape[1] + 1) + 1, dtype=torch.float64, device=device)
        ofweight = sums[: -classes - 1].view(classes, -1)
        ofbias = sums[-classes - 1 : -1]
        w, b = (weight, bias) if codes is None else (codes @ weight, codes @ bias)
        w, b = w.to(exact), b.to(exact)
        for rows, truth in _chunks(features, labels, device):
            logits = torch.addmm(b, rows.to(exact), w.T)
            scores = logits.log_softmax(1)
            picked = scores.gather(1, truth[:, None])
            sums[-1] -= picked.sum(dtype=torch.float64)
            residual = scores.exp().scatter_add_(1, truth[:, None], torch.full_like(picked, -1.0))
            ofweight += residual.T @ rows.to(exact)
            ofbias += residual.sum(0, dtype=torch.float64)
        subject.sum(sums).div_(total)
        if codes is not None:
            ofweight, ofbias = codes.T @ ofweight, codes.T @ ofbias
        weight.grad, bias.grad = ofweight + 2 * l2 * weight, ofbias.clone()
        return float(sums[-1] + l2 * weight.square().sum())

    while not ended and done < iterations:
        budget = min(SLICE, iterations - done)
        optimizer = LBFGS(
            [weight, bias],
            max_iter=budget,
            max_eval=25 * budget,
            tolerance_grad=SMALLEST,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )
        optimizer.step(closure)
        done += optimizer.state[weight]["n_iter"]
        before, objective = objective, closure()
        steepest = max(float(weight.grad.abs().max()), float(bias.grad.abs().max()))
        ended = steepest <= SMALLEST or before - objective <= SMALLEST_GAIN * abs(objective)
        if slot is not None and subject.job.world.is_main:
            state = {"weight": weight.detach().clone(), "bias": bias.detach().clone()}
            slot.note(done, state, {"ended": ended, "objective": objective})
    return Fitted(weight, bias, done, objective)


@torch.no_grad()
def accuracy(
    subject: Subject, logits_of: Callable[[torch.Tensor], torch.Tensor], features: torch.Tensor, labels: torch.Tensor
) -> tuple[float, float]:
    """(top-1, top-5) in percent over the features of all ranks. logits_of: float32 [n, d] -> [n, classes], both on the
    device. Collective."""
    device = subject.job.world.device
    right = torch.zeros(3, dtype=torch.int64, device=device)
    for rows, truth in _chunks(features, labels, device):
        hits = logits_of(rows).topk(min(5, subject.classes), dim=1).indices == truth[:, None]
        right += torch.stack([hits[:, 0].sum(), hits.any(1).sum(), torch.tensor(len(rows), device=device)])
    top1, top5, total = subject.sum(right).tolist()
    return percent(top1, total), percent(top5, total)


def _chunks(
    features: torch.Tensor, labels: torch.Tensor, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for rows, truth in zip(features.split(CHUNK), labels.split(CHUNK), strict=True):
        yield rows.to(device, non_blocking=True), truth.to(device, non_blocking=True)


def _restored(
    subject: Subject, slot: StoreSlot | None, weight: torch.Tensor, bias: torch.Tensor
) -> tuple[int, bool, float]:
    """(iterations done, whether the fit has ended, its objective) of an earlier start. Collective."""
    world = subject.job.world
    found = slot.load() if slot is not None and world.is_main else None
    told = world.broadcast(found and (found[0], found[1]["ended"], found[1]["objective"]))
    if told is None:
        return 0, False, float("inf")
    for name, mine in (("weight", weight), ("bias", bias)):
        if found:
            mine.copy_(found[1][name])
        world.overwrite(mine)
    return tuple(told)
