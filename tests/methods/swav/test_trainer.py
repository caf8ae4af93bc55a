"""Whole steps of SwAV's trainer beside Eqs. 4.1 to 4.6 written out in float64: losses, gradients, momentum SGD,
prototypes of length 1 that are frozen at first, and a queue that takes part once it is full."""

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
from methods.engine.job import Job
from methods.engine.loop import take_step
from methods.swav.trainer import SwAV

TAU, EPSILON, ITERATIONS, RATE, MOMENTUM, DECAY = 0.2, 0.1, 3, 0.05, 0.9, 0.01
BATCH, STEPS = 16, 5
SMALL = (
    *("method=swav", "recipe=tiny", "method.dropout=0", f"method.global_batch={BATCH}", "method.queue=0"),
    *(f"method.temperature={TAU}", f"method.epsilon={EPSILON}", f"method.sinkhorn_iterations={ITERATIONS}"),
    *(f"method.momentum={MOMENTUM}", f"method.weight_decay={DECAY}", "method.freeze_epochs=0"),
)


@pytest.fixture
def make(tmp_path):
    """`make("method.queue=32", ...)`: a trainer, in train mode, and its first steps' batches."""

    def made(*overrides, epoch=0):
        spec, _ = resolve([*SMALL, *overrides])
        world, run = World(0, 1, torch.device("cpu")), RunDir(tmp_path)
        layout = registry.method("swav").layout(spec.method, 1)
        dataset = data.build(spec.data, "train")
        trainer = SwAV(Job(run, spec, world, layout, Ledger(run.path, 1, "rank0"), StopFlag(), dataset))
        trainer.network.train()
        stream = trainer.steps(epoch, 0)
        return trainer, [next(stream) for _ in range(STEPS)]

    return made


def take(trainer, batches, step):
    return take_step(trainer.job, trainer, torch.amp.GradScaler("cpu", enabled=False), batches, step, RATE)


def written_out(network, crops, queue, labelled, rounded):
    """(loss, embeddings) of one batch, one image, one x_t and one x_s after the other; queue: the embeddings
    [views, B, d] of the batches that take part."""
    C = network.prototypes.weight
    features = torch.cat([network.backbone(images.double()) for images in crops])
    embedded = [row / row.norm() for row in network.projection(features)]
    embedded = torch.stack(embedded).unflatten(0, (-1, BATCH))
    z = torch.stack([torch.stack([C @ row for row in view]) for view in embedded])
    q = []
    for t in range(labelled):
        with torch.no_grad():
            Z = torch.cat([*(view[t] @ C.T for view in queue), z[t]])
            Q = torch.exp(Z / EPSILON)
            for _ in range(ITERATIONS):
                Q = Q / Q.sum(dim=0, keepdim=True)
                Q = Q / Q.sum(dim=1, keepdim=True)
            q.append(torch.eye(len(C)).double()[Q[-BATCH:].argmax(1)] if rounded else Q[-BATCH:])
    terms = []
    for n in range(BATCH):
        for t in range(labelled):
            for s in range(len(z)):
                if s != t:
                    p = torch.exp(z[s, n] / TAU) / torch.exp(z[s, n] / TAU).sum()
                    terms.append(-(q[t][n] * torch.log(p)).sum())
    return sum(terms) / len(terms), embedded[:labelled].detach()


@pytest.mark.parametrize(
    ("overrides", "frozen", "queued"),
    [
        pytest.param((), 0, 0, id="soft"),
        pytest.param(("method.assignment=rounded",), 0, 0, id="rounded"),
        pytest.param(("method.freeze_epochs=0.12",), 3, 0, id="frozen for 3 of 19 steps"),
        pytest.param(("method.queue=40", "method.queue_epoch=0"), 0, 2, id="queue of 2 batches"),
        pytest.param(("method.global_crops=3", "method.local_crops=0"), 0, 0, id="3 global crops"),
        pytest.param(("method.head_layers=3", "method.head_batch_norm=false"), 0, 0, id="a deeper head"),
    ],
)
def test_several_steps_are_those_of_the_equations(make, float64, overrides, frozen, queued):
    trainer, stream = make(*overrides)
    labelled = trainer.job.config.global_crops
    reference = copy.deepcopy(trainer.network).double()
    velocity = {name: torch.zeros_like(p) for name, p in reference.named_parameters()}
    seen = []
    for step, batches in enumerate(stream):
        reference.load_state_dict(trainer.network.state_dict())  # so that the rounding of steps does not add up
        with torch.no_grad():
            C = reference.prototypes.weight
            C /= C.norm(dim=1, keepdim=True)
        queue = seen[-queued:] if queued and len(seen) >= queued else []
        crops = trainer.photometrics(batches[0].images)
        rounded = trainer.job.config.assignment == "rounded"
        loss, embedded = written_out(reference, crops, queue, labelled, rounded)
        seen.append(embedded)
        reference.zero_grad()
        loss.backward()
        scalars = take(trainer, batches, step)
        torch.testing.assert_close(scalars["loss"].double(), loss.detach(), rtol=1e-9, atol=0)
        with torch.no_grad():
            for name, p in reference.named_parameters():
                if name.startswith("prototypes") and step < frozen:
                    continue
                velocity[name] = MOMENTUM * velocity[name] + p.grad + DECAY * p
                p -= RATE * velocity[name]
        for name, p in trainer.network.named_parameters():
            moved = RATE * velocity[name].norm()
            wrong = (p.detach().double() - reference.get_parameter(name).detach()).norm()
            assert wrong <= 1e-9 * moved + 1e-12, f"{name}, step {step}: {wrong:.2g} of {moved:.2g}"


def test_embeddings_that_are_alike_are_seen(make):
    trainer, stream = make()
    assert trainer.watched.says(take(trainer, stream[0], 0)) is None
    last = trainer.network.projection[-1]
    with torch.no_grad():
        last.weight.mul_(1e-3)
        last.bias.fill_(1.0)
    found = take(trainer, stream[1], 1)
    assert "features differ in length and sign alone" in trainer.watched.says({"likeness": found["likeness"]})
    assert trainer.watched.says(found)
