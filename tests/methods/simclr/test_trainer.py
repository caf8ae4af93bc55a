"""Whole steps of SimCLR's trainer beside Eq. 1 and LARS written out in float64: losses, gradients, the rate within the
momentum, what neither adapts nor decays; and what is said of embeddings that are alike."""

import copy

import pytest
import torch

from launcher.compose.training import resolve
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.dist import World
from launcher.runtime.preempt import StopFlag
from launcher.spec import registry
from methods import data
from methods.engine.collapse import likeness
from methods.engine.job import Job
from methods.engine.loop import take_step
from methods.simclr.trainer import SimCLR

TAU, MOMENTUM, DECAY, TRUST = 0.2, 0.9, 0.01, 0.001
RATES = (0.5, 1.0, 0.2, 2.0)  # which change from step to step: it matters where they are multiplied in
BATCH = 8
SMALL = (
    *("method=simclr", "recipe=tiny", "method.dropout=0", f"method.global_batch={BATCH}", "method.directions=mean"),
    *(f"method.temperature={TAU}", f"method.momentum={MOMENTUM}", f"method.weight_decay={DECAY}"),
)


@pytest.fixture
def make(tmp_path):
    """`make("method.local_crops=0", ...)`: a trainer, in train mode, and its first steps' batches."""

    def made(*overrides):
        spec, _ = resolve([*SMALL, *overrides])
        world, run = World(0, 1, torch.device("cpu")), RunDir(tmp_path)
        layout = registry.method("simclr").layout(spec.method, 1)
        dataset = data.build(spec.data, "train")
        trainer = SimCLR(Job(run, spec, world, layout, Ledger(run.path, 1, "rank0"), StopFlag(), dataset))
        trainer.network.train()
        stream = trainer.steps(0, 0)
        return trainer, [next(stream) for _ in RATES]

    return made


def take(trainer, batches, step):
    return take_step(trainer.job, trainer, torch.amp.GradScaler("cpu", enabled=False), batches, step, RATES[step])


def written_out(network, crops):
    """Eq. 1 of each pair of crops of an image, one after the other; the head takes the crops of all resolutions."""
    z = network.projection(torch.cat([network.backbone(images.double()) for images in crops]))
    z = [row / row.norm() for row in z]
    terms = []
    for i in range(len(z)):
        for j in range(i % BATCH, len(z), BATCH):
            if i != j:
                keys = [j] + [k for k in range(len(z)) if k % BATCH != i % BATCH]
                terms.append(-(z[i] @ z[j] / TAU - torch.log(sum(torch.exp(z[i] @ z[k] / TAU) for k in keys))))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("local", [0, 2])
@pytest.mark.parametrize("optimizer", ["lars", "sgd"])
def test_several_steps_are_those_of_the_equations(make, float64, local, optimizer):
    trainer, stream = make(f"method.local_crops={local}", f"method.optimizer={optimizer}")
    reference = copy.deepcopy(trainer.network).double()
    trained = {name: p for name, p in reference.named_parameters() if name != "projection.4.bias"}  # stays 0
    velocity = {name: torch.zeros_like(p) for name, p in trained.items()}
    for step, batches in enumerate(stream):
        reference.load_state_dict(trainer.network.state_dict())  # so that the rounding of steps does not add up
        loss = written_out(reference, trainer.photometrics(batches[0].images))
        reference.zero_grad()
        loss.backward()
        scalars = take(trainer, batches, step)
        torch.testing.assert_close(scalars["loss"].double(), loss.detach(), rtol=1e-9, atol=0)
        with torch.no_grad():
            for name, p in trained.items():
                plain, rate = p.ndim == 1, RATES[step]  # biases, and scales and shifts of batch normalisation
                update = p.grad if plain else p.grad + DECAY * p
                if optimizer == "lars":
                    if not plain:
                        update = update * TRUST * p.norm() / (p.grad.norm() + DECAY * p.norm() + 1e-8)
                    velocity[name] = MOMENTUM * velocity[name] + rate * update
                    p -= velocity[name]
                else:
                    velocity[name] = MOMENTUM * velocity[name] + update
                    p -= rate * velocity[name]
        for name, p in trainer.network.named_parameters():
            wrong = (p.detach().double() - reference.get_parameter(name).detach()).norm()
            moved = velocity[name].norm() * (1 if optimizer == "lars" else RATES[step]) if name in trained else 0
            assert wrong <= 1e-9 * moved + 1e-12, f"{name}, step {step}: {wrong:.2g} of {moved:.2g}"


def test_the_head_ends_with_batch_normalisation(make):
    """Released code. Its output has mean 0 and variance 1 over the crops of a batch."""
    trainer, stream = make()
    z, features = (each.detach() for each in trainer.network(trainer.crops(stream[0][0])))
    assert (len(z), len(features)) == (4 * BATCH, 4 * BATCH)
    torch.testing.assert_close(z.mean(0), torch.zeros(8), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.var(0, unbiased=False), torch.ones(8), rtol=1e-2, atol=0)


def test_embeddings_on_a_line_are_seen(make):
    """Batch normalisation gives them another sign and length, and no other direction."""
    trainer, stream = make()
    assert trainer.watched.says(take(trainer, stream[0], 0)) is None
    before, last = trainer.network.projection[-2], trainer.network.projection[-1]
    with torch.no_grad():
        before.weight.copy_(before.weight[:1].expand_as(before.weight))
        last.weight.fill_(1.0)
        last.bias.zero_()
    found = take(trainer, stream[1], 1)
    assert "features differ in length and sign alone" in trainer.watched.says(found)


def test_features_that_are_alike_are_seen(make, monkeypatch):
    """Which embeddings hide: the head's batch normalisation makes as much of a small difference as of a large one."""
    trainer, stream = make()
    plain = trainer.network.backbone.forward
    monkeypatch.setattr(trainer.network.backbone, "forward", lambda images: 1 + 1e-3 * plain(images))
    with torch.no_grad():
        z, _ = trainer.network(trainer.crops(stream[0][0]))
    assert trainer.watched.says({"likeness": float(likeness(z[:BATCH]))}) is None
    found = take(trainer, stream[0], 0)
    assert "features differ in length and sign alone" in trainer.watched.says(found)


def test_of_two_images_batch_normalisation_makes_opposites(make):
    """Whatever they show, where two crops of an image are alike: the mean of all is 0."""
    trainer, stream = make("method.global_batch=2", "method.local_crops=0")
    crop = trainer.crops(stream[0][0])[0][:2]
    z = trainer.network([torch.cat([crop, crop])])[0].detach()
    torch.testing.assert_close(z[0], -z[1], rtol=0, atol=1e-4)
