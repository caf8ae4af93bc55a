"""Several steps of the trainer beside thesis Eqs. 5.1 to 5.5 in float64: loss, centre, student and teacher.

The reference shares the backbone's forward pass with the trainer; all else is written out: head, targets, loss,
clipping, frozen layer, optimiser, schedules, centre and teacher. The optimiser is SGD: what AdamW makes of a gradient
that is 0 but for rounding is a matter of rounding.
"""

import contextlib
import copy
import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from launcher.runtime.checkpoint import Owners
from launcher.runtime.dist import World
from methods.dino.spec import tiny
from methods.dino.trainer import DINO
from methods.engine.loop import take_step

IMAGES, PER_EPOCH, EPOCHS, RATE = 4, 3, 2, 0.05
VIEWS, GLOBAL = 4, 2


class Views(list):
    """Crops that are what the network sees."""

    def to(self, device, non_blocking=False):
        return self


def batch(step):
    generator = torch.Generator().manual_seed(step)
    sizes = ((GLOBAL, 16), (VIEWS - GLOBAL, 8))
    crops = Views(torch.randn(views * IMAGES, 3, size, size, generator=generator) for views, size in sizes)
    return SimpleNamespace(images=crops, ids=range(IMAGES))


def job(**values):
    fixed = {"predictor": False, "head_batch_norm": False, "drop_path": 0.0, "optimizer": "sgd"}
    scale = {"epochs": EPOCHS, "global_batch": IMAGES, "clip": 0.02, "freeze_epochs": 2 / 3, "teacher_momentum": 0.7}
    config = dataclasses.replace(tiny().method, **{**fixed, **scale, **values})
    world = World(0, 1, torch.device("cpu"))
    return SimpleNamespace(
        config=config,
        world=world,
        layout=SimpleNamespace(per_gpu_batch=IMAGES, accumulation=1, batch_norm_ranks=1),
        spec=SimpleNamespace(seed=0, init_from=None),
        dataset=range(PER_EPOCH * IMAGES),
        owners=Owners(world),
        seed_for=lambda *what: sum(map(len, map(str, what))),
        distribute=lambda module: module,
        autocast=contextlib.nullcontext,
    )


def trainer_of(given):
    trainer = DINO(given)
    trainer.photometrics = lambda crops: crops
    for network in trainer.networks:
        network.train()
    return trainer


def take(trainer, step):
    trainer_job = trainer.job
    return take_step(trainer_job, trainer, torch.amp.GradScaler("cpu", enabled=False), [batch(step)], step, RATE)


def parameters(network):
    """{name: tensor} of what is common to student and teacher."""
    return {name: value for name, value in network.named_parameters() if not name.startswith("predictor.")}


class Reference:
    """The same in float64."""

    def __init__(self, trainer):
        self.config = trainer.job.config
        self.student, self.teacher = (copy.deepcopy(each).double() for each in (trainer.student, trainer.teacher))
        self.c = torch.zeros(self.config.outputs, dtype=torch.float64)
        self.moving = {}
        self.taken = 0

    def outputs(self, network, crops):
        features = torch.cat([network.backbone(images.double()) for images in crops])
        x, layers = features, list(network.head.perceptron)
        for layer in layers:
            x = layer(x) if isinstance(layer, nn.Linear) else 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
        x = x / x.square().sum(1, keepdim=True).sqrt()
        rows = network.head.last.parametrizations.weight  # Salimans & Kingma 2016, Eq. 2
        g, v = rows.original0, rows.original1
        return (x @ (g * v / v.square().sum(1, keepdim=True).sqrt()).T).unflatten(0, (-1, IMAGES))

    def targets(self, taught, tau):
        centred = taught - self.c if self.config.operation == "centring" else taught
        if tau == 0:
            return (centred == centred.max(-1, keepdim=True).values).double()
        e = torch.exp(centred / tau)
        return e / e.sum(-1, keepdim=True)

    def loss(self, crops, tau):
        with torch.no_grad():
            taught = self.outputs(self.teacher, crops[:1])
        g_s, terms = self.outputs(self.student, crops), []
        for x in range(GLOBAL):
            for other in set(range(VIEWS)) - {x}:
                for n in range(IMAGES):
                    if self.config.objective == "mse":
                        t, s = taught[x, n] - (self.c if self.config.operation == "centring" else 0), g_s[other, n]
                        terms.append((t / t.norm() - s / s.norm()).square().sum())
                    else:
                        e = torch.exp(g_s[other, n] / self.config.temperature)
                        terms.append(-(self.targets(taught, tau)[x, n] * torch.log(e / e.sum())).sum())
        rows = taught.flatten(0, 1)
        m = self.config.centre_momentum
        self.c = m * self.c + (1 - m) * sum(rows) / len(rows)  # Eq. 5.4
        return sum(terms) / len(terms)

    def step(self, crops):
        config, step, steps = self.config, self.taken, PER_EPOCH * EPOCHS
        half = 0.5 * (1 + math.cos(math.pi * step / steps))  # from 1 to 0
        decay = config.final_weight_decay + (config.weight_decay - config.final_weight_decay) * half
        inertia = config.final_teacher_momentum + (config.teacher_momentum - config.final_teacher_momentum) * half
        warm = min(1, step / (config.teacher_warmup_epochs * PER_EPOCH)) if config.teacher_warmup_epochs else 1
        tau = config.warmup_teacher_temperature * (1 - warm) + config.teacher_temperature * warm

        loss = self.loss(crops, tau)
        named = {name: p for name, p in self.student.named_parameters() if p.requires_grad}
        gradients = dict(zip(named, torch.autograd.grad(loss, named.values()), strict=True))
        before = {name: p.detach().clone() for name, p in self.student.named_parameters()}
        with torch.no_grad():
            for name, p in named.items():
                if name.startswith("head.last.") and step < config.freeze_epochs * PER_EPOCH:
                    continue
                g = gradients[name] * min(1, config.clip / gradients[name].norm().item())
                self._update(name, p, g, decay if p.dim() > 1 else 0.0)
            self._teach(inertia, before)
        self.taken += 1
        return loss.item()

    def _update(self, name, p, g, decay):
        self.moving[name] = 0.9 * self.moving.get(name, 0) + g + decay * p
        p -= RATE * self.moving[name]

    def _teach(self, inertia, before):
        now = dict(self.student.named_parameters())
        for name, p in self.teacher.named_parameters():
            kind = self.config.teacher
            if kind == "momentum":
                p.copy_(inertia * p + (1 - inertia) * now[name])
            elif kind == "copy" or (kind == "last_epoch" and (self.taken + 1) % PER_EPOCH == 0):
                p.copy_(now[name])
            elif kind == "last_step":
                p.copy_(before[name])


CASES = {
    "the paper's": {},
    "rows of free length": {"fixed_length": False, "teacher_warmup_epochs": 0},
    "argmax": {"teacher_temperature": 0.0, "warmup_teacher_temperature": 0.0},
    "no centring": {"operation": "none"},
    "square error": {"objective": "mse"},
    "square error, no centring": {"objective": "mse", "operation": "none"},
    "last epoch": {"teacher": "last_epoch"},
    "last step": {"teacher": "last_step"},
    "copy": {"teacher": "copy"},
}


@pytest.mark.parametrize("case", CASES)
def test_steps_are_those_of_the_equations(float64, case):
    trainer = trainer_of(job(**CASES[case]))
    reference = Reference(trainer)
    drawn = trainer.student.last.weight.detach().clone()
    for step in range(PER_EPOCH * EPOCHS):
        assert (step <= 2) == torch.equal(drawn, trainer.student.last.weight)  # as drawn for two thirds of an epoch
        found = take(trainer, step)
        assert found["loss"].item() == pytest.approx(reference.step(batch(step).images), rel=1e-4)
        torch.testing.assert_close(trainer.centre.value.double(), reference.c, rtol=1e-4, atol=1e-6)
        for mine, theirs in ((trainer.student, reference.student), (trainer.teacher, reference.teacher)):
            for name, value in parameters(mine).items():
                expected = dict(theirs.named_parameters())[name]
                torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=2e-6, msg=f"{name}, step {step}")


def test_adamw_gets_the_schedules_rate_and_decay_but_for_biases_and_the_like():
    trainer = trainer_of(job(optimizer="adamw"))
    for step, decay in ((0, 0.04), (3, 0.22), (6, 0.4)):  # half a cosine
        take(trainer, step)
        (optimizer,) = trainer.optimizers
        assert type(optimizer) is torch.optim.AdamW
        assert [group["lr"] for group in optimizer.param_groups] == [RATE, RATE]
        assert [group["weight_decay"] for group in optimizer.param_groups] == pytest.approx([decay, 0])
    assert all(p.ndim > 1 for p in optimizer.param_groups[0]["params"])
    assert all(p.ndim == 1 for p in optimizer.param_groups[1]["params"])


def test_the_teacher_drops_no_path_and_has_no_predictor_and_the_student_does():
    trainer = trainer_of(job(drop_path=0.9, predictor=True, head_batch_norm=True))
    crops = batch(0).images
    with torch.no_grad():
        assert torch.equal(trainer.teacher(crops), trainer.teacher(crops))
        assert not torch.equal(trainer.student(crops), trainer.student(crops))
    names = [name for name, _ in trainer.student.named_parameters() if name.startswith("predictor.")]
    assert names and not any(name.startswith("predictor.") for name, _ in trainer.teacher.named_parameters())
    assert not any(p.requires_grad for p in trainer.teacher.parameters())
    taught = {name: value.clone() for name, value in parameters(trainer.teacher).items()}
    for step in range(4):
        take(trainer, step)
    followed = [not torch.equal(value, parameters(trainer.teacher)[name]) for name, value in taught.items()]
    assert sum(followed) > 0.9 * len(followed)


def test_batch_statistics_are_the_teachers_own():
    trainer = trainer_of(job(head_batch_norm=True))
    for step in range(2):
        take(trainer, step)
    of = [{k: v for k, v in network.named_buffers() if k.endswith("running_mean")} for network in trainer.networks]
    assert of[0].keys() == of[1].keys() and of[0]
    for name, value in of[1].items():
        assert value.any() and not torch.equal(value, of[0][name])  # of the global crops alone


@pytest.mark.parametrize("bottleneck", [8, 0])
def test_scores_are_fp32_whatever_the_precision(bottleneck):
    trainer = trainer_of(job(bottleneck=bottleneck, predictor=False))
    crops = batch(0).images
    with torch.no_grad():
        exact = trainer.teacher(crops)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = trainer.teacher(crops)
    assert found.dtype == torch.float32
    rounded = found.bfloat16().float()
    assert (found != rounded).any() and (found - exact).abs().max() < 0.1


def test_what_is_logged_is_figure_5_8():
    found = take(trainer_of(job()), 0)
    torch.testing.assert_close(found["loss"], found["teacher_entropy"] + found["teacher_kl"])  # Eq. 5.5
    assert 0 < found["teacher_use"] <= math.log(24)


@pytest.mark.parametrize(("outputs", "said"), [("uniform", "outputs are uniform"), ("one", "all images fall to one")])
def test_both_collapses_are_seen_in_what_is_logged(outputs, said):
    trainer = trainer_of(job(head_layers=1, bottleneck=0, operation="none"))
    assert trainer.watched.says(take(trainer, 0)) is None
    trainer = trainer_of(job(head_layers=1, bottleneck=0, operation="none"))
    layer = trainer.teacher.last
    layer.weight.zero_()
    layer.bias.zero_()[3] = 9.0 if outputs == "one" else 0.0
    assert said in trainer.watched.says({name: value.item() for name, value in take(trainer, 0).items()})


@pytest.mark.parametrize("operation", ["centring", "none"])
def test_outputs_that_are_alike_are_seen_where_the_loss_has_no_classes(operation):
    trainer = trainer_of(job(objective="mse", operation=operation, head_layers=1, bottleneck=0))
    assert trainer.watched.says(take(trainer, 0)) is None
    trainer.teacher.last.weight.mul_(1e-3)
    trainer.teacher.last.bias.fill_(0.3)
    assert "features differ in length and sign alone" in trainer.watched.says(take(trainer, 1))
