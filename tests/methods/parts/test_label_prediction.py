"""The loss of labels that some images have not, written out from thesis Eqs. 3.1 and 4.1 in float64; over ranks, it and
its gradient are those of one rank, however unequally the labels lie."""

import pytest
import torch

from methods.parts.losses import NO_LABEL, label_prediction

TAU = 0.1
CASES = [(3, 1, 1, 2), (2, 5, 3, 11), (8, 7, 2, 4), (1, 4, 1, 9)]  # crops, images, heads, classes
WORLDS, BATCH = (1, 2, 4), 8


def drawn(crops, images, heads, classes, unknown=()):
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(crops, images, heads, classes, generator=generator, dtype=torch.float64) * 2 - 1
    y = torch.randint(classes, (images, heads), generator=generator)
    y[list(unknown)] = NO_LABEL
    return z, y


def equation(z, y):
    """The mean over one crop, image and head after the other of log sum_k exp(z_k / tau) - z_y / tau."""
    terms = []
    for crop in z:
        for scores, labels in zip(crop, y, strict=True):
            for row, label in zip(scores, labels.tolist(), strict=True):
                if label >= 0:
                    largest = row.max()
                    terms.append(largest / TAU + ((row - largest) / TAU).exp().sum().log() - row[label] / TAU)
    return sum(terms) / len(terms)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_and_gradient_are_those_of_the_equation(case, dtype):
    for unknown in {(), tuple(range(1, case[1], 2))}:
        z, y = drawn(*case, unknown)
        z.requires_grad_()
        expected = equation(z, y)
        (expected_gradient,) = torch.autograd.grad(expected, z)
        given = z.detach().to(dtype).requires_grad_()
        loss = label_prediction(given, y, temperature=TAU)
        (gradient,) = torch.autograd.grad(loss, given)
        tolerance = {"rtol": 1e-4, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-12}
        torch.testing.assert_close(loss.double(), expected, **tolerance)
        torch.testing.assert_close(gradient.double(), expected_gradient, **tolerance)


def test_scores_of_ten_thousand_in_half_precision_are_scored_in_single():
    z, y = drawn(2, 6, 2, 5, unknown=(3,))
    z = (z * 1e4).half()
    loss = label_prediction(z.requires_grad_(), y, temperature=TAU)
    loss.backward()
    assert loss.dtype == torch.float32 and z.grad.isfinite().all()
    torch.testing.assert_close(loss.double(), equation(z.detach().double(), y), rtol=1e-6, atol=0)


def test_without_any_label_it_is_zero_and_moves_nothing():
    z, y = drawn(2, 3, 2, 5, unknown=range(3))
    loss = label_prediction(z.requires_grad_(), y, temperature=TAU)
    loss.backward()
    assert loss == 0 and (z.grad == 0).all()


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match="temperature=0"):
        label_prediction(*drawn(1, 1, 1, 2), temperature=0)


def in_a_world(world):
    """(loss and gradient as the ranks average them) where the first rank of four has no label, and the last one has
    all."""
    z, y = drawn(3, BATCH, 2, 5, unknown=(0, 1, 2, 5))
    weight = torch.ones(5, dtype=torch.float64, requires_grad=True)
    mine = z.chunk(world.size, dim=1)[world.rank]
    loss = label_prediction(mine * weight, y.chunk(world.size)[world.rank], temperature=TAU)
    loss.backward()
    both = torch.cat([loss.detach()[None], weight.grad])
    if world.size > 1:
        torch.distributed.all_reduce(both)
    return both / world.size


def test_it_is_one_ranks_however_the_labels_lie(ranks):
    z, y = drawn(3, BATCH, 2, 5, unknown=(0, 1, 2, 5))
    weight = torch.ones(5, dtype=torch.float64, requires_grad=True)
    loss = equation(z * weight, y)
    loss.backward()
    expected = torch.cat([loss.detach()[None], weight.grad])
    assert weight.grad.abs().max() > 0.01
    for answers in ranks(WORLDS, in_a_world).values():
        for found in answers:
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
