from itertools import pairwise

import numpy as np
import pytest
import torch

from launcher.kmeans import fit
from launcher.kmeans.assign import Assigner, Group
from launcher.kmeans.crew import Crew
from launcher.kmeans.empty import empty_and_donors, split_donors
from launcher.kmeans.features import Features
from launcher.kmeans.shards import FeatureShards, Ranks
from launcher.kmeans.space import survey_space


def partition_of(features, centroids):
    (n, _), k, alone = features.shape, len(centroids), Ranks(None, 0, 1)
    space = survey_space(Features(features), None, False, alone, FeatureShards(n, 0, n), 64, None)
    assigner = Assigner(space, [Group(k, 0, n, 0, n, 0, n, 0)], None, alone, exact=False)
    with Crew(features.device, lambda: assigner.scratch(64)) as crew:
        return assigner.assign(centroids, [0], crew, 64, None)[0]


def gaussian(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_clusters_that_nothing_is_near_to_are_filled():
    features = gaussian(400, 8)
    initial = torch.cat([features[:4], 100 + gaussian(12, 8, seed=1)])
    clusters = fit(features, 16, init=initial)
    assert clusters.counts.min() > 0


def test_empty_clusters_are_filled_even_after_the_last_iteration():
    features = gaussian(400, 8)
    initial = torch.cat([features[:1], 100 + gaussian(15, 8, seed=1)])
    clusters = fit(features, 16, init=initial, iterations=1)
    assert clusters.counts.min() > 0
    assert clusters.iterations == len(clusters.inertia) > 1


def test_splitting_does_not_raise_the_inertia():
    features = gaussian(2000, 64)
    initial = torch.cat([features[:4], 1000 + gaussian(12, 64, seed=1)])
    inertia = fit(features, 16, init=initial, iterations=20).inertia
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in pairwise(inertia))


def test_donors_are_distinct_and_move_apart_symmetrically():
    features = gaussian(300, 8)
    centroids = torch.cat([features[:6], torch.full((4, 8), 100.0)])
    partition = partition_of(features, centroids)
    means = torch.where((partition.counts > 0)[:, None], partition.means(), centroids.double())
    after = means.clone()
    assert split_donors(after, partition, np.random.default_rng(0)) == 4
    moved = (after != means).any(dim=1)
    donors = moved[:6].nonzero().flatten()
    assert moved[6:].all() and len(donors) == 4
    # Each pair of halves has its donor's old mean in the middle, and no donor serves twice.
    middles = (after[6:, None] + after[donors][None]) / 2
    matches = (middles - means[donors][None]).abs().amax(dim=2) < 1e-9
    assert (matches.sum(dim=0) == 1).all() and (matches.sum(dim=1) == 1).all()


def test_donors_differ_between_iterations_and_repeat_with_the_seed():
    features = gaussian(300, 8)
    partition = partition_of(features, torch.cat([features[:6], torch.full((2, 8), 100.0)]))

    def split(*seed):
        centroids = partition.means()
        split_donors(centroids, partition, np.random.default_rng(seed))
        return centroids

    assert torch.equal(split(0, 1), split(0, 1))
    assert not torch.equal(split(0, 1), split(0, 2))


def test_only_clusters_of_distinct_features_can_be_split():
    same, single, pair = torch.ones(5, 2), torch.tensor([[9.0, 0.0]]), torch.tensor([[0.0, 9.0], [0.0, 10.0]])
    centroids = torch.tensor([[1.0, 1.0], [9.0, 0.0], [0.0, 9.0], [50.0, 50.0]])
    empty, donors = empty_and_donors(partition_of(torch.cat([same, single, pair]), centroids))
    assert (empty.tolist(), donors.tolist()) == ([3], [2])


@pytest.mark.parametrize("seed", range(5))
def test_as_many_clusters_as_distinct_features(seed):
    features = gaussian(20, 4).repeat_interleave(torch.arange(1, 21), dim=0)
    clusters = fit(features, 20, iterations=40, seed=seed)
    assert clusters.counts.sum() == 210
    assert clusters.counts.min() > 0
    assert clusters.inertia[-1] == pytest.approx(0, abs=1e-6)


def test_as_many_clusters_as_features():
    clusters = fit(gaussian(50, 4), 50)
    assert clusters.counts.tolist() == [1] * 50
    assert clusters.converged


def test_equal_features_make_one_cluster_and_end_at_once():
    clusters = fit(torch.full((30, 4), 0.3), 5)
    assert sorted(clusters.counts.tolist()) == [0, 0, 0, 0, 30]
    assert clusters.converged and clusters.iterations == 1
    torch.testing.assert_close(clusters.centroids, torch.full((5, 4), 0.3))
