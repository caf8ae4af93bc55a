"""Heads: their shapes, where normalisation stands, how they begin, and what stays of length one."""

import copy

import pytest
import torch
from torch import nn

from methods.parts.heads import Prototypes, build
from methods.parts.shapes import Bottleneck, Head, Once, Perceptron


def perceptron(*widths, **options):
    return build(Perceptron(widths, **options))


def kinds(module):
    return [type(layer).__name__ for layer in module]


def test_a_perceptron_normalises_and_activates_between_its_layers():
    head = perceptron(6, 8, 8, 4)
    assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert [layer.bias is None for layer in head if isinstance(layer, nn.Linear)] == [True, True, False]
    assert head(torch.randn(5, 6)).shape == (5, 4)


def test_its_options():
    assert kinds(perceptron(6, 8, 4, batch_norm=False, activation="gelu")) == ["Linear", "GELU", "Linear"]
    both = perceptron(6, 8, 4, last_batch_norm=True)
    assert kinds(both) == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert both[3].bias is None
    assert kinds(perceptron(6, 4)) == ["Linear"]
    with pytest.raises(KeyError):
        perceptron(6, 8, 4, activation="tanh")


def test_the_last_layer_may_go_without_a_bias_and_is_counted_so():
    with_bias, without = Perceptron((6, 8, 4)), Perceptron((6, 8, 4), last_bias=False)
    assert build(without)[-1].bias is None and build(without)[0].bias is None
    for shape in (with_bias, without):
        assert shape.parameters == sum(p.numel() for p in build(shape).parameters())
    assert build(Once(without))[-1].bias is None
    with pytest.raises(TypeError, match="in the network's own code"):
        build(Head())


def test_the_last_normalisation_may_go_without_a_shift_which_is_there_and_stays_0():
    shape = Perceptron((6, 8, 4), last_batch_norm=True, last_shift=False)
    head = build(shape)
    fixed = [name for name, p in head.named_parameters() if not p.requires_grad]
    assert fixed == ["4.bias"] and not head[4].bias.any()
    assert shape.parameters == sum(p.numel() for p in head.parameters())
    assert all(p.requires_grad for p in perceptron(6, 8, 4, last_batch_norm=True).parameters())


def dino(widths=(6, 16, 16, 8), outputs=50, fixed_length=True, batch_norm=False, activation="gelu"):
    torch.manual_seed(0)
    return build(Bottleneck(Perceptron(widths, batch_norm, activation), outputs, fixed_length))


def test_dinos_head_has_the_layers_of_the_thesis():
    head = dino()
    assert kinds(head.perceptron) == ["Linear", "GELU", "Linear", "GELU", "Linear"]
    assert [layer.out_features for layer in head.perceptron[::2]] == [16, 16, 8]
    assert head(torch.randn(5, 6)).shape == (5, 50)
    weights = torch.cat([layer.weight.detach().flatten() for layer in head.perceptron[::2]])
    assert weights.std().item() == pytest.approx(0.02, rel=0.1) and weights.abs().max() <= 2
    assert not any(layer.bias.any() for layer in head.perceptron[::2])


def test_dinos_scores_are_cosines():
    head, x = dino(), torch.randn(5, 6) * 100
    rows = head.last.weight
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(50))
    torch.testing.assert_close(head(x), nn.functional.cosine_similarity(head.perceptron(x)[:, None], rows, dim=2))


@pytest.mark.parametrize("fixed", [True, False])
def test_the_length_of_dinos_last_layer_is_trained_only_when_asked(fixed):
    head = dino(fixed_length=fixed)
    optimizer = torch.optim.SGD([p for p in head.parameters() if p.requires_grad], lr=10.0)
    before = head.last.weight.detach().clone()
    head(torch.randn(5, 6)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(before, head.last.weight)
    assert torch.allclose(head.last.weight.norm(dim=1), torch.ones(50)) == fixed


def test_a_teacher_is_a_copy_of_dinos_head_through_its_state():
    student, teacher = dino(), dino()
    for p in student.parameters():
        p.data += 0.1 * torch.randn_like(p)
    teacher.load_state_dict(student.state_dict())
    x = torch.randn(5, 6)
    assert torch.equal(teacher(x), student(x)) and torch.equal(copy.deepcopy(student)(x), student(x))


def test_without_the_bottleneck_the_perceptron_ends_with_the_scores():
    head = dino((6, 16, 50), 0, batch_norm=True, activation="relu")
    assert head.last is None
    assert kinds(head.perceptron) == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert head(torch.randn(5, 6)).shape == (5, 50)


def test_prototypes_have_length_one_from_the_start_and_after_each_normalisation():
    prototypes = Prototypes(6, 50)
    assert prototypes.bias is None
    torch.testing.assert_close(prototypes.weight.norm(dim=1), torch.ones(50))
    prototypes.weight.data *= torch.rand(50, 1) + 0.5
    direction = prototypes.weight / prototypes.weight.norm(dim=1, keepdim=True)
    prototypes.normalise()
    torch.testing.assert_close(prototypes.weight, direction)
    assert prototypes.weight.requires_grad
