"""A bilinear function of features x and attributes a of a class, f(x, a) = a^T (Sigma x + b), learnt from seen classes
(Sariyildiz et al. 2020, supplement C, Equations 1 to 4), and what it says of images of seen and unseen ones."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from launcher.errors import InputError
from launcher.runtime.store import Store
from methods.evals import pooled
from methods.evals.logistic.protocol import Fitted, fit
from methods.evals.subject import Subject, percent
from methods.evals.zeroshot.spec import Zeroshot

CHUNK = 16_384  # features multiplied at a time


class Extracted(NamedTuple):
    """Of this rank, in host memory: features float32 [n, d], labels int64 [n]."""

    features: torch.Tensor
    labels: torch.Tensor

    def of(self, classes: np.ndarray) -> "Extracted":
        """The images of these classes."""
        kept = torch.isin(self.labels, torch.from_numpy(classes))
        return Extracted(self.features[kept], self.labels[kept])


def score(subject: Subject, settings: Zeroshot) -> dict[str, Any]:
    """Accuracies in percent on the test split. `top1`: of all images among all classes, as Table 3; `seen` and
    `unseen`: the mean over these classes, among all classes; `harmonic`: their harmonic mean; `zero_shot`: as `unseen`,
    among the unseen classes alone (Xian et al. 2018). `l2`: the strength of the penalty.

    Collective; raises Stopped, with the work kept, and InputError where the seen classes are too few to choose by.
    """
    dataset = subject.splits["train"]
    codes, seen = torch.from_numpy(unit(dataset.attributes)).to(subject.job.world.device), np.asarray(dataset.seen)
    with pooled.encoder(subject.job.config.backbone, subject.backbone, settings.pool) as encode:
        width = pooled.width_of(subject.job, encode)
        made = [
            subject.extracted(split, encode, ["pool", settings.pool], work=f"zeroshot {split}", width=width)
            for split in subject.splits
        ]
    train, test = (
        Extracted(features, subject.labels(split, ids))
        for split, (features, ids) in zip(subject.splits, made, strict=True)
    )
    centre, spread = _spread(subject, train.features)
    for each in (train, test):  # so that a penalty means the same for every backbone; Sigma and b take it back
        each.features.sub_(centre).div_(spread)
    needed = 2 * 8 * (width + 1) * codes.shape[1]
    with subject.keeping("zeroshot", vars(settings), needed=needed) as store:
        found, strength = learn(subject, settings, codes, np.flatnonzero(seen), train, store)
    right, total = counts(subject, found, codes, np.arange(len(codes)), test)
    alone = counts(subject, found, codes, np.flatnonzero(~seen), test.of(np.flatnonzero(~seen)))
    by_seen, by_unseen = mean(right[seen], total[seen]), mean(right[~seen], total[~seen])
    both = by_seen + by_unseen
    return {
        "top1": percent(right.sum(), max(1, total.sum())),
        "seen": percent(by_seen),
        "unseen": percent(by_unseen),
        "harmonic": percent(2 * by_seen * by_unseen / both if both else 0.0),
        "zero_shot": percent(mean(*alone)),
        "l2": strength,
    }


def learn(
    subject: Subject, settings: Zeroshot, codes: torch.Tensor, seen: np.ndarray, train: Extracted, store: Store
) -> tuple[Fitted, float]:
    """(Sigma and b of Equation 3, the strength of the penalty): of the strengths the one by which classes that are held
    out are best told apart, among themselves; of equal ones the largest. seen: the classes with images. Collective."""
    job, world = subject.job, subject.job.world
    strengths = sorted(settings.l2, reverse=True)
    parts = held_out(seen, settings.folds, job.seed_for("zeroshot")) if len(strengths) > 1 else []
    turns = [(strength, part) for strength in strengths for part in parts]
    work = _Work(store, settings.iterations, is_main=world.is_main)
    number, known = world.broadcast((work.number, work.known) if world.is_main else None)
    for turn in range(number, len(turns)):
        strength, part = turns[turn]
        learnt = np.setdiff1d(seen, part)
        softmax = seen if settings.softmax == "all" else learnt
        work.at(turn, known)
        stage = f"penalty {turn + 1} of {len(turns)}"
        found = _fitted(subject, settings, codes, softmax, train.of(learnt), strength, work, stage)
        known = [*known, mean(*counts(subject, found, codes, part, train.of(part)))]
    means = np.reshape(known, (len(strengths), -1)).mean(1) if parts else [0.0]
    strength = strengths[int(np.argmax(means))]
    softmax = np.arange(len(codes)) if settings.softmax == "all" else seen
    work.at(len(turns), known)
    return _fitted(subject, settings, codes, softmax, train, strength, work, "bilinear classifier"), strength


def held_out(seen: np.ndarray, folds: int, seed: int) -> list[np.ndarray]:
    """Parts of the classes `seen`, drawn by the seed, as even as can be. Raises InputError where a part has less than
    two, between which nothing could be told."""
    if len(seen) < 2 * folds:
        reason = f"{len(seen)} seen classes cannot be held out in {folds} parts of two or more"
        raise InputError.of("zeroshot.l2", ..., reason, "give one l2 alone, or fewer zeroshot.folds")
    order = np.random.default_rng(seed).permutation(seen)
    return [np.sort(order[first::folds]) for first in range(folds)]


def counts(
    subject: Subject, found: Fitted, codes: torch.Tensor, among: np.ndarray, split: Extracted
) -> tuple[np.ndarray, np.ndarray]:
    """(images that Equation 2 gives to their class, images) of each class, int64 [classes] over all ranks. among: the
    classes that it chooses from. Collective."""
    device = codes.device
    chosen = torch.from_numpy(among).to(device)
    both = torch.zeros(2, len(codes), dtype=torch.int64, device=device)
    for rows, truth in zip(split.features.split(CHUNK), split.labels.to(device).split(CHUNK), strict=True):
        predicted = chosen[(found(rows.to(device)) @ codes[chosen].T).argmax(1)]
        both[0] += torch.bincount(truth[predicted == truth], minlength=len(codes))
        both[1] += torch.bincount(truth, minlength=len(codes))
    right, total = subject.sum(both).cpu().numpy()
    return right, total


def mean(right: np.ndarray, total: np.ndarray) -> float:
    """Over the classes that have images, of their accuracies."""
    there = total > 0
    return float((right[there] / total[there]).mean()) if there.any() else 0.0


def unit(attributes: np.ndarray) -> np.ndarray:
    """float64 [classes, a], each of unit length, as Xian et al. 2018 take them."""
    rows = np.asarray(attributes, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _fitted(
    subject: Subject,
    settings: Zeroshot,
    codes: torch.Tensor,
    softmax: np.ndarray,
    train: Extracted,
    strength: float,
    work: "_Work",
    stage: str,
) -> Fitted:
    """By Equations 3 and 4, whose sum is over the classes `softmax`, in ascending order."""
    labels = torch.from_numpy(np.searchsorted(softmax, train.labels.numpy()))
    how = {"l2": strength, "iterations": settings.iterations, "slot": work, "stage": stage}
    return fit(subject, train.features, labels, codes=codes[torch.from_numpy(softmax).to(codes.device)], **how)


def _spread(subject: Subject, features: torch.Tensor) -> tuple[torch.Tensor, float]:
    """(the mean of the features of all ranks, float32 [d]; the root of their mean squared distance from it).
    Collective."""

    def summed(centre: torch.Tensor | float, power: int) -> torch.Tensor:
        sums = torch.zeros(features.shape[1] + 1, dtype=torch.float64)
        for rows in features.split(CHUNK):
            sums[:-1] += (rows.double() - centre).pow(power).sum(0)
            sums[-1] += len(rows)
        sums = subject.sum(sums.to(subject.job.world.device)).cpu()
        return sums[:-1] / sums[-1]

    centre = summed(0.0, 1)
    return centre.float(), float(summed(centre, 2).sum()) ** 0.5 or 1.0


class _Work:
    """One fit after the other in one slot of a store: each as `fit` keeps it, with what is known from those before.
    Rank 0 alone finds what an earlier start kept."""

    def __init__(self, store: Store, iterations: int, *, is_main: bool):
        self._slot, self._room = store.slot("zeroshot"), iterations + 1
        self._found = self._slot.load() if is_main else None
        place, values = self._found or (0, {})
        self.number, self.known = place // self._room, list(values.get("known", []))
        self._now: tuple[int, list[float]] = (self.number, self.known)

    def at(self, number: int, known: list[float]) -> None:
        """The fit that is worked on now, and what those before it found."""
        self._now = number, known

    def load(self) -> tuple[int, dict[str, Any]] | None:
        number, _ = self._now
        return (self._found[0] % self._room, self._found[1]) if self._found and number == self.number else None

    def note(self, done: int, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        number, known = self._now
        self._slot.note(number * self._room + done, tensors, {**values, "known": known})
