"""SimCLR's loss and its gradient, written out from Eq. 1 and Algorithm 1 in float64: one anchor, one positive and one
key after the other; on one, two and four ranks."""

import math

import pytest
import torch

from methods.simclr.loss import nt_xent

CASES = [(2, 2, 3, 0.1), (2, 4, 5, 0.5), (2, 8, 2, 0.1), (3, 4, 6, 0.2), (6, 4, 4, 0.1)]  # crops, images, d, tau


def drawn(crops, images, width, seed=0):
    return torch.randn(crops, images, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def equation(z, tau):
    """Algorithm 1: l(i, j) of Eq. 1 over all pairs (i, j) of crops of one image, over their number."""
    crops, images, _ = z.shape

    def s(i, j):
        (v, n), (w, m) = i, j
        return z[v, n] @ z[w, m] / (z[v, n].norm() * z[w, m].norm())

    everything = [(v, n) for v in range(crops) for n in range(images)]
    terms = []
    for i in everything:
        for j in everything:
            if i != j and i[1] == j[1]:
                # k != i; and of further crops of the image, none but j.
                keys = [k for k in everything if k != i and (k == j or k[1] != i[1])]
                assert len(keys) == 1 + crops * (images - 1)
                terms.append(-torch.log(torch.exp(s(i, j) / tau) / sum(torch.exp(s(i, k) / tau) for k in keys)))
    assert len(terms) == crops * (crops - 1) * images
    return sum(terms) / len(terms)


def with_gradient(function, z):
    z = z.detach().requires_grad_()
    loss = function(z)
    (gradient,) = torch.autograd.grad(loss, z)
    return loss.detach(), gradient


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_and_gradient_are_those_of_the_equation(case, dtype):
    *shape, tau = case
    z = drawn(*shape)
    expected, expected_gradient = with_gradient(lambda z: equation(z, tau), z)
    loss, gradient = with_gradient(lambda z: nt_xent(z, temperature=tau), z.to(dtype))
    assert loss.dtype == dtype
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-12}
    torch.testing.assert_close(loss.double(), expected, **tolerance)
    torch.testing.assert_close(gradient.double(), expected_gradient, **tolerance)


@pytest.mark.parametrize("crops", [2, 4])
def test_the_released_code_adds_up_the_crops_that_the_paper_takes_the_mean_of(crops):
    z = drawn(crops, 3, 4)
    assert nt_xent(z, summed=True).item() == pytest.approx(crops * nt_xent(z).item(), rel=1e-12)


# -- over ranks --------------------------------------------------------------------------------------------------------

SHARED = [(2, 4, 3, 0.1), (2, 8, 5, 0.5), (3, 4, 6, 0.2), (6, 8, 4, 0.1)]  # on four ranks one image each, or two


def on_ranks(world):
    """[(loss, gradient)] of this rank's images, for each case."""
    found = []
    for *shape, tau in SHARED:
        mine = drawn(*shape).chunk(world.size, dim=1)[world.rank]
        loss, gradient = with_gradient(lambda z, tau=tau: nt_xent(z, temperature=tau), mine)
        found.append((loss, gradient))
    return found


def test_on_several_ranks_the_mean_and_its_gradient_are_those_of_one(ranks):
    """Also where each has a single image. A rank's gradient is that of the sum of all ranks' losses."""
    answers = ranks((1, 2, 4), on_ranks)
    for number, (*shape, tau) in enumerate(SHARED):
        expected, expected_gradient = with_gradient(lambda z, tau=tau: equation(z, tau), drawn(*shape))
        for size, each in answers.items():
            losses, gradients = zip(*(rank[number] for rank in each), strict=True)
            torch.testing.assert_close(torch.stack(losses).mean(), expected, rtol=1e-9, atol=1e-12)
            gradient = torch.cat(gradients, dim=1) / size
            torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-12)


# -- edges -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_the_length_of_embeddings_says_nothing_in_any_precision(dtype, scale):
    """A hundred and more of 1e4 have a length that fp16 cannot hold."""
    z = (drawn(2, 4, 128).clamp(-6, 6) * scale).to(dtype)
    loss, gradient = with_gradient(nt_xent, z)
    assert loss.dtype == torch.float32 and torch.isfinite(gradient).all()
    assert loss.item() == pytest.approx(nt_xent(z.double()).item(), rel=1e-5)


def test_under_autocast_it_is_computed_in_float32():
    z = drawn(2, 8, 64).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nt_xent(z)
    assert loss.item() == pytest.approx(nt_xent(z.double()).item(), rel=1e-5)


@pytest.mark.parametrize("tau", [1e-4, 1e4])
def test_scores_of_ten_thousand_and_of_none_are_finite(tau):
    z = torch.stack([torch.eye(4), -torch.eye(4)]).requires_grad_()  # the positive is what is least alike
    loss = nt_xent(z, temperature=tau)
    loss.backward()
    expected = 1 / tau + math.log(6) if tau < 1 else math.log(7)
    assert loss.item() == pytest.approx(expected, rel=1e-3) and torch.isfinite(z.grad).all()


def test_found_at_once_it_costs_nothing_and_where_all_are_alike_the_logarithm_of_all_others():
    alike = torch.ones(2, 5, 3)
    assert nt_xent(alike).item() == pytest.approx(math.log(2 * 5 - 1))
    assert nt_xent(torch.eye(6).expand(2, 6, 6), temperature=0.01).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("crops", "given", "said"),
    [
        (1, {}, "1 crop"),
        (2, {"temperature": 0.0}, "temperature=0.0"),
    ],
)
def test_what_has_no_meaning_is_refused(crops, given, said):
    with pytest.raises(ValueError, match=said):
        nt_xent(torch.zeros(crops, 2, 3), **given)
