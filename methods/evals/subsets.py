"""Which of the training images a protocol learns from: a share of each class, or those of a list."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from launcher.errors import InputError
from methods.data.dataset import ImageDataset
from methods.evals.subject import Subject

SEVERAL = -1  # in place of a position


class Chosen(NamedTuple):
    """Training images of this rank among the `total` of all ranks: features float32 [n, d] and labels int64 [n] in host
    memory, of the images `first` to `first` + n. digest: which were chosen; None where all of them were."""

    features: torch.Tensor
    labels: torch.Tensor
    first: int
    total: int
    digest: str | None


def chosen(subject: Subject, settings: Any) -> Chosen:
    """What a protocol learns from, as its settings say (`SomeImages`). Collective. Raises InputError where a list names
    what is no image, or where none of the images can be read."""
    among, world = positions(subject.splits["train"], settings, subject.job.seed_for), subject.job.world
    features, labels = subject.features("train", among)
    counts = world.gather(len(labels))
    if not sum(counts):
        field = "subset" if settings.subset else "share"
        reason = "none of the images that it chooses can be read"
        raise InputError.of(f"{settings.name}.{field}", getattr(settings, field), reason, "choose others")
    digest = None if among is None else hashlib.sha256(among.tobytes()).hexdigest()
    return Chosen(features, labels, sum(counts[: world.rank]), sum(counts), digest)


def positions(dataset: ImageDataset, settings: Any, seed_for: Callable[..., int]) -> np.ndarray | None:
    """int64 [n], ascending, in `dataset`; None for all. The same on every rank. Raises InputError, as `listed`."""
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
    that names none or several, and where nothing can be read."""
    try:
        text = Path(path).read_bytes().decode("utf-8", "backslashreplace")  # as names of files are shown
    except OSError as error:
        raise InputError.of(field, path, error.strerror or str(error), "give a text file of images' names") from None
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
