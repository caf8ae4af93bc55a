"""What crosses ranks with its gradient: losses of several ranks train as one rank with the whole batch does."""

import warnings

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from methods.parts.collectives import differentiable_gather, differentiable_sum, permute_over_ranks

WORLDS, BATCH, D, E = (1, 2, 4), 8, 6, 5
HALVES = 2, 4  # of a world of 4: groups of 2


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def contrast(views, weight, rank, size, group=None):
    """The loss of a rank: each of its images among those of all ranks, by either view (Chen et al. 2020, Eq. 1)."""
    a, b = (normalize(view.chunk(size)[rank] @ weight, dim=1) for view in views)
    every = differentiable_gather(torch.cat([a, b], dim=1), group)
    labels = rank * len(a) + torch.arange(len(a))
    return sum(
        cross_entropy(own @ other.T / 0.1, labels) for own, other in zip((b, a), every.split(E, dim=1), strict=True)
    )


def spread(views, weight, rank, size, group=None):
    """The same for a sum over ranks: the distance of each image to the mean of all."""
    z = views[0].chunk(size)[rank] @ weight
    mean = differentiable_sum(z.sum(0), group) / (size * len(z))
    return (z - mean).square().sum(1).sqrt().mean()


LOSSES = {"gather": contrast, "sum": spread}


def averaged(loss, rank, size, group=None, seed=0):
    """Loss and gradient, as DistributedDataParallel averages it."""
    views, weight = draw(2, BATCH, D, seed=seed), draw(D, E, seed=9).requires_grad_()
    value = loss(views, weight, rank, size, group)
    value.backward()
    both = torch.cat([value.detach().view(1), weight.grad.flatten()])
    if size > 1:
        torch.distributed.all_reduce(both, group=group)
    return both / size


def in_a_world(world):
    """{what: what this rank got}; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = {name: averaged(loss, world.rank, world.size) for name, loss in LOSSES.items()}
        share, size = HALVES
        if world.size == size:
            group = world.group_of([range(first, first + share) for first in range(0, size, share)])
            block, rank = divmod(world.rank, share)
            told |= {f"{name} in halves": averaged(loss, rank, share, group, block) for name, loss in LOSSES.items()}
        told["rows"], told["bits"], told["mixed"] = rows(world), bits(world), mixed(world)
        told["images"] = images(world)
    return told


def rows(world):
    """Of tensors that are not as a loss has them: ids, one row of a matrix each, columns of a larger one."""
    first = world.rank * 3
    columns = torch.arange(24).view(4, 6).T[:, 1:3] + 100 * world.rank  # not contiguous
    given = torch.arange(first, first + 3), torch.full((1, 2, 2), float(world.rank)), columns
    return [differentiable_gather(x) for x in given]


def bits(world):
    """(a sum in float32 and its gradient, what torch.distributed.all_reduce makes of the same)"""
    x, gradient = (draw(1000, seed=10 * n + world.rank).float() for n in (1, 2))
    x.requires_grad_()
    total = differentiable_sum(x)
    total.backward(gradient)
    expected = torch.stack([x.detach(), gradient])
    if world.size > 1:
        for each in expected:
            torch.distributed.all_reduce(each)
    return torch.stack([total.detach(), x.grad]), expected


def orders():
    """Of BATCH rows: as they are, all of them to another rank, and at random, so that ranks send unequally many."""
    kept = torch.arange(BATCH)
    return [kept, kept.flip(0), *(torch.randperm(BATCH, generator=torch.Generator().manual_seed(n)) for n in range(4))]


def mixed(world):
    """[(this rank's rows in an order, and back)]: columns of a larger tensor, of several dimensions."""
    own = draw(2, BATCH, D).transpose(0, 1).chunk(world.size)[world.rank].requires_grad_()
    there = [permute_over_ranks(own, order) for order in orders()]
    return [(x, permute_over_ranks(x, order.argsort())) for x, order in zip(there, orders(), strict=True)]


def images(world):
    """Those of this rank in another order, of which each pixel's channels lie together."""
    own = draw(BATCH, D, 3, 3).chunk(world.size)[world.rank].to(memory_format=torch.channels_last)
    return permute_over_ranks(own, orders()[-1])


@pytest.fixture(scope="module")
def told(ranks):
    """{world_size: [what each rank got]}"""
    return ranks(WORLDS, in_a_world)


@pytest.mark.parametrize("size", WORLDS)
@pytest.mark.parametrize("name", LOSSES)
def test_averaged_gradients_are_those_of_one_rank_with_the_whole_batch(told, name, size):
    alone = averaged(LOSSES[name], 0, 1)
    assert alone[1:].abs().max() > 0.01
    for rank in told[size]:
        torch.testing.assert_close(rank[name], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_ranks_of_a_group_share_with_each_other_alone(told, name):
    share, size = HALVES
    for rank in range(size):
        alone = averaged(LOSSES[name], 0, 1, seed=rank // share)
        torch.testing.assert_close(told[size][rank][f"{name} in halves"], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", WORLDS)
def test_rows_come_in_order_of_rank_with_their_shape_and_dtype(told, size):
    for rank in told[size]:
        ids, ones, columns = rank["rows"]
        assert torch.equal(ids, torch.arange(3 * size))
        assert torch.equal(ones, torch.arange(float(size)).view(size, 1, 1).expand(size, 2, 2))
        assert columns.shape == (6 * size, 2) and columns.dtype == torch.int64
        assert columns[6 * (size - 1)].tolist() == [100 * (size - 1) + 6, 100 * (size - 1) + 12]


@pytest.mark.parametrize("size", WORLDS)
def test_a_sum_and_its_gradient_are_an_all_reduce_to_the_last_bit(told, size):
    for rank in told[size]:
        found, expected = rank["bits"]
        assert torch.equal(found, expected)


@pytest.mark.parametrize("size", WORLDS)
def test_rows_go_to_their_place_in_another_order_and_back(told, size):
    every = draw(2, BATCH, D).transpose(0, 1)
    for number, order in enumerate(orders()):
        for rank in range(size):
            there, back = told[size][rank]["mixed"][number]
            assert torch.equal(there, every[order].chunk(size)[rank]) and not there.requires_grad
            assert torch.equal(back, every.chunk(size)[rank])


@pytest.mark.parametrize("size", WORLDS)
def test_images_go_to_their_place_whatever_the_layout_of_their_channels(told, size):
    expected = draw(BATCH, D, 3, 3)[orders()[-1]].chunk(size)
    for rank in range(size):
        found = told[size][rank]["images"]
        assert torch.equal(found, expected[rank]) and found.is_contiguous()
