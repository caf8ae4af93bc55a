"""Which cluster gives half of its features to an empty one follows from the seed and the iteration, not from how often
the clustering was stopped."""

import pytest
import torch

from launcher.kmeans import fit

N, D, K, ITERATIONS = 400, 8, 24, 8


class Stop(Exception):
    pass


class Memory:
    """A slot whose content outlives a stop."""

    def __init__(self):
        self.state = None

    def load(self):
        return self.state

    def note(self, number, tensors, values):
        courses = [{key: list(v) if isinstance(v, list) else v for key, v in c.items()} for c in values["courses"]]
        self.state = number, {**{k: v.clone() for k, v in tensors.items()}, "courses": courses}


def features():
    return torch.randn(N, D, generator=torch.Generator().manual_seed(0))


def cluster(memory=None, stop_after=None):
    """From two clusters and many that nothing is near to: as many as there are donors are filled in each iteration."""
    x = features()
    start = torch.cat([x[:2], torch.full((K - 2, D), 1000.0) + torch.arange(K - 2.0)[:, None]])

    def safe_point(_stage, done, _total):
        if done == stop_after:
            raise Stop

    return fit(x, K, init=start, iterations=ITERATIONS, seed=5, resume=memory, safe_point=safe_point)


@pytest.mark.parametrize("stop_after", range(1, ITERATIONS))
def test_a_clustering_that_goes_on_splits_what_an_undisturbed_one_splits(stop_after):
    whole, memory = cluster(), Memory()
    assert whole.empty[:4] == [K - 4, K - 8, K - 16, 0]  # 2, 4 and 8 donors, and all that was left
    with pytest.raises(Stop):
        cluster(memory, stop_after)
    again = cluster(memory)
    assert torch.equal(again.centroids, whole.centroids)
    assert torch.equal(again.assignments, whole.assignments)
    assert again.inertia == whole.inertia
