"""How many edges of the graph of nearest neighbours join images of one class (Caron, PhD thesis 2021, Table 3.4)."""

from typing import Any

import numpy as np
import torch

from launcher.errors import InputError
from launcher.runtime.store import StoreSlot
from methods.evals.graph.nearest import Nearest
from methods.evals.graph.picture import picture
from methods.evals.graph.spec import NeighbourGraph
from methods.evals.subject import Subject, percent

WORK = 5 * 10**11  # multiply-adds between two safe points
QUERIES = 1024  # images asked about at once, at most
SHOWN = 20  # neighbours that a picture has room for


def score(subject: Subject, settings: NeighbourGraph) -> dict[str, Any]:
    """`within`, the percentage of the edges, one from each image to each of its nearest, that stay within a class;
    `chance`, that of edges between images drawn at random. With `pictures` so many images, drawn at random, stand in
    graph/neighbours.png of the evaluation, each with its nearest.

    Collective; raises Stopped, and InputError where there are no two images.
    """
    features, labels = subject.features(settings.split)
    job, nearest = subject.job, Nearest(subject, features, settings.neighbours)
    if nearest.total < 2:
        given = (job.spec.eval_data or job.spec.data).name
        raise InputError.of("eval_data", given, "a graph takes two images", "give labelled images")
    if nearest.k < settings.neighbours:
        job.notice(f"graph: there are {nearest.total} images, and each is joined to the {nearest.k} others")
    labels = job.world.collect(labels)
    with subject.keeping("graph", vars(settings), needed=1024) as store:
        within = _within(subject, nearest, labels, store.slot("graph"), _at_once(nearest.total, features.shape[1]))
    if settings.pictures:
        _draw(subject, settings, nearest)
    found = None
    if job.world.is_main:
        found = {"within": percent(within, nearest.total * nearest.k), "chance": percent(chance(labels))}
    return job.world.broadcast(found)


def chance(labels: torch.Tensor) -> float:
    """Probability that two different images, drawn at random, are of one class. labels: int64 [n]."""
    members = labels.bincount().double()
    return float((members * (members - 1)).sum() / (len(labels) * (len(labels) - 1)))


def _within(subject: Subject, nearest: Nearest, labels: torch.Tensor | None, slot: StoreSlot, at_once: int) -> int:
    """The number of edges within a class, on rank 0. labels: of all images, there."""
    job, here = subject.job, subject.job.world.is_main
    kept = slot.load() if here else None
    within = int(kept[1]["within"]) if kept else 0
    for first in range(job.world.broadcast(kept[0] if kept else 0), nearest.total, at_once):
        job.safe_point("graph of nearest neighbours", first, nearest.total)
        positions = torch.arange(first, min(first + at_once, nearest.total))
        found = nearest.of(positions)
        if here:
            within += int((labels[found] == labels[positions, None]).sum())
            slot.note(int(positions[-1]) + 1, {"within": torch.tensor(within)}, {})
    return within


def _draw(subject: Subject, settings: NeighbourGraph, nearest: Nearest) -> None:
    """Collective."""
    job = subject.job
    rng = np.random.default_rng(job.seed_for("graph"))
    chosen = np.sort(rng.choice(nearest.total, min(settings.pictures, nearest.total), replace=False))
    found = nearest.of(torch.from_numpy(chosen))
    numbers = job.world.collect(torch.from_numpy(subject.numbers(settings.split)))
    if job.world.is_main:
        folder = job.run.path / "graph"
        folder.mkdir(exist_ok=True)
        rows = zip(numbers[chosen].tolist(), numbers[found[:, :SHOWN]].numpy(), strict=True)
        picture(subject.splits[settings.split], list(rows)).save(folder / "neighbours.png")


def _at_once(total: int, width: int) -> int:
    """Images asked about at once: as many on any number of ranks, so that one may go on where another stopped."""
    return max(1, min(QUERIES, WORK // (total * width)))
