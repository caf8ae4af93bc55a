import pytest
import torch

from launcher.kmeans import fit_whitening


def correlated(n=2000, d=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scales = torch.linspace(3, 0.2, d)
    mixing = torch.linalg.qr(torch.randn(d, d, generator=generator)).Q
    return (torch.randn(n, d, generator=generator) * scales) @ mixing + 5


def whitened(whitening, x):
    return (x - whitening.mean) @ whitening.projection


@pytest.mark.parametrize("dim", [10, 4])
def test_identity_covariance_before_normalisation(dim):
    x = correlated()
    covariance = whitened(fit_whitening(x, dim), x).T.cov()
    torch.testing.assert_close(covariance, torch.eye(dim), rtol=0, atol=1e-4)


def test_the_components_are_those_of_largest_variance():
    x = correlated()
    projection = fit_whitening(x, 4).projection
    variances = torch.linalg.eigvalsh(x.T.cov()).flip(0)[:4]
    torch.testing.assert_close(projection.norm(dim=0), variances.rsqrt(), rtol=1e-4, atol=0)


def test_rows_have_unit_norm_and_zero_stays_zero():
    x = correlated()
    whitening = fit_whitening(x, 4)
    torch.testing.assert_close(whitening.apply(x).norm(dim=1), torch.ones(len(x)))
    assert torch.equal(whitening.apply(whitening.mean[None]), torch.zeros(1, 4))


def test_the_sign_of_a_component_does_not_depend_on_the_order_of_the_data():
    x = correlated()
    shuffled = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(1))]
    projection = fit_whitening(x, 10).projection
    torch.testing.assert_close(projection, fit_whitening(shuffled, 10).projection, rtol=1e-4, atol=1e-5)
    assert (projection.gather(0, projection.abs().argmax(dim=0, keepdim=True)) > 0).all()


def test_the_floor_keeps_flat_directions_from_blowing_up():
    x = correlated()
    x = torch.cat([x, x[:, :1]], dim=1)  # a direction without variance
    projection = fit_whitening(x, 11).projection
    largest = torch.linalg.eigvalsh(x.T.cov())[-1]
    assert projection.norm(dim=0)[-1] == pytest.approx(float((1e-5 * largest).rsqrt()), rel=1e-3)
    assert fit_whitening(x, 11).apply(x).isfinite().all()


def test_constant_features_whiten_to_zero():
    x = torch.full((50, 3), 0.1)
    assert torch.equal(fit_whitening(x, 2).apply(x), torch.zeros(50, 2))
