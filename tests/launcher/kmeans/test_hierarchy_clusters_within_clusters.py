import torch

from launcher.kmeans import fit, hierarchical


def islands(sizes, d=8, seed=0):
    """Groups of features so far apart that k-means must find them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([100 * i + torch.randn(size, d, generator=generator) for i, size in enumerate(sizes)])


def test_every_feature_is_nearest_to_its_sub_centroid_within_its_super_cluster():
    features = islands([200, 200, 200])
    hierarchy = hierarchical(features, (3, 5))
    supers, subs = hierarchy.super_clusters.assignments, hierarchy.sub_assignments
    distances = (features[:, None] - hierarchy.sub_centroids[supers]).square().sum(dim=2)
    assert torch.equal(distances.argmin(dim=1), subs)
    counts = torch.bincount(supers * 5 + subs, minlength=15).view(3, 5)
    assert torch.equal(counts, hierarchy.sub_counts) and counts.min() > 0
    assert torch.equal(counts.sum(dim=1), hierarchy.super_clusters.counts)


def test_the_first_level_is_plain_kmeans():
    features = islands([50, 60])
    plain, hierarchy = fit(features, 4, seed=5), hierarchical(features, (4, 2), seed=5)
    assert torch.equal(plain.assignments, hierarchy.super_clusters.assignments)


def test_a_super_cluster_smaller_than_k_gets_as_many_as_it_has_members():
    features = islands([100, 3])
    hierarchy = hierarchical(features, (2, 10))
    small = int(hierarchy.super_clusters.counts.argmin())
    assert hierarchy.sub_counts[small].tolist() == [1, 1, 1] + 7 * [0]
    assert hierarchy.sub_counts[1 - small].min() > 0
    assert sorted(hierarchy.sub_assignments[100:].tolist()) == [0, 1, 2]


def test_an_empty_super_cluster_has_no_sub_clusters():
    hierarchy = hierarchical(torch.ones(10, 3), (2, 4))
    assert sorted(hierarchy.sub_counts.sum(dim=1).tolist()) == [0, 10]
    assert sorted(map(len, hierarchy.sub_inertia)) == [0, 1]


def test_safe_point_names_the_level():
    stages = []
    hierarchical(islands([50, 50]), (2, 3), safe_point=lambda stage, done, total: stages.append(stage))
    assert list(dict.fromkeys(stages)) == ["super-clusters", "sub-clusters"]
