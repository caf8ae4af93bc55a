from itertools import pairwise

import faiss
import pytest
import torch

from launcher.kmeans import fit
from launcher.kmeans.nearest import multiplies_bfloat16


def blobs(n=1500, d=16, k=12, spread=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(k, d, generator=generator)
    return centres[torch.arange(n) % k] + spread * torch.randn(n, d, generator=generator)


def faiss_lloyd(features, initial, iterations):
    k, d = initial.shape
    kmeans = faiss.Kmeans(d, k, niter=iterations, max_points_per_centroid=len(features), min_points_per_centroid=1)
    kmeans.train(features.numpy(), init_centroids=initial.numpy())
    return torch.from_numpy(kmeans.centroids), kmeans.obj


def squared_distances(features, centroids):
    return torch.cdist(features.double(), centroids.double()).square()


def test_same_centroids_and_inertia_as_faiss_from_the_same_start():
    features = blobs()
    initial = features[:20].clone()
    centroids, objective = faiss_lloyd(features, initial, iterations=8)
    clusters = fit(features, 20, iterations=8, init=initial)
    assert clusters.iterations == 8
    torch.testing.assert_close(clusters.centroids, centroids, rtol=1e-5, atol=1e-5)
    # faiss reports the inertia before an iteration's update, we report it after.
    torch.testing.assert_close(clusters.inertia[:-1], objective[1:].tolist(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_is_returned_is_consistent(dtype):
    features = blobs().to(dtype)
    clusters = fit(features, 30, iterations=3)
    # Where the hardware multiplies bfloat16, the nearest are those of the centroids as the product has them.
    rounded = dtype == torch.bfloat16 and multiplies_bfloat16(features.device)
    compared = squared_distances(features, clusters.centroids.bfloat16() if rounded else clusters.centroids)
    nearest = compared.gather(1, clusters.assignments[:, None])[:, 0]
    torch.testing.assert_close(nearest, compared.amin(dim=1), rtol=1e-5, atol=1e-5)
    chosen = squared_distances(features, clusters.centroids).gather(1, clusters.assignments[:, None])[:, 0]
    assert clusters.counts.tolist() == torch.bincount(clusters.assignments, minlength=30).tolist()
    assert clusters.counts.sum() == len(features)
    assert clusters.inertia[-1] == pytest.approx(float(chosen.sum()), rel=1e-6)
    assert (clusters.centroids.dtype, clusters.assignments.dtype, clusters.counts.dtype) == (
        torch.float32,
        torch.int64,
        torch.int64,
    )


def test_inertia_never_rises_and_it_stops_when_nothing_changes():
    clusters = fit(blobs(), 20, iterations=200)
    assert clusters.converged and clusters.iterations == len(clusters.inertia) < 200
    rises = [later - earlier for earlier, later in pairwise(clusters.inertia)]
    assert max(rises) <= 1e-6 * clusters.inertia[0]


def test_chunks_change_nothing():
    features = blobs()
    whole, chunked = fit(features, 20, chunk=len(features)), fit(features, 20, chunk=7)
    assert torch.equal(whole.assignments, chunked.assignments)
    torch.testing.assert_close(whole.centroids, chunked.centroids)


def test_the_seed_decides_the_start():
    features = blobs()
    assert torch.equal(fit(features, 20, seed=3).centroids, fit(features, 20, seed=3).centroids)
    assert not torch.equal(fit(features, 20, seed=3).centroids, fit(features, 20, seed=4).centroids)


def test_features_far_from_the_origin_cluster_as_well():
    features = blobs(spread=0.1)
    near, far = fit(features, 12), fit(features + 1000, 12)
    assert torch.equal(near.assignments, far.assignments)


def test_safe_point_is_told_every_iteration_and_may_stop():
    told = []
    fit(blobs(), 20, iterations=3, safe_point=lambda *report: told.append(report))
    assert told == [("k-means", 1, 3), ("k-means", 2, 3), ("k-means", 3, 3)]

    class Stop(Exception):
        pass

    def stop(stage, done, total):
        raise Stop

    with pytest.raises(Stop):
        fit(blobs(), 20, safe_point=stop)


def test_one_cluster_is_the_mean():
    features = blobs()
    clusters = fit(features, 1)
    torch.testing.assert_close(clusters.centroids[0], features.mean(dim=0))
    assert clusters.converged and clusters.iterations == 1
