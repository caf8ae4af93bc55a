"""Linear support vector machines, one for each class, on pooled features of unit length (Goyal et al. 2019)."""

import math
import platform
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import torch

from launcher.errors import InputError
from launcher.runtime.dist import World
from launcher.runtime.store import Store
from methods.engine.job import Job
from methods.evals import pooled
from methods.evals.average_precision import by_class
from methods.evals.room import COPIES, refuse_too_large
from methods.evals.subject import Subject, percent
from methods.evals.svm.classifier import OneAgainstAll, steps
from methods.evals.svm.spec import SVM

KEPT = "class"  # of the items in the store, one a class
ROWS = 8192  # travel and are normalised at once
SMALLEST = 1e-5  # added to the length that features are divided by, as in VISSL
EVERYWHERE = 6  # times that a rank holds the float32 features while it fits: in float64, and as liblinear's pairs
TRIED = (-5, 5)  # powers of 10 between which costs are drawn (Sariyildiz et al. 2020)
NAMED = 3  # classes that stand for all


class Machines(NamedTuple):
    """Scores of features x are x weight[:, :-1]^T + weight[:, -1]; float64 [classes, d + 1]. costs: of each."""

    weight: np.ndarray
    costs: list[float]


def score(subject: Subject, settings: SVM) -> dict[str, Any]:
    """`map`, the mean over classes of the average precision on the test split in percent, by `settings.rule`; where an
    image has one label `top1`, of the class with the largest score; `ap_by_class` and `cost_by_class`.

    An image of which is not said whether it shows a class (a difficult one) is taken as one that does not in training,
    and not counted in the test, as VISSL has it. The ranks take the classes in turn; every rank holds all features to
    learn from. Collective; raises Stopped, with the classes that are done kept, and InputError where the features are
    too many, or the test split shows no class.
    """
    job = subject.job
    with pooled.encoder(job.config.backbone, subject.backbone, settings.pool) as encode:
        width = pooled.width_of(job, encode)
        here = max(Counter(job.world.gather(platform.node())).values())
        refuse_too_large(job, settings.name, width, copies=max(COPIES, EVERYWHERE * here + 2))
        train, test = (
            subject.extracted(split, encode, ["pool", settings.pool], work=f"svm {split}", width=width)
            for split in subject.splits
        )
    with subject.keeping("svm", vars(settings), needed=8 * (width + 1) * subject.classes) as store:
        found = _fitted(subject, settings, *train, store)
    return _judged(subject, settings, found, *test)


def costs_of(job: Job, settings: SVM) -> list[float]:
    """Those to choose from, the smallest first."""
    if not settings.trials:
        return sorted(settings.costs)
    drawn = np.random.default_rng(job.seed_for("svm costs")).uniform(*TRIED, settings.trials)
    return sorted((10.0**drawn).tolist())


def _fitted(subject: Subject, settings: SVM, features: torch.Tensor, ids: np.ndarray, store: Store) -> Machines:
    """The machines of all classes, on every rank. Collective."""
    job, world, classes = subject.job, subject.job.world, subject.classes
    rows = _everywhere(world, features)
    tags = world.collect(subject.tags("train", ids))
    tags = tags if world.is_main else torch.empty(len(rows), classes, dtype=torch.int8)
    world.overwrite(tags)
    costs, mine = costs_of(job, settings), {first: kept for first, _, kept in subject.restored(store, KEPT)}
    done = {number for part in world.gather(list(mine)) for number in part}
    todo = [number for number in range(classes) if number not in done]
    store.figures |= {"classes": classes, "classes_restored": len(done)}
    turns, fits = math.ceil(len(todo) / world.size), steps(costs, settings.folds)
    for turn in range(turns):
        place = turn * world.size + world.rank
        one = None
        if place < len(todo):
            how = {"folds": settings.folds, "iterations": settings.iterations}
            seed = job.seed_for("svm", todo[place]) % 2**32
            one = OneAgainstAll(rows, tags[:, todo[place]].numpy() == 1, costs, **how, seed=seed)
        for number in range(fits):  # all ranks meet between any two
            job.safe_point("linear SVM", turn * fits + number, turns * fits)
            if one:
                one.step(number)
        if one:
            kept = {"weight": torch.from_numpy(one.weight)}
            mine[todo[place]] = {**kept, "cost": one.cost}
            store.keep(KEPT, todo[place], todo[place] + 1, kept, {"cost": one.cost})
    job.safe_point("linear SVM", turns * fits, turns * fits)
    weight = torch.zeros(classes, rows.shape[1] + 1, dtype=torch.float64, device=world.device)
    for number, kept in mine.items():
        weight[number] = kept["weight"].to(world.device)
    chosen = {number: cost for part in world.gather([(n, k["cost"]) for n, k in mine.items()]) for number, cost in part}
    return Machines(subject.sum(weight).cpu().numpy(), [chosen[number] for number in range(classes)])


def _judged(subject: Subject, settings: SVM, found: Machines, features: torch.Tensor, ids: np.ndarray) -> dict:
    job, world, names = subject.job, subject.job.world, subject.splits["train"].classes
    scores = [_unit(rows) @ found.weight[:, :-1].T + found.weight[:, -1] for rows in features.split(ROWS)]
    scores = world.collect(torch.from_numpy(np.concatenate([np.empty((0, subject.classes)), *scores])))
    truth = world.collect(subject.tags("test", ids))
    made: dict[str, Any] = {}
    if world.is_main:
        scores, truth = scores.numpy(), truth.numpy()
        made["precision"] = np.nan_to_num(by_class(truth, scores, settings.rule), nan=-1.0).tolist()
        made["right"] = float((scores.argmax(1) == truth.argmax(1)).mean()) if len(truth) else 0.0
    made = world.broadcast(made)
    precision = dict(zip(names, made["precision"], strict=True))
    unseen = [name for name, value in precision.items() if value < 0]
    if len(unseen) == len(names):
        fix = "give images of which some show the classes"
        raise InputError.of("eval_data", ..., "no image of its test split shows any class", fix)
    if unseen:
        some = ", ".join(unseen[:NAMED]) + (", ..." if len(unseen) > NAMED else "")
        job.notice(f"svm: {len(unseen)} of {len(names)} classes are on no image that judges, and not counted: {some}")
    counted = {name: value for name, value in precision.items() if value >= 0}
    top1 = {} if subject.splits["test"].labels is None else {"top1": percent(made["right"])}
    return {
        "map": percent(sum(counted.values()), len(counted)),
        **top1,
        "ap_by_class": {name: percent(value) for name, value in counted.items()},
        "cost_by_class": dict(zip(names, found.costs, strict=True)),
    }


def _everywhere(world: World, features: torch.Tensor) -> np.ndarray:
    """The features [n_r, d] of all ranks on every rank, of unit length: float64 [n, d]. Collective."""
    whole = world.collect(features)
    total = world.broadcast(len(whole) if world.is_main else 0)
    rows = np.empty((total, features.shape[1]))
    for start in range(0, total, ROWS):
        last = min(start + ROWS, total)
        part = whole[start:last] if world.is_main else torch.empty(last - start, features.shape[1])
        world.overwrite(part)
        rows[start:last] = _unit(part)
    return rows


def _unit(rows: torch.Tensor) -> np.ndarray:
    """float64, each divided by its length."""
    rows = rows.numpy().astype(np.float64)
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + SMALLEST)
