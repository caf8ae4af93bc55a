"""Labels of SeLa-v2 are the rounded solution of thesis Eqs. 4.3 to 4.5 over the whole bank, written out in float64; its
prototypes train, and have length 1."""

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
from methods.parts.losses import NO_LABEL
from methods.selav2 import trainer as selav2

BATCH, HEADS, K, D, TAU, RATE, MOMENTUM, DECAY = 16, 3, 6, 8, 0.2, 0.05, 0.9, 0.01
EPSILON, ITERATIONS = 0.05, 7
SMALL = (
    *("method=selav2", "recipe=tiny", "method.dropout=0", f"method.global_batch={BATCH}", "data.images=76"),
    *(f"method.heads={HEADS}", f"method.temperature={TAU}", f"method.epsilon={EPSILON}"),
    *(f"method.sinkhorn_iterations={ITERATIONS}", f"method.momentum={MOMENTUM}", f"method.weight_decay={DECAY}"),
)


@pytest.fixture
def make(tmp_path):
    """`make("method.heads=2", ...)`: a trainer."""

    def made(*overrides):
        spec, _ = resolve([*SMALL, *overrides])
        world, run = World(0, 1, torch.device("cpu")), RunDir(tmp_path)
        layout = registry.method("selav2").layout(spec.method, 1)
        dataset = data.build(spec.data, "train")
        return selav2.SeLaV2(Job(run, spec, world, layout, Ledger(run.path, 1, "rank0"), StopFlag(), dataset))

    return made


def units(*shape, seed):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()
    return x / x.norm(dim=-1, keepdim=True)


def transported(x, C, iterations):
    """Q [n, K]: columns, then rows of exp(Z / epsilon) are divided by their sums, again and again."""
    Q = torch.exp(x @ C.T / EPSILON)
    for _ in range(iterations):
        Q = Q / Q.sum(dim=0, keepdim=True)
        Q = Q / Q.sum(dim=1, keepdim=True)
    return Q


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_each_head_shares_out_its_crop_of_the_bank(make, float64, monkeypatch, rows):
    """However many rows of the bank are in memory at a time."""
    monkeypatch.setattr(selav2, "ROWS", rows)
    trainer, embeddings = make(), units(50, 2, D, seed=1)
    trainer.module.prototypes.weight.data.mul_(3.0)  # as a step leaves them: of any length
    labels = trainer.make_labels(0, embeddings)
    assert labels.shape == (50, HEADS) and labels.dtype == torch.int64
    for head, C in enumerate(trainer.module.prototypes.weight.detach().chunk(HEADS)):
        Q = transported(embeddings[:, head % 2], C / C.norm(dim=1, keepdim=True), ITERATIONS)
        assert labels[:, head].tolist() == Q.argmax(1).tolist()


def test_shares_are_equal_where_scores_are_not(make, float64):
    """Of embeddings that are nearly alike: the nearest prototype would be the same for most of them."""
    trainer = make("method.epsilon=0.004", "method.sinkhorn_iterations=200")
    embeddings = units(60, 2, D, seed=2) * 0.2 + units(1, 1, D, seed=3)
    embeddings = embeddings / embeddings.norm(dim=-1, keepdim=True)
    nearest = (embeddings[:, 0] @ trainer.module.prototypes.weight.detach().chunk(HEADS)[0].T).argmax(1)
    assert torch.bincount(nearest, minlength=K).max() > 30
    sizes = torch.bincount(trainer.make_labels(0, embeddings)[:, 0], minlength=K)
    assert sizes.min() >= 8 and sizes.max() <= 12, sizes


def test_a_share_without_images_has_no_labels(make):
    assert make().make_labels(0, torch.empty(0, 2, D)).shape == (0, HEADS)


def written_out(network, crops, labels):
    """The loss of one batch, one crop, image and head after the other, in float64: thesis Eqs. 4.1 and 4.2."""
    features = torch.cat([network.backbone(images) for images in crops])
    embedded = [row / row.norm() for row in network.projection(features)]
    embedded = torch.stack(embedded).unflatten(0, (-1, BATCH))
    terms = []
    for view in embedded:
        for row, of_image in zip(view, labels.tolist(), strict=True):
            for C, label in zip(network.prototypes.weight.chunk(HEADS), of_image, strict=True):
                if label != NO_LABEL:
                    p = torch.exp(C @ row / TAU) / torch.exp(C @ row / TAU).sum()
                    terms.append(-torch.log(p[label]))
    return sum(terms) / len(terms)


def test_steps_are_those_of_the_equations_and_prototypes_train_at_length_one(make, float64):
    trainer = make()
    trainer.begin_epoch(0)
    trainer.network.train()
    reference, velocity = copy.deepcopy(trainer.module), {}
    for step, batches in zip(range(4), trainer.steps(0, 0), strict=True):
        reference.load_state_dict(trainer.module.state_dict())  # so that the rounding of steps does not add up
        with torch.no_grad():
            C = reference.prototypes.weight
            C /= C.norm(dim=1, keepdim=True)
        loss = written_out(reference, trainer.crops(batches[0]), trainer.labels.rows(batches[0].ids))
        reference.zero_grad()
        loss.backward()
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        scalars = take_step(trainer.job, trainer, scaler, batches, step, RATE)
        torch.testing.assert_close(scalars["loss"], loss.detach(), rtol=1e-9, atol=0)
        for name, p in reference.named_parameters():
            with torch.no_grad():
                velocity[name] = MOMENTUM * velocity.get(name, 0) + p.grad + DECAY * p
                p -= RATE * velocity[name]
        for name, p in trainer.module.named_parameters():
            torch.testing.assert_close(p.detach(), reference.get_parameter(name).detach(), rtol=1e-9, atol=1e-12)
    assert velocity["prototypes.weight"].abs().max() > 1e-3
