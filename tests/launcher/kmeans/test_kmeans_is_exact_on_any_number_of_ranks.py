"""The same as scikit-learn's Lloyd and faiss on any number of ranks, and with `deterministic` the same bits.

Four ranks do everything in worlds of 1, 2, 3 and 4 of them.
"""

import faiss
import pytest
import torch
import torch.distributed as dist
from sklearn.cluster import KMeans

from launcher.kmeans import fit, hierarchical

SHARDS = {1: [900], 2: [637, 263], 3: [0, 501, 399], 4: [350, 3, 0, 547]}
N, K, D, ITERATIONS = 900, 24, 12, 8


def features():
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(K, D, generator=generator)
    return centres[torch.randint(K, (N,), generator=generator)] + 0.6 * torch.randn(N, D, generator=generator)


def ties():
    """Whole numbers: many features are exactly as near to one centroid as to another."""
    return torch.randint(0, 4, (N, D), generator=torch.Generator().manual_seed(4)).float()


def weights():
    return torch.rand(N, generator=torch.Generator().manual_seed(5))


def results(rank, world_size, group):
    def mine(x):
        return x.split(SHARDS[world_size])[rank]

    exact = {"group": group, "deterministic": True, "iterations": ITERATIONS}
    given = fit(mine(features()), K, init=features()[:K], iterations=ITERATIONS, group=group)
    hierarchy = hierarchical(mine(features()), (3, 6), **exact)
    found = {
        "plain": vars(given),
        "l2": vars(fit(mine(features()), K, **exact)),
        "ties": vars(fit(mine(ties()), K, **exact)),
        "far": vars(fit(mine(features() + 300), K, **exact)),
        "cosine": vars(fit(mine(features()), K, metric="cosine", **exact)),
        "weighted": vars(fit(mine(features()), K, weights=mine(weights()), **exact)),
        "half": vars(fit(mine(features()).bfloat16(), K, **exact)),
        "k-means++": vars(fit(mine(features()), K, init="k-means++", **exact)),
        "resample": vars(fit(mine(features()), K, init=features()[:1].repeat(K, 1), empty="resample", **exact)),
        "hierarchy": {"centroids": hierarchy.sub_centroids, "assignments": hierarchy.sub_assignments},
    }
    found["bytes"] = {
        "l2": found["l2"]["bytes_per_iteration"],
        "weighted": found["weighted"]["bytes_per_iteration"],
        "hierarchy": hierarchy.bytes_per_iteration,
    }
    found["errors"] = errors(rank, world_size, group)
    return found


def errors(rank, world_size, group):
    """What is said when only the last rank is given something wrong."""
    last = rank == world_size - 1
    x = torch.arange(10.0).view(5, 2)
    calls = {
        "dtype": lambda: fit(x.long() if last else x, 2, group=group),
        "weights": lambda: fit(x, 2, weights=-torch.ones(5) if last else torch.ones(5), group=group),
        "metric": lambda: fit(x, 2, metric="l1" if last else "l2", group=group),
    }
    said = {}
    for name, call in calls.items():
        with pytest.raises(ValueError) as raised:
            call()
        said[name] = str(raised.value)
    return said


def in_all_worlds(world):
    groups = {size: dist.new_group(range(size)) for size in SHARDS}
    found = {size: results(world.rank, size, group) for size, group in groups.items() if world.rank < size}
    if world.rank == 3:
        with pytest.raises(ValueError, match="group: rank 3 is not in it"):
            fit(features(), K, group=groups[2])
    return found


@pytest.fixture(scope="module")
def worlds(ranks):
    """{world_size: [what rank 0 got, what rank 1 got, ...]}"""
    answers = ranks(len(SHARDS), in_all_worlds)
    return {size: [answer[size] for answer in answers[:size]] for size in SHARDS}


def joined(world, what):
    return torch.cat([result[what]["assignments"] for result in world])


@pytest.mark.parametrize("world_size", SHARDS)
def test_the_result_is_that_of_scikit_learn_and_faiss(worlds, world_size):
    x, start = features(), features()[:K]
    ours = worlds[world_size][0]["plain"]
    assert ours["iterations"] == ITERATIONS
    theirs = KMeans(K, init=start.numpy(), n_init=1, max_iter=ITERATIONS, tol=0, algorithm="lloyd").fit(x.numpy())
    assert ours["inertia"][-1] == pytest.approx(theirs.inertia_, rel=1e-5)
    assert torch.equal(joined(worlds[world_size], "plain"), torch.from_numpy(theirs.labels_).long())
    kmeans = faiss.Kmeans(D, K, niter=ITERATIONS, max_points_per_centroid=N, min_points_per_centroid=1)
    kmeans.train(x.numpy(), init_centroids=start.numpy())
    distances, labels = kmeans.assign(x.numpy())
    assert ours["inertia"][-1] == pytest.approx(float(distances.astype("float64").sum()), rel=1e-5)
    assert torch.equal(joined(worlds[world_size], "plain"), torch.from_numpy(labels).long())


KINDS = ["l2", "ties", "far", "cosine", "weighted", "half", "k-means++", "resample", "hierarchy"]


@pytest.mark.parametrize("what", KINDS)
def test_deterministic_gives_the_same_bits_on_any_number_of_ranks(worlds, what):
    alone = worlds[1][0][what]
    for world_size in (2, 3, 4):
        for result in worlds[world_size]:
            bits = result[what]["centroids"].view(torch.int32)
            assert torch.equal(bits, alone["centroids"].view(torch.int32)), world_size
            assert result[what].get("inertia") == alone.get("inertia")
        assert torch.equal(joined(worlds[world_size], what), alone["assignments"])


def test_the_bytes_of_an_iteration_are_those_of_the_docstring(worlds):
    for world_size, world in worlds.items():
        for result in world:
            expected = {
                "l2": 8 * (K * (D + 2) + 2),
                "weighted": 8 * (K * (D + 3) + 2),
                "hierarchy": 8 * (18 * (D + 2) + 6),
            }
            assert result["bytes"] == (expected if world_size > 1 else dict.fromkeys(expected, 0))


def test_all_ranks_say_the_same_of_what_one_was_given(worlds):
    for world in worlds.values():
        for result in world:
            assert result["errors"]["dtype"].startswith("features: torch.int64 of shape (5, 2); give")
            assert result["errors"]["weights"] == "weights: -1.0 in row 0; give finite weights, 0 or more"
            assert result["errors"]["metric"] == 'metric=\'l1\': no such metric; give "l2" or "cosine"'
