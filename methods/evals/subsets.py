"""Which of the training images a protocol learns from: a share of each class, or those of a list."""

import hashlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from launcher.errors import InputError
from launcher.run import files, waiting
from methods.data.dataset import ImageDataset
from methods.evals.subject import Subject

HELD_OUT = 0.2  # share of each class; Sariyildiz et al. 2020 do not say theirs
SEVERAL = -1  # in place of a position
LIST_BYTES = 64 * 2**20  # of a list, at most; the paths of all training images of ImageNet have 47 MB


class Chosen(NamedTuple):
    """Training images of this rank among the `total` of all ranks: features float32 [n, d] and labels int64 [n] in host
    memory, of the images `first` to `first` + n. digest: which were chosen; None where all of them were."""

    features: torch.Tensor
    labels: torch.Tensor
    first: int
    total: int
    digest: str | None


def chosen(subject: Subject, settings: Any) -> Chosen:
    """What a protocol learns from, as its settings say (`SomeImages`). Collective. Raises InputError, on all ranks, as
    `listed`, and where none of the images can be read."""
    return _of(subject, settings, agreed(subject, settings))


def parted(subject: Subject, settings: Any) -> tuple[Chosen, Chosen]:
    """(most of what a protocol learns from, a share HELD_OUT of each class, by which to choose among settings), drawn
    by the seed. Collective. Raises as `chosen`, and where no image is left to choose by."""
    labels, job = subject.splits["train"].labels, subject.job
    among = agreed(subject, settings)
    among = np.arange(len(labels)) if among is None else among
    kept = share_of_each(labels[among], 1 - HELD_OUT, lambda label: job.seed_for("held out", label))
    held_out = np.delete(among, kept)
    if not len(held_out):
        reason = f"of no class there are images enough to hold {HELD_OUT:.0%} out, by which to choose"
        raise InputError.of(f"{settings.name}.trials", settings.trials, reason, "leave it out, or learn from more")
    return _of(subject, settings, among[kept]), _of(subject, settings, held_out)


def _of(subject: Subject, settings: Any, among: np.ndarray | None) -> Chosen:
    features, labels = subject.features("train", among)
    world = subject.job.world
    counts = world.gather(len(labels))
    if not sum(counts):
        field = "subset" if settings.subset else "share"
        reason = "none of the images that it chooses can be read"
        raise InputError.of(f"{settings.name}.{field}", getattr(settings, field), reason, "choose others")
    return Chosen(features, labels, sum(counts[: world.rank]), sum(counts), digest_of(among))


def digest_of(among: np.ndarray | None) -> str | None:
    """Of `positions`; None for all."""
    return None if among is None else hashlib.sha256(among.tobytes()).hexdigest()


def agreed(subject: Subject, settings: Any) -> np.ndarray | None:
    """`positions` in the training images. Where there is a list rank 0 alone reads it, and all raise its InputError."""
    dataset, job = subject.splits["train"], subject.job
    if not settings.subset:
        return positions(dataset, settings, job.seed_for)
    told = None
    if job.world.is_main:
        try:
            told = positions(dataset, settings, job.seed_for).tolist(), None
        except InputError as error:
            told = None, (error.field, error.value, error.reason, error.fix)
    found, refused = job.world.broadcast(told)
    if refused:
        raise InputError.of(*refused)
    return np.array(found, np.int64)


def positions(dataset: ImageDataset, settings: Any, seed_for: Callable[..., int]) -> np.ndarray | None:
    """int64 [n], ascending, in `dataset`; None for all. The same whoever asks. Raises as `listed`."""
    if settings.subset:
        return listed(dataset, settings.subset, f"{settings.name}.subset")
    if settings.share < 1:
        return share_of_each(dataset.labels, settings.share, lambda label: seed_for("subset", label))
    return None


def share_of_each(labels: np.ndarray, share: float, seed_of: Callable[[int], int]) -> np.ndarray:
    """Positions in `labels` (int64 [N]), ascending, of a `share` of each label, rounded, at least one. seed_of: label
    -> the seed that chooses among its positions. What a smaller share has, a larger one has too."""
    order = np.argsort(labels, kind="stable")
    found, starts = np.unique(labels[order], return_index=True)
    parts = []
    for label, places in zip(found.tolist(), np.split(order, starts[1:]), strict=True):
        count = max(1, int(share * len(places) + 0.5))
        parts.append(np.random.default_rng(seed_of(label)).permutation(places)[:count])
    return np.sort(np.concatenate(parts))


def listed(dataset: ImageDataset, path: str, field: str) -> np.ndarray:
    """Positions in `dataset`, ascending, of the images that the text file at `path` names, one a line: as `name_of`
    does, or by the last part of that, as the lists of SimCLR do. Raises InputError, about `field`, with the first line
    that names none or several, and where there is no such file, or one beyond LIST_BYTES; Unreadable where it could not
    be read for as long as that is waited for."""
    try:
        content = waiting.patiently(lambda: files.read(os.path.realpath(path), LIST_BYTES))
    except (OSError, files.NotOurs) as error:
        reason = getattr(error, "strerror", None) or f"it cannot be read ({error})"
        raise InputError.of(field, path, reason, "give a text file of images' names") from None
    text = content.decode("utf-8", "backslashreplace")  # as names of files are shown
    wanted = {name: number for number, line in enumerate(text.split("\n"), 1) if (name := line.strip())}
    if not wanted:
        raise InputError.of(field, path, "it names no image", "give the name of an image a line")
    places: dict[str, int] = {}
    for place in range(len(dataset)):
        for name in _called(dataset.name_of(place)) & wanted.keys():
            places[name] = SEVERAL if name in places else place
    for name, number in wanted.items():
        if places.get(name, SEVERAL) == SEVERAL:
            reason = f"line {number}: {'several images are' if name in places else 'no image is'} called {name}"
            raise InputError.of(field, path, reason, f"give names such as {dataset.name_of(0)}")
    return np.unique(np.fromiter(places.values(), np.int64))


def _called(name: str) -> set[str]:
    """An image's name, and its last part: behind the folders, and behind the tar that it is in."""
    last = name.rpartition("/")[2]
    return {name, last, last.rpartition(": ")[2]}
