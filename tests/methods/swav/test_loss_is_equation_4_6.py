"""SwAV's loss and its gradient, written out from thesis Eqs. 4.1, 4.2 and 4.6 in float64, with and without a queue."""

import pytest
import torch

from methods.swav.loss import pseudo_labels, swapped_prediction

TAU, EPSILON, ITERATIONS = 0.1, 0.05, 3
LABELLED = 2
CASES = [(2, 8, 4, 0), (8, 6, 5, 0), (3, 4, 11, 0), (2, 4, 6, 8), (6, 3, 10, 9)]  # views, images, classes, queued


def scores_of(views, images, classes, queued, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.rand(views, images, classes, generator=generator, dtype=torch.float64) * 2 - 1
    stored = torch.rand(LABELLED, queued, classes, generator=generator, dtype=torch.float64) * 2 - 1
    return z, stored if queued else None


def labels_of(z, stored):
    """q of one view: the transport over its images and those that are stored; the images' part."""
    Z = z if stored is None else torch.cat([stored, z])  # the order of samples is none of the transport's business
    Q = torch.exp(Z / EPSILON)
    for _ in range(ITERATIONS):
        Q = Q / Q.sum(dim=0, keepdim=True)
        Q = Q / Q.sum(dim=1, keepdim=True)
    return Q[-len(z) :]


def equation(z, stored):
    """Eq. 4.6, one image, one x_t and one x_s after the other; over the number of terms."""
    q = [labels_of(z[t].detach(), None if stored is None else stored[t]) for t in range(LABELLED)]
    terms = []
    for n in range(z.shape[1]):
        for t in range(LABELLED):
            for s in range(len(z)):
                if s != t:
                    p = torch.exp(z[s, n] / TAU) / torch.exp(z[s, n] / TAU).sum()
                    terms.append(-(q[t][n] * torch.log(p)).sum())
    assert len(terms) == z.shape[1] * LABELLED * (len(z) - 1)
    return sum(terms) / len(terms)


def ours(z, stored):
    queued = None if stored is None else stored.to(z.dtype)
    labels = pseudo_labels(z[:LABELLED], queued, epsilon=EPSILON, iterations=ITERATIONS)
    return swapped_prediction(z, labels, temperature=TAU)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_and_gradient_are_those_of_the_equation(case, dtype):
    z, stored = scores_of(*case)
    z.requires_grad_()
    expected = equation(z, stored)
    (expected_gradient,) = torch.autograd.grad(expected, z)
    given = z.detach().to(dtype).requires_grad_()
    loss = ours(given, stored)
    (gradient,) = torch.autograd.grad(loss, given)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-12}
    torch.testing.assert_close(loss.double(), expected, **tolerance)
    torch.testing.assert_close(gradient.double(), expected_gradient, **tolerance)


def test_a_queue_changes_the_labels_and_gets_none():
    z, stored = scores_of(2, 4, 6, 8)
    assert pseudo_labels(z, stored).shape == z.shape
    assert (pseudo_labels(z, stored) - pseudo_labels(z)).abs().max() > 0.01


def test_rounded_labels_are_one_hot():
    z, stored = scores_of(2, 5, 4, 10)
    labels = pseudo_labels(z, stored, rounded=True)
    assert labels.unique().tolist() == [0, 1] and (labels.sum(-1) == 1).all()


def test_perfect_predictions_of_sharp_labels_cost_nothing_and_uniform_ones_ln_k():
    labels = torch.eye(6).expand(2, 6, 6)
    assert swapped_prediction(100 * torch.eye(6).expand(4, 6, 6), labels).item() == pytest.approx(0, abs=1e-6)
    loss = swapped_prediction(torch.zeros(4, 6, 6), labels)
    assert loss.item() == pytest.approx(torch.tensor(6.0).log().item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_scores_give_finite_losses_and_gradients(dtype):
    for scale in (0.0, 6e4):
        z = (scores_of(3, 4, 9, 0)[0] * scale).to(dtype).requires_grad_()
        loss = ours(z, None)
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(z.grad).all()


def test_a_single_view_and_a_temperature_of_zero_are_refused():
    labels = torch.ones(1, 2, 3) / 3
    with pytest.raises(ValueError, match="1 view"):
        swapped_prediction(torch.zeros(1, 2, 3), labels)
    with pytest.raises(ValueError, match="temperature=0"):
        swapped_prediction(torch.zeros(2, 2, 3), labels, temperature=0)
