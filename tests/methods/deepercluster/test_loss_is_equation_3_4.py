"""The loss and its gradients against Eq. 3.4 of the thesis, written out in double precision; and on several ranks.

    1/N sum_n [ l(V f(x_n), y_n) + sum_s y_ns l(W_s f(x_n), z_n^s) ],    l: negative log-softmax

x_n are rotated images, y_n one of the S = 4m super-classes (cluster x angle), z_n^s the sub-class within s."""

import copy

import numpy as np
import pytest
import torch

from launcher.compose.training import resolve
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime import dist
from launcher.runtime.preempt import StopFlag
from launcher.spec import registry, stored
from methods import data
from methods.deepercluster.trainer import DeeperCluster
from methods.engine.job import Job
from methods.engine.pseudo_labels import PseudoLabels

M, K, IMAGES, EPOCH = 1, 6, 304, 3
GROUPS = 4 * M
OVERRIDES = [
    "method=deepercluster", "recipe=tiny", f"method.super_clusters={M}", f"method.clusters={K}",
    "method.dropout=0", "method.global_batch=32", "method.head_std=0.3", f"data.images={IMAGES}",
]  # fmt: skip
CHOICES = ("global", "group")
WORLDS = (1, 2, 4, 8)


def sub_class(ids):
    return (ids * 5 + ids // 7) % K


def trainer_of(world, spec, dataset, folder):
    """A DeeperCluster in the middle of a run: targets assigned, heads drawn."""
    run = RunDir(folder)
    layout = registry.method("deepercluster").layout(spec.method, world.size)
    job = Job(run, spec, world, layout, Ledger(run.path, 1, f"rank{world.rank}"), StopFlag(), dataset)
    trainer = DeeperCluster(job)
    ids = torch.arange(world.rank, IMAGES, world.size)
    trainer._take_over(PseudoLabels(ids, sub_class(ids), torch.zeros_like(ids)))
    trainer._reset_heads(EPOCH)
    trainer.assigned_epoch = EPOCH
    for network in trainer.networks:
        network.train()
    return trainer


def first_step(trainer):
    """(loss, {name: gradient}) of one optimiser step, as the engine makes it; W_s under its s."""
    (batch,) = next(trainer.steps(EPOCH, 0))
    loss, _ = trainer.loss(batch, 0)
    loss.backward()
    gradients = {f"theta.{name}": p.grad for name, p in trainer.backbone.named_parameters()}
    gradients |= {f"V.{name}": p.grad for name, p in trainer.module.super_classifier.named_parameters()}
    for slot, s in enumerate(trainer.hosted):
        gradients |= {f"W_{s}.{name}": p.grad[slot] for name, p in trainer.sub.named_parameters()}
    return loss.detach(), gradients


# -- the equation ------------------------------------------------------------------------------------------------------


def equation(trainer, batch, sub_gradient):
    """(loss, {name: gradient}) from the definition, float64, one image after the other."""
    backbone = copy.deepcopy(trainer.backbone).double()
    V = trainer.module.super_classifier.weight.detach().double().requires_grad_()
    v = trainer.module.super_classifier.bias.detach().double().requires_grad_()
    W = trainer.sub.weight.detach().double().requires_grad_()
    w = trainer.sub.bias.detach().double().requires_grad_()
    N, angles = len(batch.ids), batch.columns["slot"].tolist()  # m = 1, one rank: group s is angle s
    rotated = np.stack([np.rot90(x, r, axes=(1, 2)) for x, r in zip(batch.images.numpy(), angles, strict=True)])
    f = torch.relu(backbone.trunk(trainer.backbone.input(torch.from_numpy(rotated)).double()))
    y, z = np.zeros((N, GROUPS)), np.zeros((N, GROUPS, K))
    for n, (r, label) in enumerate(zip(angles, sub_class(batch.ids).tolist(), strict=True)):
        y[n, r] = z[n, r, label] = 1

    def l(scores, target):  # noqa: E743
        return -(torch.from_numpy(target) * (scores - scores.exp().sum().log())).sum()

    upper = sum(l(V @ f[n] + v, y[n]) for n in range(N)) / N
    lower = [sum(y[n, s] * l(W[s] @ f[n] + w[s], z[n, s]) for n in range(N)) / N for s in range(GROUPS)]
    loss = upper + sum(lower)
    shared = {f"theta.{name}": p for name, p in backbone.named_parameters()} | {"V.weight": V, "V.bias": v}
    gradients = dict(zip(shared, torch.autograd.grad(loss, list(shared.values()), retain_graph=True), strict=True))
    weight, bias = torch.autograd.grad(loss, [W, w])
    # As released: each group's optimiser steps along the mean over the images of its own group.
    share = N / y.sum(0) if sub_gradient == "group" else np.ones(GROUPS)
    for s in range(GROUPS):
        gradients |= {f"W_{s}.weight": share[s] * weight[s], f"W_{s}.bias": share[s] * bias[s]}
    return loss.detach(), gradients


def assert_gradients(found, expected, tolerance):
    """Each tensor within `tolerance` of its own largest entry."""
    assert set(found) == set(expected)
    for name, value in expected.items():
        scale = value.abs().max().clamp(min=1e-8)
        error = (found[name].double() - value.double()).abs().max() / scale
        assert error <= tolerance, f"{name} differs by {error:.2g} of its largest entry"


@pytest.fixture(scope="module")
def dataset():
    return data.build(resolve(OVERRIDES)[0].data, "train")


@pytest.mark.parametrize("sub_gradient", CHOICES)
def test_loss_and_all_gradients_are_those_of_the_equation(sub_gradient, dataset, tmp_path):
    (tmp_path / "events").mkdir()
    spec, _ = resolve([*OVERRIDES, f"method.sub_gradient={sub_gradient}"])
    trainer = trainer_of(dist.World(0, 1, torch.device("cpu")), spec, dataset, tmp_path)
    (batch,) = next(trainer.steps(EPOCH, 0))
    assert sorted(batch.columns["slot"].tolist()) == sorted(list(range(4)) * 8)
    expected_loss, expected = equation(trainer, batch, sub_gradient)
    loss, gradients = first_step(trainer)
    torch.testing.assert_close(loss.double(), expected_loss, rtol=1e-5, atol=0)
    assert_gradients(gradients, expected, 1e-4)


def test_the_rotation_epochs_know_four_classes_and_train_no_sub_classifier(dataset, tmp_path):
    (tmp_path / "events").mkdir()
    spec, _ = resolve([*OVERRIDES, "method.super_clusters=2", "method.clusters=3"])
    trainer = trainer_of(dist.World(0, 1, torch.device("cpu")), spec, dataset, tmp_path)
    trainer.assigned_epoch = -1
    (batch,) = next(trainer.steps(0, 0))
    loss, scalars = trainer.loss(batch, 0)
    loss.backward()
    assert trainer.sub.weight.grad is None and "sub_loss" not in scalars
    drift = trainer.module.super_classifier.bias.grad
    assert drift.sum().abs() < 1e-6 and (drift[4:] > 0).all()  # only the four angles are ever right
    ids = [trainer._order(0, s)[0] for s in range(8)]
    assert len(np.unique(np.concatenate(ids))) == sum(map(len, ids))  # each image once


# -- ranks -------------------------------------------------------------------------------------------------------------


def step_in_a_world(world, specs, dataset, folder):
    """{sub_gradient: (mean loss of all ranks, gradients of this rank)}"""
    found = {}
    for choice, spec in specs.items():
        loss, gradients = first_step(trainer_of(world, stored.read(spec), dataset, folder))
        found[choice] = torch.tensor(world.gather(loss.item())).mean(), gradients
    return found


@pytest.fixture(scope="module")
def worlds(ranks, dataset, tmp_path_factory):
    """{world_size: [of each rank {sub_gradient: (mean loss of all ranks, gradients of this rank)}]}"""
    folder = tmp_path_factory.mktemp("run")
    (folder / "events").mkdir()
    specs = {choice: resolve([*OVERRIDES, f"method.sub_gradient={choice}"])[0].to_json() for choice in CHOICES}
    return ranks(WORLDS, step_in_a_world, specs, dataset, folder)


@pytest.mark.parametrize("sub_gradient", CHOICES)
@pytest.mark.parametrize("size", WORLDS[1:])
def test_several_ranks_give_the_gradients_of_one(worlds, size, sub_gradient):
    expected_loss, expected = worlds[1][0][sub_gradient]
    for told in worlds[size]:
        loss, gradients = told[sub_gradient]
        torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-5)
        assert_gradients(gradients, {name: expected[name] for name in gradients}, 1e-5)
    hosted = [name for told in worlds[size] for name in told[sub_gradient][1] if name.endswith("weight")]
    assert {name for name in expected if name.endswith("weight")} == set(hosted)


@pytest.mark.parametrize("size", WORLDS)
def test_the_two_readings_differ_in_the_sub_classifiers_by_the_number_of_groups(worlds, size):
    for told in worlds[size]:
        _, mean = told["global"]
        _, group = told["group"]
        for name, value in mean.items():
            torch.testing.assert_close(group[name], value * (GROUPS if name.startswith("W_") else 1))
