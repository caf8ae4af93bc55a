"""What whoever reads the scores should know of the labelled images: why there are none, and what no score can be."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from launcher.spec.runspec import RunSpec
from methods.data import build
from methods.data.dataset import ImageDataset, tags_of
from methods.data.folder import printable
from methods.evals.settings import EPOCH_STEPS, FEW_STEPS

NAMED = 3  # classes that stand for all


def remarks(spec: RunSpec, dataset: ImageDataset | None, pair: tuple[ImageDataset, ImageDataset] | None) -> list[str]:
    """Lines about `pair`, the (train, test) images of `during.labelled`; or, where that is None, why, if a person who
    gave these data could expect labels. dataset: what trains, where it is at hand."""
    if pair is None:
        reason = unlabelled(spec, dataset)
        return [f"k-NN is left out: {reason}"] if reason else []
    train, test = pair
    learnt, judged = (_images_of(each, len(train.classes)) for each in pair)
    lines = []
    unseen = (learnt == 0) & (judged > 0)
    if unseen.any() and train.labels is None:
        lines.append(
            f"{unseen.sum()} of {len(unseen)} classes have no image to learn from: {_some(train.classes, unseen)}"
        )
    elif unseen.any():
        images = int(judged[unseen].sum())
        lines.append(
            f"no score can be right about {images} of the {len(test)} images that judge: their classes "
            f"({_some(train.classes, unseen)}) have no image to learn from"
        )
    empty = (learnt == 0) & (judged == 0)
    if empty.any():
        lines.append(f"{empty.sum()} of {len(empty)} classes have no image at all: {_some(train.classes, empty)}")
    return lines


def unlabelled(spec: RunSpec, dataset: ImageDataset | None) -> str:
    """Why there is nothing to judge with, as `remarks` has it; empty where nothing looks as if there were labels."""
    given = spec.eval_data or spec.data
    train = dataset if spec.eval_data is None and dataset is not None else build(given, "train")
    if train.labels is None and tags_of(train) is not None:
        return "the images have several labels each, and it needs one"
    if train.labels is None:
        return getattr(train, "unlabelled", "") or ("eval_data has no labels" if spec.eval_data else "")
    test = build(given, "test")
    return "the images that judge have no labels" if len(test) else "no image is left to judge with"


def few_steps(name: str, steps: int, batch: int, images: int) -> str:
    """What is said of a classifier that learns in so few steps that its score says little; empty of others."""
    if steps >= FEW_STEPS:
        return ""
    smaller = f", or a smaller {name}.batch than {batch}" if batch > images // EPOCH_STEPS else ""
    return (
        f"{name}: {steps} steps are few to learn from {images} images; give more {name}.epochs{smaller}, or use "
        "protocol=logistic, which has no steps"
    )


def tied(name: str, reached: Mapping[float, float]) -> str:
    """What is said where more than half of the rates, {rate: top-1}, are equally good; empty elsewhere."""
    best = max(reached.values())
    equal = [rate for rate, value in reached.items() if value == best]
    if len(reached) < 2 or 2 * len(equal) <= len(reached):
        return ""
    return f"{name}: {len(equal)} of {len(reached)} rates have the same top-1, {best:g}: no rate is the best"


def _images_of(dataset: ImageDataset, classes: int) -> np.ndarray:
    """int64 [classes]: on how many images each is."""
    if dataset.labels is None:
        return (tags_of(dataset) == 1).sum(0)
    return np.bincount(dataset.labels, minlength=classes)


def _some(classes: Sequence[str], chosen: np.ndarray) -> str:
    names = [printable(os.fsencode(classes[position])) for position in np.flatnonzero(chosen)[: NAMED + 1]]
    return ", ".join([*names[:NAMED], "..."] if len(names) > NAMED else names)
