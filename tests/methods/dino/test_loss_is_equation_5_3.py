"""DINO's loss, its gradient and its centre over several steps, written out from thesis Eqs. 5.1 to 5.5 in float64."""

import math

import pytest
import torch

from methods.dino.loss import distillation
from methods.dino.teacher import Centre, teacher_targets
from methods.parts.losses import mean_square

TAU_S, TAU_T, M = 0.1, 0.04, 0.9
GLOBAL, VIEWS, IMAGES, K = 2, 5, 4, 7


def outputs(step, views=VIEWS, scale=0.5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(step)
    return (torch.randn(views, IMAGES, K, generator=generator, dtype=torch.float64) * scale + 0.3).to(dtype)


def softmax(scores, tau):
    e = torch.exp(scores / tau)
    return e / e.sum()


def equation(student, P_t):
    """(Eq. 5.3, mean entropy of P_t, mean KL), one image, one x and one x' after the other; over the terms' number."""
    cross, entropies, divergences = [], [], []
    for n in range(IMAGES):
        for x in range(GLOBAL):
            for other in range(VIEWS):
                if other != x:
                    t, s = P_t[x][n], softmax(student[other, n], TAU_S)
                    positive = t > 0
                    cross.append(-(t * torch.log(s)).sum())
                    entropies.append(-(t[positive] * torch.log(t[positive])).sum())
                    divergences.append((t[positive] * torch.log(t[positive] / s[positive])).sum())
    assert len(cross) == IMAGES * GLOBAL * (VIEWS - 1)
    return tuple(sum(terms) / len(terms) for terms in (cross, entropies, divergences))


def sharpened(teacher, c):
    """P_t as Algorithm 1 has it."""
    return [[softmax(teacher[x, n] - c, TAU_T) for n in range(IMAGES)] for x in range(GLOBAL)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_gradients_and_centres_of_five_steps_are_those_of_the_equations(dtype):
    centre, c = Centre(K, momentum=M), torch.zeros(K, dtype=torch.float64)
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    for step in range(5):
        student, teacher = outputs(2 * step).requires_grad_(), outputs(2 * step + 1, GLOBAL)
        expected, entropy, divergence = equation(student, sharpened(teacher, c))
        (expected_gradient,) = torch.autograd.grad(expected, student)

        given, taught = student.detach().to(dtype).requires_grad_(), teacher.to(dtype)
        targets = teacher_targets(taught, centre.value, temperature=TAU_T)
        loss, figures = distillation(given, targets, temperature=TAU_S)
        centre.update(taught)  # after the loss
        (gradient,) = torch.autograd.grad(loss, given)

        torch.testing.assert_close(loss.double(), expected.detach(), **tolerance)
        torch.testing.assert_close(gradient.double(), expected_gradient, **tolerance)
        torch.testing.assert_close(figures["teacher_entropy"].double(), entropy.detach(), **tolerance)
        torch.testing.assert_close(figures["teacher_kl"].double(), divergence.detach(), **tolerance)

        rows = [teacher[x, n] for x in range(GLOBAL) for n in range(IMAGES)]
        c = M * c + (1 - M) * sum(rows) / len(rows)  # Eq. 5.4
        torch.testing.assert_close(centre.value.double(), c, rtol=1e-5, atol=1e-6)


def test_the_targets_of_a_step_are_centred_by_the_steps_before_alone():
    centre, teacher = Centre(K, momentum=0), outputs(0, GLOBAL)
    before = teacher_targets(teacher, centre.value, temperature=TAU_T)
    assert (before == teacher_targets(teacher, torch.zeros(K), temperature=TAU_T)).all()
    centre.update(teacher)
    torch.testing.assert_close(centre.value.double(), teacher.mean((0, 1)))  # m = 0: of this batch alone
    after = teacher_targets(teacher, centre.value, temperature=TAU_T)
    assert (after - before).abs().max() > 0.1


def test_a_centre_that_goes_on_is_the_centre_that_was():
    one, other = Centre(K), Centre(K)
    one.update(outputs(0))
    other.load_state({key: value.clone() for key, value in one.state().items()})
    for each in (one, other):
        each.update(outputs(1))
    assert (one.value == other.value).all()


# -- what becomes of the teacher's output ------------------------------------------------------------------------------


def test_temperature_zero_is_the_argmax_and_the_limit_of_small_ones():
    teacher, c = outputs(1, GLOBAL), outputs(2).mean((0, 1))
    targets = teacher_targets(teacher, c, temperature=0)
    assert targets.unique().tolist() == [0, 1]
    assert (targets.argmax(-1) == (teacher - c).argmax(-1)).all() and (targets.sum(-1) == 1).all()
    torch.testing.assert_close(targets, teacher_targets(teacher, c, temperature=1e-6))
    loss, figures = distillation(outputs(3), targets)
    assert figures["teacher_entropy"] == 0 and figures["teacher_kl"] == loss
    torch.testing.assert_close(loss, equation(outputs(3), targets)[0])


def test_without_centring_there_is_sharpening_alone():
    teacher, c = outputs(1, GLOBAL), outputs(2).mean((0, 1))
    found = teacher_targets(teacher, c, temperature=TAU_T, operation="none")
    expected = torch.stack([torch.stack(rows) for rows in sharpened(teacher, torch.zeros(K))])
    torch.testing.assert_close(found, expected)


def test_softmax_over_the_batch_and_sinkhorn_are_those_of_4_2_2_for_each_view():
    teacher, c = outputs(1, GLOBAL), outputs(2).mean((0, 1))
    for operation, iterations in (("softmax", 1), ("sinkhorn", 3)):
        found = teacher_targets(teacher, c, temperature=TAU_T, operation=operation)
        for view in range(GLOBAL):
            Q = torch.exp(teacher[view] / TAU_T)
            for _ in range(iterations):
                Q = Q / Q.sum(0, keepdim=True)
                Q = Q / Q.sum(1, keepdim=True)
            torch.testing.assert_close(found[view], Q)


def test_the_two_collapses_of_figure_5_8():
    constant = torch.zeros(VIEWS, IMAGES, K)
    one_sided = constant.clone()
    one_sided[..., 2] = 9.0
    for out, entropy in ((constant, math.log(K)), (one_sided, 0.0)):
        targets = teacher_targets(out[:GLOBAL], torch.zeros(K), temperature=TAU_T)
        _, figures = distillation(out, targets)
        assert figures["teacher_entropy"].item() == pytest.approx(entropy, abs=1e-5)
        assert figures["teacher_kl"].item() == pytest.approx(0, abs=1e-5)
    # Centred, an output that is the same for every image says nothing.
    targets = teacher_targets(one_sided[:GLOBAL], one_sided[0, 0], temperature=TAU_T)
    torch.testing.assert_close(targets, torch.full_like(targets, 1 / K))


def test_the_square_error_is_that_of_unit_vectors_without_sharpening():
    student, teacher, c = outputs(1).requires_grad_(), outputs(2, GLOBAL), outputs(3).mean((0, 1))
    terms = []
    for n in range(IMAGES):
        for x in range(GLOBAL):
            for other in set(range(VIEWS)) - {x}:
                t, s = teacher[x, n] - c, student[other, n]
                terms.append((t / t.norm() - s / s.norm()).square().sum())
    expected = sum(terms) / len(terms)
    found = mean_square(student, teacher - c)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(each, student)[0] for each in (found, expected)]
    torch.testing.assert_close(*gradients)


# -- bounds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("operation", ["centring", "none", "softmax", "sinkhorn"])
def test_extreme_outputs_give_finite_losses_and_gradients(operation, dtype):
    for scale in (0.0, 1.0, 1e4):
        student = outputs(0, scale=scale).to(dtype).requires_grad_()
        teacher = outputs(1, GLOBAL, scale=scale).to(dtype)
        for temperature in (0, 0.01, 0.07) if operation in ("centring", "none") else (0.01, 0.07):
            targets = teacher_targets(teacher, torch.zeros(K), temperature=temperature, operation=operation)
            assert targets.dtype == torch.float32 and not targets.requires_grad
            torch.testing.assert_close(targets.sum(-1), torch.ones(GLOBAL, IMAGES))
            for loss in (distillation(student, targets)[0], mean_square(student, teacher)):
                (gradient,) = torch.autograd.grad(loss, student)
                assert torch.isfinite(loss) and torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"temperature": -0.1}, "temperature=-0.1"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": 0, "operation": "sinkhorn"}, "temperature=0"),
        ({"temperature": 0, "operation": "softmax"}, "temperature=0"),
        ({"temperature": 0.1, "operation": "centering"}, "operation=centering"),
    ],
)
def test_a_teacher_that_cannot_be_is_refused(wrong, field):
    with pytest.raises(ValueError, match=field):
        teacher_targets(torch.zeros(2, 2, 3), torch.zeros(3), **wrong)


def test_a_centre_that_never_moves_and_a_student_without_temperature_are_refused():
    with pytest.raises(ValueError, match="momentum=1"):
        Centre(3, momentum=1)
    with pytest.raises(ValueError, match="temperature=0"):
        distillation(torch.zeros(2, 2, 3), torch.ones(1, 2, 3), temperature=0)
