"""What a trainer may do around a step: in which order it is asked, and what it finds."""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from launcher.runtime.dist import World
from methods.engine.loop import take_step
from methods.engine.trainer import Trainer
from methods.parts import ema
from methods.parts.optim import clip_each, drop_gradients, parameter_groups, set_weight_decay


def job(passes=1):
    return SimpleNamespace(
        world=World(0, 1, torch.device("cpu")),
        layout=SimpleNamespace(per_gpu_batch=4, accumulation=passes, batch_norm_ranks=1),
        config=SimpleNamespace(global_batch=4 * passes),
        seed_for=lambda *what: sum(map(len, map(str, what))),
        autocast=contextlib.nullcontext,
    )


class Plain(Trainer):
    """A linear layer and a head that is to produce zeros."""

    def __init__(self):
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(3, 5), nn.Linear(5, 2)
        self.networks = [self.body, self.head]
        groups = parameter_groups(self.networks, weight_decay=0.1)
        groups[1]["lr_scale"] = 0.5
        self.optimizers = [torch.optim.SGD(groups, lr=99.0)]
        self.asked = []

    def loss(self, batch, step):
        self.asked.append("loss")
        return self.head(self.body(batch)).square().mean(), {}


class Hooked(Plain):
    def __init__(self):
        super().__init__()
        self.teacher = nn.Linear(3, 5)
        ema.begin(self.teacher, self.body)

    def before_step(self, step):
        assert all(p.grad is None for p in self.body.parameters())
        assert [group["lr"] for group in self.optimizers[0].param_groups] == [0.2, 0.1]
        set_weight_decay(self.optimizers[0], step / 100)
        self.asked.append(f"before {step}")

    def after_backward(self, step):
        self.gradient = self.body.weight.grad.clone()
        self.before = self.body.weight.detach().clone()
        clip_each(self.body.parameters(), 1e-3)
        drop_gradients(self.head.parameters())
        self.asked.append(f"after backward {step}")

    def after_step(self, step):
        assert not torch.equal(self.before, self.body.weight)
        ema.follow(self.teacher, self.body, 0.9)
        self.asked.append(f"after {step}")


def batches(count=1):
    return [torch.randn(4, 3, generator=torch.Generator().manual_seed(i)) for i in range(count)]


def take(trainer, count=1, scaler=None, step=7):
    return take_step(
        job(count), trainer, scaler or torch.amp.GradScaler("cpu", enabled=False), batches(count), step, 0.2
    )


def test_a_trainer_without_hooks_steps_with_each_groups_share_of_the_rate():
    trainer = Plain()
    take(trainer)
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == [0.2, 0.1]
    assert trainer.asked == ["loss"]


def test_hooks_come_once_a_step_in_order_whatever_the_passes():
    trainer = Hooked()
    take(trainer, count=3)
    assert trainer.asked == ["before 7", "loss", "loss", "loss", "after backward 7", "after 7"]


def test_what_the_hooks_did_is_what_the_step_does():
    trainer = Hooked()
    head, teacher = trainer.head.weight.detach().clone(), trainer.teacher.weight.clone()
    take(trainer)
    assert torch.equal(head, trainer.head.weight)  # its gradient was dropped
    clipped = trainer.gradient * 1e-3 / trainer.gradient.norm()
    expected = trainer.before - 0.2 * (clipped + 0.07 * trainer.before)
    torch.testing.assert_close(trainer.body.weight.detach(), expected)
    torch.testing.assert_close(trainer.teacher.weight, 0.9 * teacher + 0.1 * trainer.body.weight)


def test_a_step_is_a_function_of_its_number():
    one, other = Hooked(), Hooked()
    take(one), take(other)
    assert all(torch.equal(*pair) for pair in zip(one.body.parameters(), other.body.parameters(), strict=True))


@pytest.mark.parametrize("scale", [1.0, 2.0**10])
def test_a_hook_finds_gradients_of_their_true_scale(scale):
    trainer = Hooked()
    take(trainer, scaler=torch.amp.GradScaler("cpu", init_scale=scale))
    other = Hooked()
    take(other)
    torch.testing.assert_close(trainer.gradient, other.gradient)
    torch.testing.assert_close(trainer.body.weight, other.body.weight)
