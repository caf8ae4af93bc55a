"""Losses, gradients and states of several ranks are those of one rank with the same global batch."""

import pytest
import torch
from torch.nn.functional import normalize

from methods.dino.loss import distillation
from methods.dino.teacher import Centre, teacher_targets
from methods.engine import collapse
from methods.parts.memory import Memory
from methods.parts.sinkhorn import sinkhorn
from methods.smog.groups import Groups
from methods.smog.loss import group_contrast
from methods.smog.spec import ALGORITHMS
from methods.swav.loss import pseudo_labels, swapped_prediction
from methods.swav.queue import as_one_batch, make_queue

RANKS, BATCH, STEPS, D, K = 2, 12, 5, 6, 9


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def part(rows, rank, size, dim=0):
    """What `rank` has of a global batch."""
    return rows.chunk(size, dim=dim)[rank]


def averaged(gradient, size):
    """As DistributedDataParallel leaves it on every rank."""
    gradient = gradient.clone()
    if size > 1:
        torch.distributed.all_reduce(gradient)
    return gradient / size


def mean(value, size):
    return averaged(value.detach(), size)


def sinkhorn_case(rank, size):
    for shape, epsilon in (((BATCH, K), 0.05), ((BATCH, 40), 0.05), ((BATCH, 3), 3.0)):
        yield "rows", sinkhorn(part(draw(*shape), rank, size), epsilon=epsilon)
    fixed = sinkhorn(part(draw(BATCH, 3), rank, size), epsilon=3.0, iterations=500)
    yield "rows", fixed
    yield "same", mean(fixed.sum(0), size) * size
    # Where one rank has all that a class gets, and where nothing is ordinary.
    apart = torch.cat([draw(BATCH // 2, K) + 1e4, draw(BATCH // 2, K) - 1e4])
    yield "rows", sinkhorn(part(apart, rank, size), epsilon=0.05)


def swav_case(rank, size):
    queue = make_queue(3 * BATCH + 1, global_batch=BATCH, world_size=size, views=2, features=D)
    weight = normalize(draw(K, D, seed=99), dim=1).requires_grad_()
    for step in range(STEPS):
        z = normalize(part(draw(4, BATCH, D, seed=step), rank, size, dim=1), dim=-1)
        scores = z @ weight.T
        queued = as_one_batch(queue.newest_first()) @ weight.T if queue.full else None
        labels = pseudo_labels(scores[:2], queued)
        queue.put(z[:2])
        loss = swapped_prediction(scores, labels)
        yield "same", mean(loss, size)
        yield "same", averaged(torch.autograd.grad(loss, weight)[0], size)
        yield "rows", labels.transpose(0, 1)


def dino_case(rank, size):
    for operation in ("centring", "softmax", "sinkhorn"):
        centre = Centre(K, momentum=0.7)
        for step in range(3):
            teacher = part(draw(2, BATCH, K, seed=50 + step), rank, size, dim=1)
            student = part(draw(4, BATCH, K, seed=step), rank, size, dim=1)
            targets = teacher_targets(teacher, centre.value, temperature=0.5, operation=operation)
            loss, figures = distillation(student, targets)
            centre.update(teacher)
            yield "same", mean(loss, size)
            yield "same", mean(figures["teacher_kl"], size)
            yield "rows", targets.transpose(0, 1)
            yield "same", centre.value.clone()


def smog_case(rank, size):
    for algorithm in ALGORITHMS:
        groups = Groups(K, D, algorithm=algorithm, seed=3)
        cache = Memory(3, (BATCH // size, D))
        weight, predictor = draw(D, D, seed=7).requires_grad_(), draw(D, D, seed=8).requires_grad_()
        for step in range(3):
            x, other = (part(draw(BATCH, D, seed=10 * step + n), rank, size) for n in (0, 1))
            z = x @ weight
            labels = groups.assign(other @ weight)
            update = groups.updated(z, beta=0.8, seed=step)
            loss = group_contrast(z @ predictor, update.features, labels)
            groups.keep(update)
            cache.put(z)
            yield "same", mean(loss, size)
            for gradient in torch.autograd.grad(loss, (weight, predictor)):
                yield "same", averaged(gradient, size)
            yield "rows", labels
            yield "same", groups.features.clone()
            yield "same", groups.seen.clone()
        groups.refit(cache.newest_first(), seed=4)
        yield "same", groups.features.clone()
        yield "same", groups.seen.clone()


def collapse_case(rank, size):
    for sharpness in (0.1, 1, 10):
        yield "same", collapse.entropy_of_use(part((sharpness * draw(BATCH, K)).softmax(-1), rank, size))


CASES = {"sinkhorn": sinkhorn_case, "swav": swav_case, "dino": dino_case, "smog": smog_case, "collapse": collapse_case}


def all_cases(world):
    """{case: [(kind, what this rank got)]}"""
    return {name: list(case(world.rank, world.size)) for name, case in CASES.items()}


@pytest.fixture(scope="module")
def told(ranks):
    return ranks(RANKS, all_cases)


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_give_what_one_gives(told, name):
    expected = list(CASES[name](0, 1))
    assert len(expected) == len(told[0][name]) == len(told[1][name]) > 2
    for number, (kind, value) in enumerate(expected):
        found = [each[name][number][1] for each in told]
        if kind == "rows":
            torch.testing.assert_close(torch.cat(found), value, rtol=1e-4, atol=1e-5)
        else:  # and is the same bytes on each
            assert torch.equal(found[0], found[1]), f"{name}, {number}"
            torch.testing.assert_close(found[0], value, rtol=1e-4, atol=1e-5)
