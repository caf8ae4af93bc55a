"""Whole steps of supervised training written out in float64, pixel by pixel and class by class: mixup, CutMix, smoothed
and wrong labels, several crops, momentum SGD whose biases and norms do not decay."""

import copy
import math

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
from methods.supervised.loss import of_labels
from methods.supervised.noise import noisy
from methods.supervised.trainer import Supervised

BATCH, STEPS, RATE, MOMENTUM, DECAY = 8, 3, 0.05, 0.9, 0.01
SMALL = (
    *("method=supervised", "recipe=tiny", "method.dropout=0", f"method.global_batch={BATCH}", "data.images=80"),
    *(f"method.momentum={MOMENTUM}", f"method.weight_decay={DECAY}", "method.local_crops=0", "method.mixup=0"),
    *("method.cutmix=0", "method.label_noise=0", "method.label_smoothing=0", "method.rand_augment=0"),
    *("method.erasing=0",),
)


@pytest.fixture
def make(tmp_path):
    """`make("method.mixup=0.8", ...)`: a trainer, in train mode, and its first steps' batches."""

    def made(*overrides):
        spec, _ = resolve([*SMALL, *overrides])
        world, run = World(0, 1, torch.device("cpu")), RunDir(tmp_path)
        layout = registry.method("supervised").layout(spec.method, 1)
        dataset = data.build(spec.data, "train")
        trainer = Supervised(Job(run, spec, world, layout, Ledger(run.path, 1, "rank0"), StopFlag(), dataset))
        trainer.network.train()
        stream = trainer.steps(0, 0)
        return trainer, [next(stream) for _ in range(STEPS)]

    return made


def by_pixels(view, drawn):
    """(view [B, C, S, S] whose pairs are mixed as drawn [4, P], the share of each image that is its own)."""
    made, own, side = view.clone(), [], view.shape[-1]
    for n in range(len(view)):
        cut, share, down, along = (float(each[n // 2]) for each in drawn)
        other = view[n + 1 if n % 2 == 0 else n - 1]
        kept = 0.0
        half = int(side * math.sqrt(1 - share)) // 2
        for row in range(side):
            for column in range(side):
                there = all(-half <= at - int(side * to) < half for at, to in ((row, down), (column, along)))
                m = (0.0 if there else 1.0) if cut else share
                made[n, :, row, column] = m * view[n, :, row, column] + (1 - m) * other[:, row, column]
                kept += m / side**2
        own.append(kept)
    return made, own


def written_out(network, views, labels, own, smoothing):
    """- sum_k q_k log p_k, mean over views and images; q of the shares of both images, each label smoothed."""
    by_size = {}
    for number, view in enumerate(views):  # batch statistics are over all crops of one size
        by_size.setdefault(view.shape[-1], []).append(number)
    outputs = {}
    for numbers in by_size.values():
        features = network.backbone(torch.cat([views[number] for number in numbers]))
        logits = features @ network.classifier.weight.T + network.classifier.bias
        outputs |= dict(zip(numbers, logits.split(len(labels)), strict=True))
    K, terms = len(network.classifier.bias), []
    for number in range(len(views)):
        for n, y in enumerate(labels):
            z, other = outputs[number][n], labels[n + 1 if n % 2 == 0 else n - 1]
            log_p = z - z.max() - torch.log(torch.exp(z - z.max()).sum())
            q = torch.full((K,), smoothing / K)
            q[y] += (1 - smoothing) * own[number][n]
            q[other] += (1 - smoothing) * (1 - own[number][n])
            terms.append(-(q * log_p).sum())
    return sum(terms) / len(terms), torch.stack([outputs[number] for number in range(len(views))])


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param((), id="one crop"),
        pytest.param(("method.global_crops=2", "method.local_crops=3"), id="multi-crop"),
        pytest.param(("method.label_smoothing=0.1",), id="smoothed"),
        pytest.param(("method.label_noise=0.5",), id="wrong labels"),
        pytest.param(("method.mixup=0.8",), id="mixup"),
        pytest.param(("method.cutmix=1",), id="cutmix"),
        pytest.param(
            ("method.mixup=0.8", "method.cutmix=1", "method.local_crops=2", "method.label_smoothing=0.2"), id="all"
        ),
    ],
)
def test_several_steps_are_those_of_the_equations(make, float64, overrides):
    trainer, stream = make(*overrides)
    config = trainer.config
    reference = copy.deepcopy(trainer.network).double()
    velocity = {}
    for step, batches in enumerate(stream):
        (batch,) = batches
        reference.load_state_dict(trainer.network.state_dict())  # so that the rounding of steps does not add up
        views = [v.double() for crops in trainer.photometrics(batch.images) for v in crops.split(BATCH)]
        own = [[1.0] * BATCH] * len(views)
        if config.mixup or config.cutmix:
            drawn = trainer.mixing.draws(step, range(BATCH // 2), range(len(views)))
            views, own = zip(*(by_pixels(view, drawn[:, v]) for v, view in enumerate(views)), strict=True)
        labels = trainer.job.dataset.labels[batch.ids.numpy()]
        seed = trainer.job.seed_for("label noise")
        labels = noisy(labels, batch.ids.numpy(), share=config.label_noise, classes=19, seed=seed).tolist()
        loss, logits = written_out(reference, views, labels, own, config.label_smoothing)
        reference.zero_grad()
        loss.backward()
        scalars = take_step(trainer.job, trainer, torch.amp.GradScaler("cpu", enabled=False), batches, step, RATE)
        torch.testing.assert_close(scalars["loss"].double(), loss.detach(), rtol=1e-9, atol=0)
        right = [int(row.argmax()) == y for view in logits for row, y in zip(view, labels, strict=True)]
        assert float(scalars["accuracy"]) == pytest.approx(sum(right) / len(right))
        with torch.no_grad():
            for name, p in reference.named_parameters():
                velocity[name] = MOMENTUM * velocity.get(name, 0) + p.grad + (DECAY if p.dim() > 1 else 0) * p
                p -= RATE * velocity[name]
        for name, p in trainer.network.named_parameters():
            moved = RATE * velocity[name].norm()
            wrong = (p.detach().double() - reference.get_parameter(name).detach()).norm()
            assert wrong <= 1e-9 * moved + 1e-12, f"{name}, step {step}: {wrong:.2g} of {moved:.2g}"


def test_a_collapse_of_the_classifier_is_said(make):
    trainer, ((batch,), *_) = make("method.local_crops=1")
    classifier = trainer.module.classifier

    def said():
        return trainer.watched.says({name: float(value) for name, value in trainer.loss(batch, 0)[1].items()})

    with torch.no_grad():
        classifier.weight.mul_(20)  # sure of itself, and of each image in its own way
        assert said() is None
        classifier.bias[3] = 100
        assert "nearly all images fall to one of 19 classes" in said()
        classifier.weight.zero_()
        classifier.bias.zero_()
        assert "outputs are uniform over 19 classes" in said()
        classifier.bias[:4] = 3
        assert "outputs are alike for all images" in said()


@pytest.mark.parametrize(("views", "images", "classes"), [(1, 1, 2), (3, 1, 7), (2, 5, 3)])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_logits_of_half_precision_that_are_large_lose_nothing(views, images, classes, smoothing):
    draws = torch.Generator().manual_seed(7)
    logits = (1e4 * torch.randn(views, images, classes, generator=draws).clamp(-3, 3)).half()
    labels = torch.randint(classes, (images,), generator=draws)
    found = of_labels(logits, labels, smoothing=smoothing)
    assert found.dtype == torch.float32 and found.isfinite().all()
    for v in range(views):
        for n in range(images):
            z = logits[v, n].double()
            log_p = z - z.max() - torch.log(torch.exp(z - z.max()).sum())
            wanted = -(1 - smoothing) * log_p[labels[n]] - smoothing * log_p.mean()
            torch.testing.assert_close(found[v, n].double(), wanted, rtol=1e-6, atol=1e-6)


def test_a_row_that_stands_in_for_a_broken_image_is_mixed_as_its_place(make, float64):
    """It has the position, the label and the id of another row; the draws are those of the places."""
    trainer, stream = make("method.mixup=0.8", "method.cutmix=1")
    (batch,) = stream[0]
    rows = torch.tensor([5, 1, 2, 3, 4, 5, 6, 5])
    columns = {name: column[rows] for name, column in batch.columns.items()}
    broken = batch._replace(images=batch.images[rows], ids=batch.ids[rows], columns=columns)
    loss = trainer.loss(broken, 0)[0]
    columns["position"] = torch.arange(BATCH)
    assert trainer.loss(broken._replace(columns=columns), 0)[0] == loss
