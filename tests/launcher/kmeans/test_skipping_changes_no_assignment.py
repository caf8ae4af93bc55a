"""200 drawn problems, with and without bounds, on one to four ranks: the same assignments after every iteration.

The ranks are threads, each with labels of its own to remember; what travels between them is added up as a process group
would.
"""

import contextlib
import math
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.distributed as dist

from launcher.kmeans import fit, hierarchical, skipping
from launcher.kmeans.assign import Assigner
from launcher.kmeans.nearest import Tiles
from launcher.kmeans.shards import Ranks
from launcher.kmeans.skipping import line

PROBLEMS = 200
SIZES = (1, 2, 1, 3, 1, 4, 1)  # ranks
KINDS = ("blobs", "noise", "duplicates", "equal", "whole numbers", "far", "k near n", "empty", "sphere", "small")
CLUSTERED = ("blobs", "far", "sphere")


def drawn(number):
    """(kind, features [N, d], what `fit` is told)."""
    kind, rng = KINDS[number % len(KINDS)], np.random.default_rng(number)
    n, d, k = int(rng.integers(50, 180)), int(rng.integers(2, 20)), int(rng.integers(3, 24))
    x = rng.standard_normal((n, d))
    how = {"k": k, "init": "random", "metric": "l2", "empty": str(rng.choice(["split", "keep", "resample"]))}
    if kind in CLUSTERED:
        x = 6 * rng.standard_normal((k, d))[rng.integers(k, size=n)] + 0.3 * x
        x = x + 300 if kind == "far" else x
    if kind == "duplicates":
        x = x[rng.integers(n // 6, size=n)]
    elif kind == "equal":
        x = np.ones((n, d))
    elif kind == "whole numbers":
        x = rng.integers(0, 3, (n, d)).astype(float)
    elif kind == "k near n":
        how["k"] = n - int(rng.integers(4))
    elif kind == "empty":
        how["init"] = np.concatenate([x[:2], 100 + rng.standard_normal((k - 2, d))])
    elif kind == "sphere":
        how["metric"] = "cosine"
        x[:2] = 0.0  # without a direction
    elif kind == "small":
        x *= 1e-3 * 10.0 ** rng.integers(-3, 1, (n, 1))
    if not isinstance(how["init"], str):
        how["init"] = torch.from_numpy(how["init"]).float()
    weights = torch.from_numpy(rng.random(n)) if rng.random() < 0.2 else None
    how |= {"iterations": 6, "seed": number, "chunk": int(rng.integers(20, 90)), "deterministic": True}
    return kind, torch.from_numpy(x).float(), how, weights


class Stop(Exception):
    pass


class Slot:
    """What a stop leaves behind."""

    state = None

    def load(self):
        return self.state

    def note(self, number, tensors, values):
        self.state = number, {**{name: tensor.clone() for name, tensor in tensors.items()}, **values}


class Meeting:
    """What threads that pose as ranks share."""

    def __init__(self, world_size):
        self.barrier, self.parts = threading.Barrier(world_size, timeout=60), [None] * world_size
        self.slot = Slot()


class ThreadRanks(Ranks):
    """One of them; `group` is their meeting."""

    def _reduce(self, tensor, operation):
        if self.world_size == 1:
            return tensor
        meeting = self.group
        meeting.parts[self.rank] = tensor
        meeting.barrier.wait()
        parts = torch.stack(meeting.parts)
        total = parts.sum(dim=0, dtype=tensor.dtype) if operation == dist.ReduceOp.SUM else parts.amax(dim=0)
        meeting.barrier.wait()
        return total


class Labels(threading.local):
    """After each E-step of this thread."""

    def __init__(self):
        self.seen = []


@pytest.fixture
def labels(monkeypatch):
    """What is seen of the labels; with bounds on the smallest blocks."""
    labels, assign = Labels(), Assigner.assign

    def noted(self, *arguments):
        result = assign(self, *arguments)
        labels.seen.append(self.labels.clone())
        return result

    monkeypatch.setattr(Assigner, "assign", noted)
    monkeypatch.setattr(skipping, "PAIRS", 0)
    monkeypatch.setattr(skipping, "ROOM", 1e-9)
    monkeypatch.setattr(skipping, "BLOCK", {"cpu": 8})
    return labels


def compare(number, ranks, labels):
    """Whether bounds changed nothing in problem `number` on this rank, and the shares that were skipped."""
    _, x, how, weights = drawn(number)
    rng = np.random.default_rng([number, 1])
    ends = np.sort(rng.integers(0, len(x) + 1, ranks.world_size - 1)).tolist()
    rows = slice([0, *ends][ranks.rank], [*ends, len(x)][ranks.rank])
    given = {**how, "weights": None if weights is None else weights[rows], "group": ranks}

    labels.seen = []
    plain, without = fit(x[rows], **given, skip=False), list(labels.seen)
    slot, meeting = None, ranks.group
    if rng.random() < 0.3:
        slot, stop = meeting.slot, int(rng.integers(1, 6))

        def safe_point(stage, done, total):
            if done >= stop:
                raise Stop

        with contextlib.suppress(Stop):
            fit(x[rows], **given, safe_point=safe_point, resume=slot)
    meeting.barrier.wait()
    labels.seen, first = [], slot.state[0] if slot else 0
    meeting.barrier.wait()
    found = fit(x[rows], **given, resume=slot)
    # A second life begins later, and may do one more iteration, which changes nothing.
    expected = [without[min(first + number, len(without) - 1)] for number in range(len(labels.seen))]
    same = first + len(labels.seen) >= len(without) and all(map(torch.equal, expected, labels.seen))
    return same and torch.equal(plain.centroids, found.centroids) and not max(plain.skipped), max(found.skipped)


def test_assignments_are_those_without_bounds_after_every_iteration(labels, monkeypatch):
    of = Ranks.of
    monkeypatch.setattr(Ranks, "of", lambda group: group if isinstance(group, ThreadRanks) else of(group))
    wrong, really = [], Counter()
    with ThreadPoolExecutor(max(SIZES)) as pool:
        for number in range(PROBLEMS):
            kind, size = KINDS[number % len(KINDS)], SIZES[number % len(SIZES)]
            monkeypatch.setattr(skipping, "WORTH", 0.3 if number % 3 == 0 else 0.0)
            meeting = Meeting(size)
            ranks = [ThreadRanks(meeting, rank, size) for rank in range(size)]
            answers = list(pool.map(compare, [number] * size, ranks, [labels] * size))
            wrong += [] if all(same for same, _ in answers) else [f"{number}: {kind}, {size} ranks"]
            really[kind] += answers[0][1] > 0.3
    assert not wrong
    assert all(really[kind] > 10 for kind in CLUSTERED), really
    assert not really["equal"]  # where all are equally near, nothing can be left out


def blobs(n=2000, d=16, k=40):
    generator = torch.Generator().manual_seed(0)
    return 4 * torch.randn(k, d, generator=generator)[torch.arange(n) % k] + torch.randn(n, d, generator=generator)


def test_sub_clusterings_skip_as_well(labels, monkeypatch):
    monkeypatch.setattr(skipping, "WORTH", 0.1)
    told = []
    with_bounds = hierarchical(blobs(), (4, 20), progress=told.append)
    without = hierarchical(blobs(), (4, 20), skip=False)
    assert torch.equal(with_bounds.sub_assignments, without.sub_assignments)
    assert torch.equal(with_bounds.sub_centroids, without.sub_centroids)
    assert max(report.skipped for report in told[-5:]) > 0.1


def test_half_precision_skips_by_its_own_centroids(labels, monkeypatch):
    monkeypatch.setattr("launcher.kmeans.assign.multiplies_bfloat16", lambda device: True)
    for metric in ("l2", "cosine"):
        found = [fit(blobs().bfloat16(), 40, metric=metric, deterministic=True, skip=skip) for skip in (True, False)]
        assert torch.equal(found[0].assignments, found[1].assignments)
        assert max(found[0].skipped) > 0.3


def test_bounds_that_spare_nothing_are_given_up_and_tried_seldom(labels, monkeypatch):
    tried = []
    spared = skipping.Skipping._spared
    monkeypatch.setattr(skipping.Skipping, "_spared", lambda *given: tried.append(len(labels.seen)) or spared(*given))
    monkeypatch.setattr(skipping, "WORTH", 1.1)
    noise = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0))
    found = fit(noise, 60, iterations=30)
    assert max(found.skipped) == 0 and found.iterations > 15
    assert 3 <= len(tried) < 12
    gaps = np.diff(tried)
    assert gaps[-1] > gaps[0] == 1


@pytest.mark.parametrize("exponent", [-23, -18])
def test_squares_that_float32_hardly_holds_exclude_nothing_wrongly(labels, monkeypatch, exponent):
    monkeypatch.setattr(skipping, "WORTH", 0.0)
    for metric in ("l2", "cosine"):
        x = blobs(400, 8, 20) * 10.0**exponent
        found = [fit(x, 20, metric=metric, deterministic=True, skip=skip) for skip in (True, False)]
        assert torch.equal(found[0].assignments, found[1].assignments)


def test_a_block_may_be_larger_than_the_rows_that_are_scored_at_a_time(labels, monkeypatch):
    """As with k = 3000 and d = 40: bounds of blocks of 256 rows would take too much memory."""
    monkeypatch.setattr(skipping, "BLOCK", {"cpu": 64})
    monkeypatch.setattr("launcher.kmeans.assign.piece_rows", lambda k: 24)
    found = [fit(blobs(), 40, deterministic=True, skip=skip) for skip in (True, False)]
    assert torch.equal(found[0].assignments, found[1].assignments)
    assert max(found[0].skipped) > 0.3


def test_small_products_are_left_alone():
    assert max(fit(blobs(), 40).skipped) == 0


def test_near_centroids_are_neighbours_on_the_line():
    points = torch.arange(500.0)[torch.randperm(500, generator=torch.Generator().manual_seed(0))]
    place = line(torch.stack([points, points], dim=1))
    assert sorted(place.tolist()) == list(range(500))
    along = points[place.argsort()]
    steps = (along[1:] - along[:-1]).abs()
    assert steps.mean() < 500 / 3 / 5  # a shuffled line's steps are a third of it


def test_among_all_it_finds_what_it_finds_without_bounds():
    x, c = blobs(), blobs(200)
    tiles = Tiles(c, False, False, False)
    wanted = torch.ones(math.ceil(2000 / 64), 200, dtype=torch.bool)
    wanted[3, 5:] = False
    nearest, top, excess = tiles.among(x, wanted, 64, torch.full((2000,), -torch.inf), None, None)
    scores = x @ c.T - 0.5 * c.square().sum(dim=1)
    scores[192:256, 5:] = -torch.inf
    assert torch.equal(nearest, scores.argmax(dim=1))
    torch.testing.assert_close(top, scores.amax(dim=1))
    torch.testing.assert_close(excess[0], (scores[:64] - top[:64, None]).amax(dim=0), atol=1e-4, rtol=0)
    assert excess[3, 5:].max() == -torch.inf
