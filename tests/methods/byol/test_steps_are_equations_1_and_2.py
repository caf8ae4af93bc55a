"""Whole steps of BYOL's trainer beside Eqs. 1 and 2 written out in float64: heads, losses, gradients, clipping, three
optimisers with a decay that moves, the target and its rate. The reference shares the backbone's forward pass alone,
and goes its own way from the first step on."""

import copy
import math

import pytest
import torch
from safetensors.torch import save_file

from launcher.compose.training import resolve
from launcher.run import pins
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.dist import World
from launcher.runtime.preempt import StopFlag
from launcher.spec import registry
from methods import backbones, data
from methods.byol.trainer import BYOL
from methods.engine.job import Job
from methods.engine.loop import take_step

BATCH, STEPS, RATE, MOMENTUM = 8, 4, 0.05, 0.9
SMALL = (
    *("method=byol", "recipe=tiny", "method.dropout=0", f"method.global_batch={BATCH}", "data.images=80"),
    *(f"method.momentum={MOMENTUM}", "method.weight_decay=0.01", "method.local_crops=0", "method.clip=null"),
    *("method.final_weight_decay=null", "method.target_momentum=0.7"),
)
K = 20  # steps of the whole training


@pytest.fixture
def make(tmp_path):
    """`make("method.local_crops=2", ...)`: a trainer, in train mode, and its first steps' batches."""

    def made(*overrides):
        spec, _ = resolve([*SMALL, *overrides])
        world, run = World(0, 1, torch.device("cpu")), RunDir(tmp_path)
        (tmp_path / "events").mkdir()
        pins.lay(tmp_path, spec)
        layout = registry.method("byol").layout(spec.method, 1)
        dataset = data.build(spec.data, "train")
        trainer = BYOL(Job(run, spec, world, layout, Ledger(run.path, 1, "rank0"), StopFlag(), dataset))
        for network in trainer.networks:
            network.train()
        assert trainer.total_steps == K
        stream = trainer.steps(0, 0)
        return trainer, [next(stream) for _ in range(STEPS)]

    return made


def take(trainer, batches, step, rate=RATE):
    return take_step(trainer.job, trainer, torch.amp.GradScaler("cpu", enabled=False), batches, step, rate)


def head(layers, x):
    """Linear, normalised over the batch, the positive part, linear (Appendix A); biases as released."""
    first, scaled, _, last = layers
    hidden = x @ first.weight.T
    hidden = (hidden - hidden.mean(0)) / ((hidden - hidden.mean(0)) ** 2).mean(0).add(scaled.eps).sqrt()
    hidden = (hidden * scaled.weight + scaled.bias).clamp(min=0)
    assert last.bias is None
    return hidden @ last.weight.T


class Optimiser:
    """SGD with momentum, LARS (You et al. 2017, Algorithm 1, its rate outside of the momentum) or AdamW, as equations.
    What has one dimension neither decays nor adapts."""

    def __init__(self, kind, parameters):
        self.kind, self.k = kind, 0
        self.first = {name: torch.zeros_like(p) for name, p in parameters}
        self.second = {name: torch.zeros_like(p) for name, p in parameters}

    def step(self, name, p, g, decay):
        m, v, plain = self.first[name], self.second[name], p.dim() <= 1
        decay = 0 if plain else decay
        if self.kind == "adamw":
            m.copy_(0.9 * m + 0.1 * g)
            v.copy_(0.999 * v + 0.001 * g**2)
            a, b = m / (1 - 0.9**self.k), v / (1 - 0.999**self.k)
            return p - RATE * (a / (b.sqrt() + 1e-8) + decay * p)
        trust = 1.0
        if self.kind == "lars" and not plain:
            trust = 0.001 * p.norm() / (g.norm() + decay * p.norm() + 1e-8)
        m.copy_(MOMENTUM * m + trust * (g + decay * p))
        return p - RATE * m


def written_out(online, target, views, targets):
    """The sum over the target's views of the mean over others of Eq. 2, one image after the other."""
    z = [head(target.projection, target.backbone(view)) for view in views[:targets]]
    p = [head(online.projection, online.backbone(view)) for view in views]
    p = [head(online.predictor, each) for each in p] if hasattr(online, "predictor") else p
    total = 0.0
    for t in range(targets):
        for v in set(range(len(views))) - {t}:
            for n in range(BATCH):
                a, b = p[v][n], z[t][n].detach()
                total = total + (a / a.norm() - b / b.norm()).square().sum() / BATCH / (len(views) - 1)
    return total


@pytest.mark.parametrize(
    ("overrides", "first"),
    [
        pytest.param((), 0, id="two views"),
        pytest.param((), K - STEPS, id="the last steps"),
        pytest.param(("method.local_crops=2",), 0, id="local crops"),
        pytest.param(("method.global_crops=1", "method.local_crops=1"), 0, id="one global crop"),
        pytest.param(("method.predictor=false",), 0, id="without predictor"),
        pytest.param(("method.clip=0.05", "method.final_weight_decay=0.4"), 5, id="clipped, decay that moves"),
        pytest.param(("method.optimizer=lars", "method.final_weight_decay=0.4"), 5, id="lars"),
        pytest.param(("method.optimizer=adamw", "method.final_weight_decay=0.4"), 5, id="adamw"),
    ],
)
def test_several_steps_are_those_of_the_equations(make, float64, overrides, first):
    trainer, stream = make(*overrides)
    config = trainer.config
    online, target = (copy.deepcopy(each).double().train() for each in (trainer.online, trainer.target))
    optimiser = Optimiser(config.optimizer, list(online.named_parameters()))
    for k, batches in enumerate(stream, start=first):
        views = [v.double() for crops in trainer.photometrics(batches[0].images) for v in crops.split(BATCH)]
        loss = written_out(online, target, views, config.global_crops)
        gradients = torch.autograd.grad(loss, online.parameters())
        scalars = take(trainer, batches, k)
        torch.testing.assert_close(scalars["loss"].double(), loss.detach(), rtol=1e-8, atol=0)
        half = (math.cos(math.pi * k / K) + 1) / 2
        end = config.weight_decay if config.final_weight_decay is None else config.final_weight_decay
        decay, tau = end + (config.weight_decay - end) * half, 1 - (1 - config.target_momentum) * half
        optimiser.k += 1
        with torch.no_grad():
            for (name, p), g in zip(online.named_parameters(), gradients, strict=True):
                if config.clip:
                    g = g * min(1, config.clip / (g.norm().item() + 1e-6))
                p.copy_(optimiser.step(name, p, g, decay))
            for name, xi in target.named_parameters():
                xi.copy_(tau * xi + (1 - tau) * online.get_parameter(name))  # Eq. 1
    for ours, theirs in ((trainer.online, online), (trainer.target, target)):
        for name, value in theirs.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                found = ours.state_dict()[name].double()
                if name.partition(".")[0] in ("projection", "predictor") and "running" in name:
                    continue  # which the heads as written out have none of
                torch.testing.assert_close(found, value, rtol=1e-6, atol=1e-8, msg=lambda m, name=name: f"{name}: {m}")


def test_online_and_target_begin_apart_and_the_target_follows(make):
    trainer, stream = make()
    pairs = {
        name: (trainer.online.get_parameter(name), xi)
        for name, xi in trainer.target.named_parameters()
        if xi.dim() > 1  # scales and shifts begin at 1 and 0
    }
    apart = {name: (theta - xi).norm().item() for name, (theta, xi) in pairs.items()}
    assert min(apart.values()) > 0.1
    assert not any(name.startswith("predictor") for name in pairs)
    before = {name: xi.clone() for name, xi in trainer.target.named_parameters()}
    for step, batches in enumerate(stream):
        take(trainer, batches, step, rate=1e-3)
    for name, (theta, xi) in pairs.items():
        assert (theta - xi).norm().item() < 0.5 * apart[name], name
    for name, xi in trainer.target.named_parameters():
        assert xi.grad is None and not xi.requires_grad
        assert not torch.equal(xi, before[name]), name


def test_both_begin_with_the_backbone_of_init_from_and_with_heads_of_their_own(make, tmp_path):
    torch.manual_seed(5)
    given = backbones.build("small_vgg", dropout=0.0).state_dict()
    save_file({name: value.contiguous() for name, value in given.items()}, tmp_path / "weights.safetensors")
    trainer, _ = make(f"init_from={tmp_path / 'weights.safetensors'}")
    for network in (trainer.online, trainer.target):
        assert all(torch.equal(value, given[name]) for name, value in network.backbone.state_dict().items())
    assert not torch.equal(trainer.online.projection[0].weight, trainer.target.projection[0].weight)


@pytest.mark.parametrize(("k", "tau"), [(0, 0.9), (K // 2, 0.95), (K, 1.0)])
def test_the_rate_of_the_target_goes_from_its_base_to_one(make, k, tau):
    trainer, _ = make("method.target_momentum=0.9")
    with torch.no_grad():
        for theta, xi in zip(trainer.online.shared.parameters(), trainer.target.shared.parameters(), strict=True):
            theta.fill_(1.0)
            xi.zero_()
    trainer.after_step(k)
    for xi in trainer.target.parameters():
        torch.testing.assert_close(xi, torch.full_like(xi, 1 - tau), rtol=1e-5, atol=1e-7)


def test_the_target_has_its_own_batch_statistics(make):
    trainer, stream = make("method.target_momentum=1.0")
    weights = {name: value.clone() for name, value in trainer.target.named_parameters()}
    take(trainer, stream[0], 0)
    names = [name for name, _ in trainer.target.named_buffers() if name.endswith("running_mean")]
    assert len(names) > 1
    for name in names:
        own = trainer.target.get_buffer(name)
        assert own.any() and not torch.equal(own, trainer.online.get_buffer(name)), name
    for name, value in trainer.target.named_parameters():  # a rate of 1: a random target that stays
        assert torch.equal(value, weights[name]), name


def test_lars_leaves_biases_and_norms_alone_and_its_rate_outside_of_the_momentum(make):
    trainer, _ = make("method.optimizer=lars")
    (optimizer,) = trainer.optimizers
    vectors = {id(p) for group in optimizer.param_groups if not group["adapts"] for p in group["params"]}
    assert vectors == {id(p) for p in trainer.online.parameters() if p.dim() == 1}
    for group in optimizer.param_groups:
        assert not group["lr_in_momentum"] and group["weight_decay"] == (0.01 if group["adapts"] else 0.0)


def test_predictions_that_are_alike_are_seen(make):
    trainer, stream = make()
    assert trainer.watched.says(take(trainer, stream[0], 0)) is None
    with torch.no_grad():
        hidden = trainer.online.predictor[1]
        hidden.weight.mul_(1e-4)
        hidden.bias.fill_(1.0)
    found = take(trainer, stream[1], 1)
    assert "features differ in length and sign alone" in trainer.watched.says(found)
