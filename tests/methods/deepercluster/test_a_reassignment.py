"""Between epochs: the features of the network that is evaluated become targets, and the heads begin anew."""

from pathlib import Path

import numpy as np
import pytest
import torch

from launcher.compose.training import resolve
from launcher.kmeans import fit_whitening, hierarchical
from launcher.plan import plan as planning
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.run.snapshot import Snapshot
from launcher.runtime.dist import World
from launcher.runtime.preempt import StopFlag
from launcher.spec import registry
from methods import data
from methods.augment.views import CentreView
from methods.deepercluster.trainer import DeeperCluster
from methods.engine.features import BATCH
from methods.engine.job import Job
from methods.engine.loop import take_step

# One epoch of rotations, then a clustering before each.
SPEC = ("method=deepercluster", "recipe=tiny", "method.workers=0", "data.images=304")
STEPS = 3  # taken of each epoch


@pytest.fixture
def trainer(tmp_path):
    """After some steps of an epoch of rotations, the clustering behind it, and some steps of the next epoch."""
    spec, recipe = resolve([*SPEC, f"runs={tmp_path}"])
    run = RunDir(tmp_path / "run")
    run.create(spec, planning.make(spec, recipe), lambda: Snapshot(Path("code"), "digest", ""))
    world, layout = World(0, 1, torch.device("cpu")), registry.method("deepercluster").layout(spec.method, 1)
    dataset = data.build(spec.data, "train")
    made = DeeperCluster(Job(run, spec, world, layout, Ledger(run.path, 1, "rank0"), StopFlag(), dataset))
    for epoch in (0, 1):
        made.begin_epoch(epoch)
        assert made.assigned_epoch == (epoch or -1)
        train(made, epoch)
    return made


def train(trainer, epoch):
    for network in trainer.networks:
        network.train()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for step, batches in zip(range(STEPS), trainer.steps(epoch, 0), strict=False):
        take_step(trainer.job, trainer, scaler, batches, epoch * trainer.steps_per_epoch + step, 0.05)


def written_out(trainer, epoch):
    """(super-cluster, sub-class) of every image."""
    job, config = trainer.job, trainer.job.config
    view = CentreView(config.image_size)
    images = np.stack([view(job.dataset.image(index), index, 0) for index in range(len(job.dataset))])
    trainer.backbone.eval()
    with torch.no_grad(), job.autocast():
        features = torch.cat([trainer.backbone(some).float() for some in torch.from_numpy(images).split(BATCH)])
    whitened = fit_whitening(features, config.pca_dim).apply_(features)
    seed = job.seed_for("k-means", epoch) % 2**32
    sizes = config.super_clusters, config.clusters
    found = hierarchical(whitened, sizes, iterations=config.kmeans_iterations, seed=seed)
    return found.super_clusters.assignments.numpy(), found.sub_assignments.numpy()


def test_targets_are_clusters_of_the_features_that_evaluations_see(trainer):
    clusters, labels = written_out(trainer, 2)
    before = trainer.assignments
    trainer.network.train()  # as the steps left it
    trainer.begin_epoch(2)
    np.testing.assert_array_equal(trainer.assignments, clusters * trainer.job.config.clusters + labels)
    assert (trainer.assignments != before).any()
    for c, targets in trainer.targets.items():
        state = {name: value.numpy() for name, value in targets.state().items()}
        assert sorted(state["ids"]) == np.flatnonzero(clusters == c).tolist()
        np.testing.assert_array_equal(state["labels"], labels[state["ids"]])


def test_a_step_gives_each_group_images_of_its_own_super_cluster_turned_by_its_angle(trainer):
    batches = next(trainer.steps(1, 0))
    hosted, k = torch.tensor(trainer.hosted), trainer.job.config.clusters
    for batch in batches:
        groups, ids = hosted[batch.columns["slot"]].numpy(), batch.ids.numpy()
        np.testing.assert_array_equal(trainer.assignments[ids], groups // 4 * k + batch.columns["label"].numpy())
        assert set(groups) == set(trainer.hosted)
        sizes = np.bincount(batch.columns["slot"].numpy(), minlength=len(hosted)).tolist()
        for turned, image, group in zip(trainer._turned(batch.images, sizes), batch.images, groups, strict=True):
            np.testing.assert_array_equal(turned, np.rot90(image, group % 4, axes=(1, 2)))


def test_new_heads_take_nothing_over_and_the_backbone_keeps_its_momentum(trainer):
    heads = [*trainer.module.super_classifier.parameters(), *trainer.sub.parameters()]
    before = [head.detach().clone() for head in heads]
    body = {p: trainer.optimizers[0].state[p]["momentum_buffer"].clone() for p in trainer.backbone.parameters()}
    assert all(trainer.sub_optimizer.state[p] for p in trainer.sub.parameters())
    trainer.begin_epoch(2)
    assert all(not torch.equal(*pair) for pair in zip(before, heads, strict=True))
    assert not any(trainer.optimizers[0].state.get(p) for p in trainer.module.super_classifier.parameters())
    assert not any(trainer.sub_optimizer.state.get(p) for p in trainer.sub.parameters())
    for parameter, momentum in body.items():
        assert torch.equal(trainer.optimizers[0].state[parameter]["momentum_buffer"], momentum)


def test_an_epoch_that_goes_on_keeps_its_targets_and_heads(trainer):
    targets = {c: {k: v.clone() for k, v in each.state().items()} for c, each in trainer.targets.items()}
    weight = trainer.sub.weight.detach().clone()
    trainer.begin_epoch(1)
    assert torch.equal(trainer.sub.weight, weight)
    for c, each in trainer.targets.items():
        assert all(torch.equal(value, targets[c][name]) for name, value in each.state().items())


def test_its_picture_replaces_what_lies_there_and_follows_no_link(trainer, tmp_path):
    mine, folder = tmp_path / "mine", trainer.job.run.path
    mine.write_text("mine")
    for name in ("clusters.png", "clusters.tmp"):
        (folder / name).symlink_to(mine)
    trainer.figures(STEPS)
    assert mine.read_text() == "mine" and (folder / "clusters.png").read_bytes().startswith(b"\x89PNG")
    assert not (folder / "clusters.png").is_symlink()
