"""Lloyd's k-means, of all groups of features at once (thesis 3.3.1, "Distributed k-means")."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from launcher.kmeans.assign import Assigner, FeaturePartition, Group
from launcher.kmeans.crew import Crew
from launcher.kmeans.empty import empty_and_donors, split_donors
from launcher.kmeans.init import gathered, initial_centroids
from launcher.kmeans.nearest import blocks
from launcher.kmeans.resume import SafePoint, StateSlot, loaded
from launcher.kmeans.shards import Ranks
from launcher.kmeans.space import Space

# Iterations added at the end while a cluster is empty and another can be split: each may double the non-empty ones.
REPAIRS = 10
EMPTY = ("split", "keep", "resample")


class Iteration(NamedTuple):
    """What an iteration came to, over all ranks and groups: its number from 1, the sum of the weighted squared
    distances to the centroids, the share of features that moved, how many clusters are empty, and the share of the
    comparisons of features with centroids that bounds spared."""

    number: int
    inertia: float
    reassigned: float
    empty: int
    skipped: float


Progress = Callable[[Iteration], None]


class Options(NamedTuple):
    """What is the same for all groups; see `fit`."""

    iterations: int
    init: str | torch.Tensor
    empty: str
    tolerance: float
    exact: bool
    chunk: int
    workers: int
    skip: bool


@dataclass(eq=False)
class Course:
    """How one group's clustering goes. splits: clusters that were given a new place by the last M-step; None before the
    first one."""

    inertia: list[float] = field(default_factory=list)
    reassigned: list[float] = field(default_factory=list)
    empty: list[int] = field(default_factory=list)
    skipped: list[float] = field(default_factory=list)
    splits: int | None = None
    ended: bool = False
    converged: bool = False

    def look(self, partition: FeaturePartition, group: Group, centroids: torch.Tensor, options: Options) -> None:
        """Take down what the M-step before this partition came to, and whether that was the last.

        centroids: float32 [k, d], as they are compared.
        """
        if self.splits is not None:
            self.inertia.append(partition.inertia(centroids))
            self.reassigned.append(partition.changed / group.total)
            self.empty.append(int((partition.counts == 0).sum()))
            self.skipped.append(1 - partition.compared / (group.total * group.k))
            self.converged = self.splits == 0 and (partition.changed == 0 or self._slow(options.tolerance))
        over = len(self.inertia) - options.iterations
        repair = options.empty != "keep" and 0 <= over < REPAIRS and all(map(len, empty_and_donors(partition)))
        self.ended = self.converged or not (over < 0 or repair)

    def _slow(self, tolerance: float) -> bool:
        return len(self.inertia) > 1 and self.inertia[-2] - self.inertia[-1] < tolerance * self.inertia[-2]


class LloydResult(NamedTuple):
    """centroids: float32 [K, d] of all groups; labels: int64 [n], which of these; the rest by group."""

    centroids: torch.Tensor
    labels: torch.Tensor
    counts: list[torch.Tensor]
    courses: list[Course]
    bytes_per_iteration: int


def lloyd(
    space: Space,
    groups: Sequence[Group],
    order: torch.Tensor | None,
    options: Options,
    ranks: Ranks,
    safe_point: SafePoint | None,
    resume: StateSlot | None,
    progress: Progress | None,
) -> LloydResult:
    """Cluster every group of features; all of them move forward together, one all-reduce an iteration.

    A group that has ended is left alone. What comes out for a group does not depend on the others.
    """
    courses, device = [Course() for _ in groups], space.features.device
    done = 0

    def point() -> None:
        if safe_point:
            safe_point("k-means", done, max(options.iterations, done))

    shape = (sum(group.k for group in groups), space.features.d)
    found = loaded(resume, {"centroids": shape}, lambda values: _fits(values, len(groups)), ranks, device)
    if found:
        centroids = found[0]["centroids"]
        courses = [Course(**state) for state in found[1]["courses"]]
    else:
        centroids = initial_centroids(space, groups, order, options.init, ranks, point)
        if space.spherical:
            centroids = torch.nn.functional.normalize(centroids, dim=1)
    done = max(len(course.inertia) for course in courses)

    assigner = Assigner(space, groups, order, ranks, options.exact, options.workers, options.skip)
    counts: list[torch.Tensor] = [torch.empty(0)] * len(groups)
    busiest = 0
    # Of groups that had ended, all that is missing are the assignments.
    active = list(range(len(groups)))
    with Crew(device, lambda: assigner.scratch(options.chunk)) as crew:
        while active:
            partitions = assigner.assign(centroids, active, crew, options.chunk, point)
            busiest = max(busiest, assigner.bytes)
            moving = {}
            for g, partition in zip(active, partitions, strict=True):
                group, course = groups[g], courses[g]
                counts[g] = partition.counts.long()
                if not course.ended:
                    course.look(partition, group, space.place(centroids[group.centroids]), options)
                if not course.ended:
                    moving[g] = partition
            done = max(len(course.inertia) for course in courses)
            if moving:
                centroids = centroids.clone()
            for g, partition in moving.items():
                own = centroids[groups[g].centroids]
                move(own, partition, space)
                number = len(courses[g].inertia) + 1
                generator = np.random.default_rng([groups[g].seed, number])
                courses[g].splits = fill(own, partition, generator, options.empty, space, groups[g], order, ranks)
            if resume and ranks.rank == 0:
                resume.note(done + 1, {"centroids": centroids}, {"courses": [vars(course) for course in courses]})
            if done:
                if progress:
                    progress(_summary(done, courses, groups))
                point()
            active = list(moving)
    return LloydResult(centroids, assigner.labels, counts, courses, busiest)


def move(centroids: torch.Tensor, partition: FeaturePartition, space: Space) -> None:
    """The M-step, in place: centroids float32 [k, d] move to the means of their clusters, on the sphere if need be.

    One without features, or whose features cancel out on the sphere, stays.
    """
    for rows in blocks(*centroids.shape):
        means = partition.means(rows)
        stays = partition.mass[rows] == 0
        if space.spherical:
            norms = means.norm(dim=1)
            stays |= norms < 1e-9
            means /= torch.where(stays, 1.0, norms)[:, None]
        else:
            means += space.offset()
        centroids[rows] = torch.where(stays[:, None], centroids[rows], means.float())


def fill(
    centroids: torch.Tensor,
    partition: FeaturePartition,
    generator: np.random.Generator,
    empty: str,
    space: Space,
    group: Group,
    order: torch.Tensor | None,
    ranks: Ranks,
) -> int:
    """Give empty clusters another place, in place; returns how many got one."""
    if empty == "keep":
        return 0
    if empty == "split":
        places = split_donors(centroids, partition, generator)
    else:
        vacant, donors = empty_and_donors(partition)
        places = len(vacant) if len(donors) else 0
        if places:
            chosen = generator.choice(group.total, size=places, replace=False)
            index = torch.from_numpy(vacant).to(centroids.device)
            centroids[index] = gathered(space, [group], order, [chosen], ranks)
    if places and space.spherical:
        centroids.copy_(torch.nn.functional.normalize(centroids, dim=1))
    return places


def _fits(values: dict[str, Any], groups: int) -> bool:
    """Whether a kept state tells of that many groups."""
    courses = values.get("courses")
    return (
        isinstance(courses, list) and len(courses) == groups and all(c.keys() == vars(Course()).keys() for c in courses)
    )


def _summary(number: int, courses: Sequence[Course], groups: Sequence[Group]) -> Iteration:
    """Of all groups; those that have ended count with their last iteration."""
    known = [(course, group) for course, group in zip(courses, groups, strict=True) if course.inertia]
    going = [(course, group) for course, group in known if len(course.inertia) == number]
    moved = sum(course.reassigned[-1] * group.total for course, group in going)
    spared = sum(course.skipped[-1] * group.total * group.k for course, group in going)
    return Iteration(
        number,
        sum(course.inertia[-1] for course, _ in known),
        moved / sum(group.total for group in groups),
        sum(course.empty[-1] for course, _ in known),
        spared / max(1, sum(group.total * group.k for _, group in going)),
    )
