"""A network that follows another: its formula, its ends, what of it follows, and that a stop changes nothing."""

import copy

import pytest
import torch
from torch import nn

from launcher.runtime.stateful import ModuleState
from methods.parts import ema


def network(seed):
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3))
    made(torch.randn(9, 5))  # running statistics of its own
    return made


def same(one, other):
    return all(torch.equal(mine, theirs) for mine, theirs in zip(one.values(), other.values(), strict=True))


def test_a_teacher_begins_as_its_student_and_takes_no_gradient():
    teacher, student = network(0), network(1)
    ema.begin(teacher, student)
    assert same(teacher.state_dict(), student.state_dict())
    assert not any(p.requires_grad for p in teacher.parameters())
    student[0].weight.data += 1
    assert not torch.equal(teacher[0].weight, student[0].weight)


def test_parameters_follow_their_formula_over_many_steps():
    teacher, student = network(0), network(1)
    expected = [p.detach().double() for p in teacher.parameters()]
    for step in range(20):
        momentum = 0.9 + step / 200
        for p in student.parameters():
            p.data += 0.1 * torch.randn_like(p)
        for slow, fast in zip(expected, student.parameters(), strict=True):
            slow.mul_(momentum).add_(fast.double(), alpha=1 - momentum)
        ema.follow(teacher, student, momentum)
    for slow, wanted in zip(teacher.parameters(), expected, strict=True):
        assert slow.dtype == torch.float32
        torch.testing.assert_close(slow.double(), wanted, rtol=1e-5, atol=1e-6)


def test_a_momentum_of_one_changes_no_bit_and_of_zero_copies():
    teacher, student = network(0), network(1)
    before = copy.deepcopy(teacher.state_dict())
    ema.follow(teacher, student, 1.0)
    assert same(before, teacher.state_dict())
    ema.follow(teacher, student, 0.0)
    assert same(dict(teacher.named_parameters()), dict(student.named_parameters()))


def test_buffers_stay_as_they_are():
    teacher, student = network(0), network(1)
    student(torch.randn(9, 5))
    before = [buffer.clone() for buffer in teacher.buffers()]
    ema.follow(teacher, student, 0.9)
    assert all(torch.equal(*pair) for pair in zip(before, teacher.buffers(), strict=True))


def test_a_teacher_that_is_restored_follows_to_the_same_bits():
    teacher, student = network(0), network(1)
    for _ in range(3):
        ema.follow(teacher, student, 0.99)
    resumed = network(2)
    saved = {name: value.clone() for name, value in ModuleState(teacher).state().items()}
    ModuleState(resumed).load_state(saved)
    for each in (teacher, resumed):
        for _ in range(3):
            ema.follow(each, student, 0.999)
    assert same(teacher.state_dict(), resumed.state_dict())


def test_networks_that_are_not_alike_are_refused():
    with pytest.raises(ValueError, match="not alike"):
        ema.follow(network(0), nn.Linear(5, 7), 0.9)
    with pytest.raises(RuntimeError):
        ema.begin(network(0), nn.Linear(5, 7))
