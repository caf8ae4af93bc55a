"""Four ranks do everything in worlds of 1, 2, 3 and 4 of them."""

from functools import partial

import pytest
import torch
import torch.distributed as dist

from launcher.kmeans import fit, fit_whitening, hierarchical

# Rows on each rank, by world size: uneven, and some ranks have none.
SHARDS = {1: [600], 2: [137, 463], 3: [0, 401, 199], 4: [250, 3, 0, 347]}
K, D = 20, 16


def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(600, D, generator=generator) * torch.linspace(0.1, 3, D) + 1


def duplicates():
    return data()[:30].repeat(20, 1)


def far_start():
    return torch.cat([data()[:5], torch.full((K - 5, D), 100.0)])


def shard(features, rank, world_size):
    return features.split(SHARDS[world_size])[rank]


def in_one_world(rank, world_size, group):
    """What this rank gets from everything that is collective."""
    mine = partial(shard, rank=rank, world_size=world_size)
    told = []
    traffic.clear()
    clusters = fit(mine(data()), K, iterations=5, group=group, safe_point=lambda *report: told.append(report))
    moved = list(traffic)
    hierarchy = hierarchical(mine(data()), (3, 8), iterations=4, group=group)
    whitening = fit_whitening(mine(data()), 6, group=group)
    return {
        "clusters": vars(clusters),
        "told": told,
        "traffic": moved,
        "split": vars(fit(mine(data()), K, init=far_start(), group=group)),
        "duplicates": vars(fit(mine(duplicates()), K, group=group)),
        "hierarchy": {**vars(hierarchy), "super_clusters": vars(hierarchy.super_clusters)},
        "whitening": {**vars(whitening), "applied": whitening.apply(mine(data()))},
        "errors": errors(rank, world_size, group),
    }


def errors(rank, world_size, group):
    """The messages of what this rank refuses, where only the last rank's shard is bad."""
    last = rank == world_size - 1
    bad = shard(data(), rank, world_size).clone()
    if last:
        bad[2, 1] = float("nan")
    calls = {
        "nan": lambda: fit(bad, K, group=group),
        "d": lambda: fit(torch.zeros(5, 4 if last else 3), 2, group=group),
        "k": lambda: fit(torch.zeros(1, 3), 7, group=group),
    }
    messages = {}
    for name, call in calls.items():
        try:
            call()
        except ValueError as error:
            messages[name] = str(error)
    return messages


traffic = []  # elements of each all-reduce


def watch_traffic():
    """Note the size of every all-reduce; forbid the collectives that could carry features."""
    all_reduce = dist.all_reduce

    def watched(tensor, **kwargs):
        traffic.append(tensor.numel())
        return all_reduce(tensor, **kwargs)

    def forbidden(*args, **kwargs):
        raise AssertionError("only sums may cross ranks")

    dist.all_reduce = watched
    for name in ("all_gather", "all_gather_into_tensor", "all_gather_object", "all_to_all", "broadcast", "gather"):
        setattr(dist, name, forbidden)


def in_all_worlds(world):
    groups = {size: dist.new_group(range(size)) for size in SHARDS}
    watch_traffic()
    groups[len(SHARDS)] = None  # all ranks
    return {size: in_one_world(world.rank, size, group) for size, group in groups.items() if world.rank < size}


@pytest.fixture(scope="module")
def worlds(ranks):
    """{world_size: [what rank 0 got, what rank 1 got, ...]}"""
    answers = ranks(len(SHARDS), in_all_worlds)
    return {size: [answer[size] for answer in answers[:size]] for size in SHARDS}


def joined(world, *path):
    """The shards of one result, put together in the order of the ranks."""
    parts = []
    for result in world:
        for key in path:
            result = result[key]
        parts.append(result)
    return torch.cat(parts)


@pytest.mark.parametrize("what", ["clusters", "split", "duplicates"])
@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_same_clusters(worlds, what, world_size):
    alone = worlds[1][0][what]
    for result in worlds[world_size]:
        torch.testing.assert_close(result[what]["centroids"], alone["centroids"], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(result[what]["inertia"], alone["inertia"], rtol=1e-9, atol=1e-6)
        assert torch.equal(result[what]["counts"], alone["counts"])
        assert result[what]["iterations"] == alone["iterations"]
    assert torch.equal(joined(worlds[world_size], what, "assignments"), alone["assignments"])


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_all_ranks_have_the_same_bits(worlds, world_size):
    first, *others = worlds[world_size]
    for other in others:
        for what in ("clusters", "split", "duplicates"):
            assert torch.equal(first[what]["centroids"], other[what]["centroids"])
        assert torch.equal(first["hierarchy"]["sub_centroids"], other["hierarchy"]["sub_centroids"])
        assert torch.equal(first["whitening"]["projection"], other["whitening"]["projection"])
        assert first["told"] == other["told"]


def test_no_cluster_is_empty(worlds):
    for world in worlds.values():
        assert world[0]["split"]["counts"].min() > 0
        assert world[0]["split"]["counts"].sum() == 600


def test_only_counts_and_sums_travel(worlds):
    assert worlds[1][0]["traffic"] == []
    for size in (2, 3, 4):
        # The shards' sizes, the features' range and mean, the initial centroids, the first assignment, then one
        # all-reduce an iteration.
        assert worlds[size][0]["traffic"] == [4 * size, 2 * D, 2 * D, K * D] + 6 * [K * (D + 2) + 2]


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_same_hierarchy(worlds, world_size):
    alone = worlds[1][0]["hierarchy"]
    for result in worlds[world_size]:
        torch.testing.assert_close(result["hierarchy"]["sub_centroids"], alone["sub_centroids"], rtol=1e-6, atol=1e-6)
        assert torch.equal(result["hierarchy"]["sub_counts"], alone["sub_counts"])
    assert torch.equal(joined(worlds[world_size], "hierarchy", "sub_assignments"), alone["sub_assignments"])
    together = joined(worlds[world_size], "hierarchy", "super_clusters", "assignments")
    assert torch.equal(together, alone["super_clusters"]["assignments"])


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_same_whitening(worlds, world_size):
    alone = worlds[1][0]["whitening"]
    for result in worlds[world_size]:
        torch.testing.assert_close(result["whitening"]["mean"], alone["mean"], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(result["whitening"]["projection"], alone["projection"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(joined(worlds[world_size], "whitening", "applied"), alone["applied"])


def test_all_ranks_refuse_what_one_rank_got_wrong(worlds):
    for size, world in worlds.items():
        for result in world:
            assert f"row 2 of rank {size - 1} is NaN or infinite" in result["errors"]["nan"]
            assert f"k=7: more clusters than the {size} features of all ranks" in result["errors"]["k"]
            if size > 1:
                assert f"d={[3] * (size - 1) + [4]}" in result["errors"]["d"]
