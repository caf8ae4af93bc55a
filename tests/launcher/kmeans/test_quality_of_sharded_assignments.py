"""Sizes, entropy and NMI of assignments that ranks hold in parts are those of the whole."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import normalized_mutual_info_score

from launcher.kmeans import cluster_entropy, cluster_sizes, nmi, sharded_nmi, size_histogram

K, CLASSES = 40, 7
SHARDS = {1: [900], 2: [300, 600], 3: [0, 399, 501]}  # uneven, and a rank may have none


def labellings():
    """Assignments that know something of the labels, and a cluster without members."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, 900)
    assignments = np.where(rng.random(900) < 0.5, labels * 5 + rng.integers(0, 5, 900), rng.integers(0, 35, 900))
    return torch.from_numpy(assignments), torch.from_numpy(labels)


def entropies(assignments, labels):
    """By scipy, from the table of k x classes."""
    table = np.zeros((K, CLASSES))
    np.add.at(table, (assignments.numpy(), labels.numpy()), 1)
    return [scipy_entropy(row) if row.sum() else math.nan for row in table]


def test_entropy_is_that_of_the_labels_within_each_cluster():
    found = cluster_entropy(*labellings(), K)
    np.testing.assert_allclose(found, entropies(*labellings()), rtol=1e-12, atol=1e-12)
    assert found[35:].isnan().all() and not found[:35].isnan().any()


def test_a_cluster_of_one_class_has_no_entropy_and_an_even_one_all():
    assignments, labels = torch.tensor([0, 0, 1, 1, 1, 1]), torch.tensor([3, 3, 0, 1, 2, 3])
    assert cluster_entropy(assignments, labels, 2).tolist() == pytest.approx([0.0, math.log(4)])


def test_samples_without_a_label_are_left_out():
    assignments, labels = torch.tensor([0, 0, 0, -1]), torch.tensor([1, 2, -1, 1])
    assert cluster_entropy(assignments, labels, 1).tolist() == pytest.approx([math.log(2)])
    assert cluster_sizes(assignments, 2).tolist() == [3, 0]


def test_nmi_is_scikit_learns():
    a, b = labellings()
    wanted = normalized_mutual_info_score(a, b, average_method="geometric")
    assert sharded_nmi(a, b) == pytest.approx(wanted, rel=1e-10)
    assert sharded_nmi(a, b) == pytest.approx(nmi(a, b), rel=1e-10)
    assert sharded_nmi(a, a) == 1.0
    assert sharded_nmi(torch.zeros(9), torch.arange(9)) == 0.0
    assert sharded_nmi(torch.zeros(9), torch.ones(9)) == 1.0


def test_the_histogram_counts_every_cluster_once():
    counts = torch.tensor([0, 1, 1, 2, 3, 4, 7, 8, 100])
    ranges = size_histogram(counts)
    assert [(r.least, r.most, r.clusters) for r in ranges[:5]] == [
        (0, 0, 1),
        (1, 1, 2),
        (2, 3, 2),
        (4, 7, 2),
        (8, 15, 1),
    ]
    assert ranges[-1].least <= 100 <= ranges[-1].most
    assert sum(r.clusters for r in ranges) == len(counts)
    assert size_histogram(torch.zeros(2, 3, dtype=torch.int64)) == [type(ranges[0])(0, 0, 6)]


@pytest.mark.parametrize(
    ("assignments", "labels", "reason"),
    [
        ([0, 1], [0], "different lengths on rank 0"),
        ([-1], [0], "nothing to compare"),
        ([K], [0], f"cluster {K} is none of 0 to {K - 1}"),
    ],
)
def test_what_cannot_be_compared_is_refused(assignments, labels, reason):
    with pytest.raises(ValueError, match=reason):
        cluster_entropy(torch.tensor(assignments), torch.tensor(labels), K)


def in_a_world(world):
    a, b = (labels.split(SHARDS[world.size])[world.rank] for labels in labellings())
    found = {"entropy": cluster_entropy(a, b, K), "sizes": cluster_sizes(a, K), "nmi": sharded_nmi(a, b)}
    with pytest.raises(ValueError) as refusal:
        cluster_entropy(a, b[1:] if world.rank == world.size - 1 else b, K)
    return {**found, "refusal": str(refusal.value)}


def test_any_number_of_ranks_finds_the_same(ranks):
    worlds = ranks(SHARDS, in_a_world)
    (alone,) = worlds[1]
    for size, world in worlds.items():
        for found in world:
            assert torch.equal(found["sizes"], alone["sizes"])
            torch.testing.assert_close(found["entropy"], alone["entropy"], equal_nan=True)
            assert found["nmi"] == pytest.approx(alone["nmi"])
            lengths = f"of different lengths on rank {size - 1}; give one of each a sample"
            assert found["refusal"] == f"assignments, labels: {lengths}"
