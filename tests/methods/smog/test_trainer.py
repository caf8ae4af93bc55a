"""Whole steps of SMoG's trainer: loss and gradients beside Eqs. 3 and 4 written out in float64, what f-hat and the
groups become, and when they are set anew."""

import copy
import dataclasses

import pytest
import torch
from torch.nn.functional import normalize

from launcher.compose.training import resolve
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.dist import World
from launcher.runtime.preempt import StopFlag
from launcher.spec import registry
from methods import data
from methods.engine.job import Job
from methods.engine.loop import take_step
from methods.smog.groups import Groups
from methods.smog.trainer import SMoG

SMALL = ("method=smog", "recipe=tiny", "method.dropout=0", "method.global_batch=16", "method.groups=6")
BETA, TAU = 0.8, 0.1


@pytest.fixture(scope="module")
def dataset():
    spec, _ = resolve(list(SMALL))
    return data.build(spec.data, "train")


@pytest.fixture
def make(tmp_path, dataset):
    """`make("method.groups=9", ...)`: a trainer, in train mode, and its first steps' batches."""

    def made(*overrides):
        betas = f"method.beta={BETA}", f"method.final_beta={BETA}"
        spec, _ = resolve([*SMALL, *betas, f"method.temperature={TAU}", *overrides])
        world, run = World(0, 1, torch.device("cpu")), RunDir(tmp_path)
        layout = registry.method("smog").layout(spec.method, 1)
        trainer = SMoG(Job(run, spec, world, layout, Ledger(run.path, 1, "rank0"), StopFlag(), dataset))
        for network in trainer.networks:
            network.train()
        stream = trainer.steps(0, 0)
        return trainer, [next(stream) for _ in range(7)]

    return made


def in_float64(trainer):
    for network in trainer.networks:
        network.double()
    trainer.groups.features, trainer.groups.seen = trainer.groups.features.double(), trainer.groups.seen.double()
    made = trainer.photometrics
    trainer.photometrics = lambda crops: [each.double() for each in made(crops)]
    return trainer


def take(trainer, batches, step, rate=0.05):
    return take_step(trainer.job, trainer, torch.amp.GradScaler("cpu", enabled=False), batches, step, rate)


# -- the equations -----------------------------------------------------------------------------------------------------


def sim(u, vectors):
    return (vectors @ u) / (u.norm() * vectors.norm(dim=1))


def unit(v):
    return v / v.norm()


def written_out(network, follower, g, crops, step):
    """(loss, groups after it) of a step, one image after the other; the streams swap the two augmentations."""
    large, local = crops
    images = len(large) // 2
    one, other = large[:images], large[images:]
    if step % 2:
        one, other = other, one
    locals_ = local.unflatten(0, (-1, images))
    f_hat = follower(other).detach()
    c = [sim(f_hat[i], g).argmax().item() for i in range(images)]
    z = network.projection(network.backbone(one))
    fallen = [sim(z[t].detach(), g).argmax().item() for t in range(images)]
    updated = []
    for k in range(len(g)):
        members = [unit(z[t]) for t in range(images) if fallen[t] == k]
        mean = sum(members) / len(members) if members else g[k]
        updated.append(unit(BETA * g[k] + (1 - BETA) * mean))
    updated = torch.stack(updated)
    small = network.projection(network.backbone(local)).unflatten(0, (-1, images))
    predictions = [network.predictor(z)]
    predictions += list(network.predictor(small.flatten(0, 1)).unflatten(0, (-1, images)))
    assert len(predictions) == 1 + len(locals_)
    terms = []
    for p in predictions:
        for i in range(images):
            e = torch.exp(sim(p[i], updated) / TAU)
            terms.append(-torch.log(e[c[i]] / e.sum()))
    return sum(terms) / len(terms), updated.detach()


def test_losses_gradients_groups_and_f_hat_of_four_steps_are_those_of_the_equations(make):
    trainer, stream = make("method.refit_every=0", "method.reset_every=0", "method.groups=20")  # begins at random
    in_float64(trainer)
    for step, batches in enumerate(stream[:4]):
        network, follower = copy.deepcopy(trainer.network), copy.deepcopy(trainer.follower)
        g = trainer.groups.features.clone()
        expected, updated = written_out(network, follower, g, trainer.photometrics(batches[0].images), step)
        expected.backward()
        scalars = take(trainer, batches, step)
        torch.testing.assert_close(scalars["loss"], expected.detach())
        gradients = {name: p.grad for name, p in trainer.network.named_parameters()}
        torch.testing.assert_close(gradients, {name: p.grad for name, p in network.named_parameters()})
        torch.testing.assert_close(trainer.groups.features, updated)
        alpha = trainer.job.config.encoder_momentum
        for mine, before, trained in zip(
            trainer.follower.parameters(), follower.parameters(), trainer.online.parameters(), strict=True
        ):
            torch.testing.assert_close(mine, alpha * before + (1 - alpha) * trained)


def test_the_gradient_of_a_step_through_the_groups_is_that_of_finite_differences(make):
    trainer, (batches, *_) = make("method.refit_every=0", "method.groups=20")
    in_float64(trainer)
    g = trainer.groups.features.clone()
    parameters = [p for p in trainer.network.projection.parameters() if p.ndim > 1]
    generator = torch.Generator().manual_seed(0)
    along = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]

    @torch.no_grad()
    def move(distance):
        for p, direction in zip(parameters, along, strict=True):
            p += distance * direction

    def loss():
        trainer.groups.features.copy_(g)
        return trainer.loss(batches[0], 1)[0]

    gradient = torch.autograd.grad(loss(), parameters)
    slope = sum((got * direction).sum() for got, direction in zip(gradient, along, strict=True)).item()
    epsilon, either = 1e-6, []
    for distance in (epsilon, -2 * epsilon):
        move(distance)
        either.append(loss().item())
    move(epsilon)
    assert slope == pytest.approx((either[0] - either[1]) / (2 * epsilon), rel=1e-5)

    trainer.groups.updated = lambda z, **given: Groups.updated(trainer.groups, z.detach(), **given)
    without = torch.autograd.grad(loss(), parameters)
    assert (normalize(without[0].flatten(), dim=0) @ normalize(gradient[0].flatten(), dim=0)).item() < 0.999


# -- views -------------------------------------------------------------------------------------------------------------


def test_the_streams_take_turns_with_the_two_augmentations(make):
    trainer, (batches, *_) = make()
    large, *small = trainer.photometrics(batches[0].images)
    one, other = large.chunk(2)
    seen = {}
    trainer.network.register_forward_pre_hook(lambda _, given: seen.update(online=given[0]))
    trainer.follower.register_forward_pre_hook(lambda _, given: seen.update(follower=given[0]))
    for step, (a, b) in enumerate([(one, other), (other, one), (one, other)]):
        trainer.loss(batches[0], step)
        assert torch.equal(seen["online"][0], a) and torch.equal(seen["follower"], b)
        assert all(map(torch.equal, seen["online"][1:], small))


def test_the_two_augmentations_differ_unless_told_otherwise(make, monkeypatch):
    asked = []
    monkeypatch.setattr(Job, "batches_in_turn", lambda self, view, *_: asked.append(view) or iter([[]] * 7))
    make()
    make("method.asymmetric=false")
    (blurred, solarised), both = (view.resolutions[0].recipes for view in asked)
    assert (blurred.solarise, solarised.solarise) == (0.0, 0.2) and blurred.blur > solarised.blur
    assert both == (blurred, blurred)
    assert dataclasses.replace(asked[0], resolutions=asked[1].resolutions) == asked[1]
    assert asked[0].resolutions[1:] == asked[1].resolutions[1:]


# -- against collapse --------------------------------------------------------------------------------------------------


def equal(one, other):
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(("refit", "reset"), [(3, 3), (3, 0), (0, 2), (2, 3), (0, 0)])
def test_groups_and_f_hat_are_set_anew_after_exactly_so_many_steps(make, refit, reset):
    """Table 7b: none, k-means alone, f-hat alone, both."""
    trainer, stream = make(f"method.refit_every={refit}", f"method.reset_every={reset}")
    kept, refits = [], []
    keep, fit = trainer.groups.keep, trainer.groups.refit
    trainer.groups.keep = lambda update: (keep(update), kept.append(update.features.detach().clone()))
    trainer.groups.refit = lambda cached, **given: (refits.append(cached), fit(cached, **given))
    for step, batches in enumerate(stream):
        take(trainer, batches, step)
        done = step + 1
        assert torch.equal(trainer.groups.features, kept[-1]) is not (refit > 0 and done % refit == 0)
        assert equal(trainer.follower, trainer.online) is (reset > 0 and done % reset == 0)
    first, *later = refits
    assert first.shape == (1, 16, 8)  # of the first batch: the groups begin with k-means
    assert [len(cached) for cached in later] == [min(3, refit * n) for n in range(1, 1 + (7 // refit if refit else 0))]


def test_k_means_sees_the_projections_of_the_last_batches(make):
    trainer, stream = make("method.refit_every=5", "method.cache=3")
    projections, refits = [], []
    trainer.network.register_forward_hook(lambda *given: projections.append(given[2][0].detach()))
    for step, batches in enumerate(stream[:5]):
        if step == 4:
            trainer.groups.refit = lambda cached, **_: refits.append(cached)
        take(trainer, batches, step)
    assert torch.equal(refits[0], torch.stack(projections[:1:-1]))


def test_more_groups_than_a_batch_begin_with_k_means_once_there_are_as_many_features(make):
    trainer, stream = make("method.groups=40", "method.refit_every=6", "method.cache=4")
    refits = []
    trainer.groups.refit = lambda cached, **_: refits.append((step + 1, len(cached)))
    for step, batches in enumerate(stream):
        take(trainer, batches, step)
    assert refits == [(3, 3), (6, 4)]  # 3 x 16 features for 40 groups; then as often as without


def test_until_then_they_are_drawn_at_random(make):
    trainer, stream = make("method.groups=20")
    trainer.groups.refit = None  # nothing calls it
    begun, assign = [], trainer.groups.assign
    trainer.groups.assign = lambda z: (begun.append(trainer.groups.features.clone()), assign(z))[1]
    take(trainer, stream[0], 0)
    assert torch.equal(begun[0], Groups(20, 8, seed=trainer.job.seed_for("groups")).features)


def test_features_that_are_no_numbers_leave_the_groups_to_the_watch_over_the_loss(make):
    trainer, stream = make("method.refit_every=1")
    take(trainer, stream[0], 0)
    before = trainer.groups.features.clone()
    trainer._refit(torch.full((1, 16, 8), torch.nan), 1)
    assert torch.equal(trainer.groups.features, before)
    with torch.no_grad():
        trainer.network.projection[0].weight.fill_(torch.nan)
    assert not torch.isfinite(take(trainer, stream[1], 1)["loss"])


# -- the rest ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["lars", "adamw", "sgd"])
def test_biases_and_norms_do_not_decay(make, optimizer):
    trainer, stream = make(f"method.optimizer={optimizer}", "method.weight_decay=0.5")
    before = {name: p.detach().clone() for name, p in trainer.network.named_parameters()}
    for p in trainer.network.parameters():
        p.grad = torch.zeros_like(p)
    for group in trainer.optimizers[0].param_groups:
        group["lr"] = 0.1
    trainer.optimizers[0].step()
    moved = {name for name, p in trainer.network.named_parameters() if not torch.equal(p, before[name])}
    weights = {name for name, p in trainer.network.named_parameters() if p.ndim > 1}
    assert moved == (set() if optimizer == "lars" else weights)  # LARS leaves a gradient of 0 as it is
    take(trainer, stream[0], 0)
    assert all(p.grad is not None for p in trainer.network.parameters())


@pytest.mark.parametrize("algorithm", ["average", "latest", "random"])
def test_other_grouping_algorithms_train(make, algorithm):
    trainer, stream = make(f"method.algorithm={algorithm}")
    losses = [take(trainer, batches, step)["loss"] for step, batches in enumerate(stream[:2])]
    assert torch.isfinite(torch.stack(losses)).all()


def test_an_evaluation_tells_how_images_fall_to_groups_and_what_their_labels_say(make):
    trainer, stream = make()
    take(trainer, stream[0], 0)
    for network in trainer.networks:
        network.eval()
    scores = trainer.figures(1)["clusters"]
    assert 0 <= scores["group_entropy"] <= torch.tensor(6.0).log() and scores["empty"] in [
        round(n / 6, 4) for n in range(6)
    ]
    assert 0 <= scores["label_entropy_q1"] <= scores["label_entropy"] <= scores["label_entropy_q3"]
    assert 0 <= scores["nmi_labels"] <= 1


def test_projections_that_are_alike_and_groups_that_stay_empty_are_seen(make):
    trainer, stream = make()
    assert trainer.watched.says(take(trainer, stream[0], 0)) is None
    last = trainer.network.projection[-1]
    with torch.no_grad():
        last.weight.mul_(1e-3)
        last.bias.fill_(1.0)
    found = take(trainer, stream[1], 1)
    assert "features differ in length and sign alone" in trainer.watched.says({"likeness": found["likeness"]})
    trainer, _ = make("method.groups=400", "method.refit_every=0")  # of which 16 images hit 16 at most
    assert trainer.watched.says({"groups_hit": 2 / 400}) is None
    assert "images fall to few classes, 1 of 400" in trainer.watched.says({"groups_hit": 1 / 400})
