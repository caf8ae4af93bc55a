"""Stopped at any safe point and called again, a clustering gives the same bits and does no finished iteration twice."""

import pytest
import torch
import torch.distributed as dist

from launcher.kmeans import fit, fit_whitening, hierarchical
from launcher.kmeans import resume as resuming

N, D, K = 600, 6, 12
SIZES = (3, 8)
ROWS = 64  # in a chunk


class Stop(Exception):
    pass


class Memory:
    """Slots as a store has them; its content is what a stop leaves behind."""

    def __init__(self):
        self.states = {}
        self.loaded = {}

    def slot(self, name):
        return _Slot(self, name)


class _Slot:
    def __init__(self, memory, name):
        self._memory, self._name = memory, name

    def load(self):
        found = self._memory.states.get(self._name)
        self._memory.loaded[self._name] = found and found[0]
        return found

    def note(self, number, tensors, values):
        self._memory.states[self._name] = number, {**{k: v.clone() for k, v in tensors.items()}, **values}


class StopAt:
    """A safe point that stops at its `number`th call; None: never."""

    def __init__(self, number):
        self.number, self.calls = number, []

    def __call__(self, stage, done, total):
        self.calls.append((stage, done))
        if self.number is not None and len(self.calls) > self.number:
            raise Stop


def features():
    generator = torch.Generator().manual_seed(1)
    spread = torch.rand(N, D, generator=generator) ** 2
    return spread * torch.linspace(0.5, 2, D) + 0.3 * torch.randint(0, 3, (N, 1), generator=generator)


def mine():
    """This rank's rows: uneven, as broken images make them."""
    if not dist.is_initialized():
        return features()
    return features().split([370, 230])[dist.get_rank()]


def cluster(memory=None, safe_point=None):
    """Everything that DeeperCluster does with features; with a hierarchy whose fits converge at different moments."""
    slot = memory.slot if memory else None
    whitening = fit_whitening(mine(), 4, safe_point=safe_point, resume=slot and slot("whitening"))
    x = whitening.apply_(mine().clone(), safe_point=safe_point)
    hierarchy = hierarchical(x, SIZES, iterations=12, seed=3, safe_point=safe_point, resume=slot)
    return {
        "projection": whitening.projection,
        "centroids": hierarchy.super_clusters.centroids,
        "assignments": hierarchy.super_clusters.assignments,
        "counts": hierarchy.super_clusters.counts,
        "sub_centroids": hierarchy.sub_centroids,
        "sub_assignments": hierarchy.sub_assignments,
        "sub_counts": hierarchy.sub_counts,
    }


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def stopped_at(number):
    """(result, stages of the second life, what it found): a first life that stops at safe point `number`, a second."""
    memory, first = Memory(), StopAt(number)
    with pytest.raises(Stop):
        cluster(memory, first)
    again = StopAt(None)
    return cluster(memory, again), again.calls, memory.loaded


@pytest.fixture
def fine(monkeypatch):
    """Safe points at every chunk, and small chunks."""
    monkeypatch.setitem(resuming.FLOPS, "cpu", 1.0)


def in_all_stops():
    """Stop at every safe point in turn; returns how many there are."""
    whole, count = cluster(), StopAt(None)
    assert same(cluster(Memory(), count), whole)
    for number in range(len(count.calls)):
        result, _, _ = stopped_at(number)
        assert same(result, whole), f"stopped at {count.calls[number]}"
    return len(count.calls)


def test_stopped_at_any_safe_point_it_ends_with_the_same_bits(fine):
    assert in_all_stops() > 30


def test_finished_iterations_are_not_done_again(fine):
    count = StopAt(None)
    cluster(Memory(), count)
    # After the third iteration of the sub-clusterings.
    number = count.calls.index(("sub-clusters", 3))
    _, calls, loaded = stopped_at(number)
    assert loaded["whitening"] == 1 and loaded["sub-clusters"] == 4
    assert min(done for stage, done in calls if stage == "sub-clusters") == 3
    # Of what had ended, one pass over the features is left, which tells the assignments.
    ended = [d for s, d in calls if s == "super-clusters"]
    assert len(set(ended) - {0}) <= 1  # 0: while the features are surveyed
    assert ("whitening", 0) not in calls


def test_safe_points_come_within_a_pass(fine):
    calls = StopAt(None)
    fit(features(), K, iterations=2, chunk=ROWS, safe_point=calls)
    chunks = -(-N // ROWS)
    # The range, the mean, then passes 0 to 2; between two chunks, and after each iteration.
    assert len(calls.calls) == 5 * (chunks - 1) + 2


def test_a_state_of_another_shape_is_left_alone():
    memory = Memory()
    memory.slot("x").note(3, {"centroids": torch.zeros(K + 1, D)}, {"inertia": [1.0], "splits": 0})
    given = fit(features(), K, resume=memory.slot("x"))
    assert torch.equal(given.centroids, fit(features(), K).centroids)


def stop_together(world):
    """What each of two ranks does."""
    resuming.FLOPS["cpu"] = 1.0
    return in_all_stops()


def test_two_ranks_that_stop_together_end_with_the_same_bits(ranks):
    counts = ranks(2, stop_together)
    assert counts[0] == counts[1] > 30
