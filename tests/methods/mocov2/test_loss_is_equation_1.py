"""The loss beside Eq. 1 of He et al. 2020, written out in float64."""

import math

import pytest
import torch

from methods.mocov2.loss import info_nce

# (views, images, keys in the queue, dimensions)
SHAPES = [(1, 1, 1, 1), (1, 1, 7, 3), (2, 5, 3, 4), (3, 4, 4, 2), (7, 2, 100, 8)]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(queries, keys, queue, tau):
    """(the loss, the share of queries that find their key, the mean of q.k+)"""
    losses, found, positives = [], [], []
    for view in queries:
        for q, k in zip(view, keys, strict=True):
            positive, others = float(q @ k), [float(q @ other) for other in queue]
            largest = max(positive, *others) / tau
            total = sum(math.exp(s / tau - largest) for s in [positive, *others])
            losses.append(math.log(total) + largest - positive / tau)
            found.append(positive > max(others))
            positives.append(positive)
    return tuple(sum(map(float, each)) / len(each) for each in (losses, found, positives))


@pytest.mark.parametrize("tau", [0.2, 0.01])
@pytest.mark.parametrize(("views", "images", "length", "d"), SHAPES)
def test_it_is_the_equations(views, images, length, d, tau):
    queries, keys, queue = draw(views, images, d), draw(images, d, seed=1), draw(length, d, seed=2)
    loss, figures = info_nce(queries, keys, queue, temperature=tau)
    expected, found, positive = by_hand(queries, keys, queue, tau)
    assert (loss.item(), figures["positive"].item()) == pytest.approx((expected, positive), rel=1e-9)
    assert loss.dtype == torch.float64 and figures["found"].item() == pytest.approx(found)


def test_half_precision_and_scores_of_1e4_are_those_of_float64():
    queries, keys, queue = (100 * draw(*shape, seed=seed) for seed, shape in enumerate([(2, 3, 4), (3, 4), (9, 4)]))
    given = [x.half() for x in (queries, keys, queue)]
    loss, figures = info_nce(*given)
    assert (given[0].double() @ given[2].double().T).abs().max() > 1e4
    expected = by_hand(*(x.double() for x in given), 0.2)
    assert loss.dtype == torch.float32
    assert (loss.item(), figures["found"].item(), figures["positive"].item()) == pytest.approx(expected, rel=1e-5)


def test_nothing_is_rounded_under_autocast():
    given = [draw(*shape, seed=seed).float() for seed, shape in enumerate([(2, 3, 4), (3, 4), (9, 4)])]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = info_nce(*given, temperature=0.01)
    assert loss.item() == pytest.approx(info_nce(*given, temperature=0.01)[0].item(), rel=1e-6)


def test_queries_alone_are_trained():
    queries, keys, queue = (x.requires_grad_() for x in (draw(2, 3, 4), draw(3, 4, seed=1), draw(9, 4, seed=2)))
    loss, figures = info_nce(queries, keys, queue)
    loss.backward()
    assert queries.grad.abs().min() > 0 and keys.grad is None and queue.grad is None
    assert not any(figure.requires_grad for figure in figures.values())


def test_a_key_that_only_equals_others_is_not_found():
    one = torch.ones(1, 2)
    assert info_nce(one.unsqueeze(0), one, one.repeat(3, 1))[1]["found"].item() == 0


@pytest.mark.parametrize("temperature", [0.0, -0.2, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match=r"^temperature=.*give more than 0"):
        info_nce(draw(1, 2, 3), draw(2, 3), draw(4, 3), temperature=temperature)
