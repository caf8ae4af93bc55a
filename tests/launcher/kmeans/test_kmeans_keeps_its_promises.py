"""Properties that hold for all features, tried on several."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from launcher.kmeans import fit, fit_whitening, hierarchical
from launcher.kmeans.exact import grid, row_squares
from launcher.kmeans.nearest import Blocks, Scratch, Tiles, ones_for


def cloud(n=800, d=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    spread = torch.rand(d, generator=generator) * 3
    return torch.randn(n, d, generator=generator) * spread + torch.randn(d, generator=generator)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("seed", range(3))
def test_inertia_never_rises_and_counts_sum_to_all(metric, seed):
    clusters = fit(cloud(seed=seed), 15, iterations=25, metric=metric, seed=seed)
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in pairwise(clusters.inertia))
    assert clusters.counts.dtype == torch.int64 and clusters.counts.sum() == 800
    assert clusters.reassigned[0] > 0 and clusters.empty[-1] == 0
    assert len(clusters.reassigned) == len(clusters.empty) == clusters.iterations


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_samples_changes_nothing(seed):
    x = cloud(seed=seed)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    start = x[:9].clone()
    first = fit(x, 9, init=start, deterministic=True)
    second = fit(x[order], 9, init=start, deterministic=True)
    assert torch.equal(first.centroids, second.centroids)
    assert torch.equal(first.assignments[order], second.assignments)


def test_the_order_of_the_centroids_changes_nothing_but_names():
    x = cloud()
    names = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    first, second = fit(x, 9, init=x[:9].clone()), fit(x, 9, init=x[:9][names].clone())
    torch.testing.assert_close(first.centroids[names], second.centroids)
    assert torch.equal(first.assignments, names[second.assignments])


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_weights_count_as_repetition(metric):
    x, times = cloud(n=200), torch.arange(200) % 4 + 1
    weighted = fit(x, 7, init=x[:7].clone(), weights=times, metric=metric)
    repeated = fit(x.repeat_interleave(times, dim=0), 7, init=x[:7].clone(), metric=metric)
    torch.testing.assert_close(weighted.centroids, repeated.centroids)
    assert weighted.inertia == pytest.approx(repeated.inertia, rel=1e-6)
    assert weighted.counts.sum() == 200


def test_what_weighs_nothing_moves_nothing():
    x = cloud(n=300)
    weights = (torch.arange(300) < 200).float()
    part = fit(x[:200], 5, init=x[:5].clone())
    whole = fit(x, 5, init=x[:5].clone(), weights=weights, iterations=part.iterations)
    torch.testing.assert_close(whole.centroids, part.centroids)
    assert whole.counts.sum() == 300


def test_cosine_is_spherical_kmeans():
    x = cloud()
    start = torch.nn.functional.normalize(x[:8], dim=1)
    clusters = fit(x, 8, init=x[:8].clone(), metric="cosine", iterations=6)
    unit = torch.nn.functional.normalize(x.double(), dim=1)
    centroids = start.double()
    for _ in range(6):
        labels = (unit @ centroids.T).argmax(dim=1)
        sums = torch.zeros(8, 10, dtype=torch.float64).index_add_(0, labels, unit)
        centroids = torch.nn.functional.normalize(sums, dim=1)
    torch.testing.assert_close(clusters.centroids.double(), centroids, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(clusters.centroids.norm(dim=1), torch.ones(8))
    labels = (unit @ centroids.T).argmax(dim=1)
    assert torch.equal(clusters.assignments, labels)
    assert clusters.inertia[-1] == pytest.approx(float((unit - centroids[labels]).square().sum()), rel=1e-6)


def test_a_zero_vector_has_no_direction():
    x = torch.cat([cloud(n=50), torch.zeros(3, 10)])
    clusters = fit(x, 4, metric="cosine")
    assert clusters.centroids.isfinite().all() and clusters.counts.sum() == 53


@pytest.mark.parametrize(
    "cluster",
    [
        lambda x: fit(x, 12).centroids,
        lambda x: fit(x, 12, metric="cosine").centroids,
        lambda x: fit(x, 12, deterministic=True, init="k-means++").centroids,
        lambda x: fit(x, 12, weights=x[:, 0].abs(), empty="resample").centroids,
        lambda x: fit(x + 1000, 12).centroids,  # measured from their mean
        lambda x: hierarchical(x, (3, 4)).sub_centroids,
        lambda x: fit_whitening(x, 4).projection,
    ],
    ids=["l2", "cosine", "deterministic", "weighted", "far", "hierarchical", "whitening"],
)
def test_float64_features_stay_as_they_are_and_cluster_as_float32_does(cluster):
    x = cloud().round(decimals=3).float()
    wide = x.double()
    found = cluster(wide)
    assert torch.equal(wide, x.double())
    torch.testing.assert_close(found, cluster(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_squared_norms_leave_what_they_are_of(dtype):
    x = cloud().to(dtype)
    before = x.clone()
    squares = row_squares(x, grid(float(x.square().max()), 4 * x.shape[1]))
    assert torch.equal(x, before)
    torch.testing.assert_close(squares, before.double().square().sum(dim=1))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_a_file_gives_what_memory_gives(tmp_path, dtype):
    x = cloud(n=1000).numpy().astype(dtype)
    np.save(tmp_path / "features.npy", x)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    memory, file = fit(torch.from_numpy(x), 12), fit(mapped, 12)
    assert torch.equal(memory.centroids, file.centroids) and torch.equal(memory.assignments, file.assignments)
    two, of_file = hierarchical(torch.from_numpy(x), (3, 4)), hierarchical(mapped, (3, 4))
    assert torch.equal(two.sub_centroids, of_file.sub_centroids)


def test_a_tensor_mapped_from_a_file_is_one_too(tmp_path):
    x = cloud(n=400).bfloat16()
    (tmp_path / "raw").write_bytes(x.view(torch.int16).numpy().tobytes())
    mapped = torch.from_file(str(tmp_path / "raw"), size=x.numel(), dtype=torch.bfloat16).view(x.shape)
    assert torch.equal(fit(x, 12).centroids, fit(mapped, 12).centroids)


@pytest.mark.parametrize("count", [2, 3])
def test_the_number_of_threads_changes_nothing(threads, count):
    x = cloud(n=3000)
    alone = fit(x, 20, deterministic=True)
    threads(count)
    together = fit(x, 20, deterministic=True)
    assert torch.get_num_threads() == count
    assert torch.equal(alone.centroids, together.centroids)


@pytest.mark.parametrize(("n", "k", "d"), [(300, 5200, 7), (130, 33, 200), (1, 1, 3)])
@pytest.mark.parametrize("exact", [False, True])
def test_tiles_find_the_first_of_the_nearest(n, k, d, exact):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-3, 4, (n, d), generator=generator).float()
    c = torch.randint(-3, 4, (k, d), generator=generator).float()  # whole numbers: no rounding, and ties
    scores = x.double() @ c.double().T - 0.5 * c.double().square().sum(dim=1)
    first = (scores == scores.amax(dim=1, keepdim=True)).int().argmax(dim=1)
    scratch = Scratch(n, d, ones_for(False, d), k)
    assert torch.equal(Tiles(c, False, False, exact).nearest(x, scratch), first)
    assert torch.equal(Blocks(c, False, torch.float32, exact).nearest(x), first)


@pytest.mark.parametrize("d", [64, 256])
def test_products_of_bfloat16_change_less_than_a_thousandth_of_the_labels(d):
    generator = torch.Generator().manual_seed(0)
    x, c = torch.randn(4096, d, generator=generator).bfloat16(), torch.randn(500, d, generator=generator)
    rounded = c.bfloat16().double()
    expected = (x.double() @ rounded.T - 0.5 * rounded.square().sum(dim=1)).argmax(dim=1)
    tiles = Tiles(c, spherical=False, half=True, exact=False)
    nearest = tiles.nearest(x.float(), Scratch(4096, d, ones_for(True, d), 500))
    assert (nearest != expected).float().mean() < 1e-3
    assert (Blocks(c, False, torch.bfloat16, False).nearest(x) != expected).float().mean() < 1e-3


def test_keep_leaves_an_empty_cluster_where_it_is():
    x = cloud()
    start = torch.cat([x[:3], torch.full((1, 10), 1000.0)])
    clusters = fit(x, 4, init=start, empty="keep")
    assert clusters.counts[3] == 0 and torch.equal(clusters.centroids[3], start[3]) and clusters.empty[-1] == 1


def test_resample_takes_features():
    x = cloud()
    clusters = fit(x, 6, init=torch.cat([x[:2], torch.full((4, 10), 1000.0)]), empty="resample")
    assert clusters.counts.min() > 0


def test_kmeans_plus_plus_spreads_its_start():
    islands = torch.cat([100.0 * i + cloud(n=40, seed=i) for i in range(12)])
    clusters = fit(islands, 12, init="k-means++", iterations=1)
    assert (clusters.assignments.view(12, 40) == clusters.assignments.view(12, 40)[:, :1]).all()


def test_it_stops_when_an_iteration_gains_less_than_the_tolerance():
    x = cloud()
    long, short = fit(x, 12, iterations=100), fit(x, 12, iterations=100, tolerance=0.01)
    assert short.converged and short.iterations < long.iterations
    assert short.inertia == long.inertia[: short.iterations]


def test_progress_tells_of_every_iteration():
    told = []
    clusters = fit(cloud(), 12, iterations=4, progress=told.append)
    assert [report.number for report in told] == [1, 2, 3, 4]
    assert [report.inertia for report in told] == clusters.inertia
    assert [report.reassigned for report in told] == clusters.reassigned


def test_sub_clusterings_are_those_of_each_super_cluster_alone():
    x = cloud(n=900)
    hierarchy = hierarchical(x, (3, 7), iterations=6, deterministic=True)
    for s in range(3):
        here = hierarchy.super_clusters.assignments == s
        seed = int(np.random.SeedSequence([0, s + 1]).generate_state(1)[0])
        alone = fit(x[here], 7, iterations=6, seed=seed, deterministic=True)
        torch.testing.assert_close(hierarchy.sub_centroids[s], alone.centroids)
        assert torch.equal(hierarchy.sub_assignments[here], alone.assignments)
        assert hierarchy.sub_inertia[s] == pytest.approx(alone.inertia)
