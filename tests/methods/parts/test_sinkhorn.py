"""Sinkhorn-Knopp against the algorithm of thesis 4.2.2 in float64, and against what Eqs. 4.3 and 4.5 say of its end."""

import pytest
import torch

from methods.parts.sinkhorn import sinkhorn

EPSILON = 0.05
SHAPES = [(24, 6), (6, 24), (7, 7), (1, 5), (5, 1)]  # more classes than samples is legal


def cosines(samples, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(samples, classes, generator=generator, dtype=torch.float64) * 2 - 1


def algorithm(Z, iterations, epsilon=EPSILON):
    """The rows of 4.2.2: exp, then each class by its weight and each sample by its weight, in turn."""
    Q = torch.exp(Z / epsilon)
    for _ in range(iterations):
        for k in range(Z.shape[1]):
            Q[:, k] = Q[:, k] / Q[:, k].sum()
        for b in range(Z.shape[0]):
            Q[b] = Q[b] / Q[b].sum()
    return Q


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_it_is_the_papers_algorithm(shape, iterations):
    Z = cosines(*shape)
    expected = algorithm(Z.clone(), iterations)
    torch.testing.assert_close(sinkhorn(Z, epsilon=EPSILON, iterations=iterations), expected, rtol=1e-9, atol=1e-12)
    found = sinkhorn(Z.float(), epsilon=EPSILON, iterations=iterations)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_one_iteration_is_a_softmax_over_the_batch_divided_by_the_sums_of_its_rows():
    Z = cosines(12, 5)
    Q = torch.softmax(Z / EPSILON, dim=0)
    torch.testing.assert_close(sinkhorn(Z, epsilon=EPSILON, iterations=1), Q / Q.sum(1, keepdim=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_at_its_fixed_point_samples_sum_to_one_and_classes_to_their_equal_share(shape):
    samples, classes = shape
    Z = cosines(*shape)
    Q = sinkhorn(Z, epsilon=0.3, iterations=400)
    torch.testing.assert_close(Q.sum(1), torch.ones(samples, dtype=torch.float64))
    torch.testing.assert_close(Q.sum(0), torch.full((classes,), samples / classes, dtype=torch.float64))
    torch.testing.assert_close(Q, sinkhorn(Z, epsilon=0.3, iterations=401))
    # Eq. 4.5: log Q - Z / epsilon is log u_k + log v_b, which centring rows and columns takes away.
    rest = Q.log() - Z / 0.3
    rest = rest - rest.mean(0) - rest.mean(1, keepdim=True) + rest.mean()
    assert rest.abs().max() < 1e-9


def test_more_iterations_bring_shares_closer_to_equal():
    Z = cosines(64, 8)
    off = [(sinkhorn(Z, epsilon=EPSILON, iterations=n).sum(0) - 8).abs().max().item() for n in (1, 3, 10, 100)]
    assert off == sorted(off, reverse=True) and off[-1] < 0.1 * off[0]


def test_leading_dimensions_are_problems_of_their_own():
    Z = torch.stack([cosines(9, 4, seed) for seed in range(3)])
    expected = torch.stack([sinkhorn(z, epsilon=EPSILON) for z in Z])
    torch.testing.assert_close(sinkhorn(Z, epsilon=EPSILON), expected)


def test_rounding_takes_the_largest_of_each_sample():
    Z = cosines(30, 7)
    Q = sinkhorn(Z, epsilon=EPSILON)
    rounded = sinkhorn(Z, epsilon=EPSILON, rounded=True)
    assert rounded.unique().tolist() == [0, 1] and (rounded.sum(1) == 1).all()
    assert (rounded.argmax(1) == Q.argmax(1)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    Z = cosines(16, 5).to(dtype)
    found = sinkhorn(Z, epsilon=EPSILON)
    assert found.dtype == torch.float32
    assert (found == sinkhorn(Z.float(), epsilon=EPSILON)).all()


@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize("scale", [1e-30, 1e2, 6e4, 1e30])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_scores_give_anything_but_shares(shape, scale, iterations):
    cases = [cosines(*shape) * scale, torch.zeros(*shape), torch.full(shape, scale), torch.full(shape, -scale)]
    one_for_all = torch.zeros(*shape)
    one_for_all[:, 0] = scale
    for scores in (*cases, one_for_all, -one_for_all):
        Q = sinkhorn(scores.float(), epsilon=EPSILON, iterations=iterations)
        assert torch.isfinite(Q).all() and (Q >= 0).all()
        torch.testing.assert_close(Q.sum(-1), torch.ones(shape[0]))


def test_it_changes_no_scores_and_passes_on_no_gradient():
    Z = cosines(8, 4).float().requires_grad_()
    before = Z.detach().clone()
    assert not sinkhorn(Z, epsilon=1.0).requires_grad
    assert torch.equal(Z, before)


@pytest.mark.parametrize("wrong", [{"epsilon": 0}, {"epsilon": -1}, {"epsilon": 1, "iterations": 0}])
def test_what_makes_no_assignment_is_refused(wrong):
    with pytest.raises(ValueError, match=next(reversed(wrong))):
        sinkhorn(torch.zeros(2, 2), **wrong)
