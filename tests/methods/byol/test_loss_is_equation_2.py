"""The mean square of normalised outputs, written out in float64 from BYOL's Eq. 2 and its other direction."""

import pytest
import torch

from methods.parts.losses import mean_square


def outputs(views, images, d, seed, scale=1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(views, images, d, generator=generator, dtype=torch.float64) * scale).to(dtype)


def equation(p, z):
    """(the sum over directions of Eq. 2, its gradient by p): one image, one target's view and one other after the
    other; the gradient of 2 - 2 cos written out, too."""
    loss, gradient = 0.0, torch.zeros_like(p)
    targets, views, images = len(z), len(p), p.shape[1]
    for t in range(targets):
        for v in set(range(views)) - {t}:
            for n in range(images):
                share = 1 / ((views - 1) * images)
                a, b = p[v, n], z[t, n] / z[t, n].dot(z[t, n]).sqrt()
                length = a.dot(a).sqrt()
                loss += share * ((a / length - b) ** 2).sum()
                gradient[v, n] += share * -2 * (b - a * a.dot(b) / length**2) / length
    return loss, gradient


@pytest.mark.parametrize(("targets", "views", "images", "d"), [(2, 2, 5, 3), (2, 2, 1, 7), (2, 5, 3, 4), (1, 3, 2, 1)])
def test_it_is_the_sum_of_both_directions(targets, views, images, d):
    p, z = outputs(views, images, d, 0).requires_grad_(), outputs(targets, images, d, 1)
    loss = targets * mean_square(p, z)
    expected, gradient = equation(p.detach(), z)
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(torch.autograd.grad(loss, p)[0], gradient, rtol=1e-11, atol=1e-13)


def test_the_target_gets_no_gradient():
    p, z = (outputs(2, 3, 4, seed).requires_grad_() for seed in (0, 1))
    mean_square(p, z).backward()
    assert p.grad.any() and z.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_neither_overflows_nor_rounds_the_loss(dtype):
    """The square of 1e4 is beyond fp16, and so is the sum of 4096 of them."""
    p, z = (outputs(2, 2, 64, seed, 1e4, torch.float64).clamp(-6e4, 6e4).to(dtype) for seed in (0, 1))
    p.requires_grad_()
    loss = mean_square(p, z)
    expected, gradient = equation(p.detach().double(), z.double())
    torch.testing.assert_close(loss.double(), expected / 2, rtol=1e-6, atol=0)
    found = (
        torch.autograd.grad(loss * 1e4, p)[0].double() / 1e4
    )  # as a loss scale does: itself it is below fp16's range
    torch.testing.assert_close(found, gradient / 2, rtol=2e-2, atol=2e-8)


def test_under_autocast_it_is_as_outside():
    """bf16 has three digits: cosines near 1 would leave nothing of 2 - 2 cos."""
    z = outputs(2, 5, 64, 1, dtype=torch.float32)
    p = (z.flip(0) + outputs(2, 5, 64, 0, 1e-2, torch.float32)).requires_grad_()
    outside = mean_square(p, z)
    with torch.autocast("cpu", torch.bfloat16):
        inside = mean_square(p, z)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, outside, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(*(torch.autograd.grad(loss, p)[0] for loss in (inside, outside)), rtol=1e-5, atol=1e-7)


def test_outputs_that_are_zero_have_a_loss_and_a_gradient():
    p = torch.zeros(2, 3, 4, requires_grad=True)
    loss = mean_square(p, torch.ones(2, 3, 4))
    (gradient,) = torch.autograd.grad(loss, p)
    assert loss.item() == 2 and torch.isfinite(gradient).all()


def test_a_single_view_is_refused():
    with pytest.raises(ValueError, match="1 view"):
        mean_square(torch.ones(1, 2, 3), torch.ones(1, 2, 3))
