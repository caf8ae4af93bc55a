"""A round of DeepCluster-v2 is Lloyd's algorithm on the sphere, written out in numpy: of crop h mod A for head h, from
rows of the bank, with empty clusters where they were; its centroids are the prototypes, which nothing else moves."""

import copy

import numpy as np
import pytest
import torch

from launcher.compose.training import resolve
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.dist import World
from launcher.runtime.preempt import StopFlag
from launcher.runtime.store import Store
from launcher.spec import registry
from methods import data
from methods.deepclusterv2.trainer import DeepClusterV2
from methods.engine.job import Job
from methods.engine.loop import take_step
from methods.parts.losses import NO_LABEL

BATCH, HEADS, K, D, ITERATIONS, TAU, RATE, MOMENTUM, DECAY = 16, 3, 6, 8, 3, 0.2, 0.05, 0.9, 0.01
SMALL = (
    *("method=deepclusterv2", "recipe=tiny", "method.dropout=0", f"method.global_batch={BATCH}", "data.images=76"),
    *(f"method.heads={HEADS}", f"method.kmeans_iterations={ITERATIONS}", f"method.temperature={TAU}"),
    *(f"method.momentum={MOMENTUM}", f"method.weight_decay={DECAY}"),
)


class Unkept:
    """In the place of a job's `keeping`: there is no file."""

    unkept_s = 0.0

    def __call__(self, step, key, **room):
        return self

    def __enter__(self):
        return Store(None, every_s=0.0)

    def __exit__(self, *error):
        pass


@pytest.fixture
def make(tmp_path):
    """`make("method.heads=2", ...)`: a trainer."""

    def made(*overrides):
        spec, _ = resolve([*SMALL, *overrides])
        world, run = World(0, 1, torch.device("cpu")), RunDir(tmp_path)
        layout = registry.method("deepclusterv2").layout(spec.method, 1)
        dataset = data.build(spec.data, "train")
        job = Job(run, spec, world, layout, Ledger(run.path, 1, "rank0"), StopFlag(), dataset)
        job.keeping = Unkept()
        return DeepClusterV2(job)

    return made


def lloyd(x, k, iterations, seed):
    """(centroids [k, d], labels [n], whether a cluster was ever empty) of the rows x [n, d]."""
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    centroids, empty = x[np.random.default_rng([seed, 0]).choice(len(x), size=k, replace=False)], False
    for _ in range(iterations):
        labels, moved = (x @ centroids.T).argmax(1), centroids.copy()
        for c in range(k):
            if (labels == c).any():
                mean = x[labels == c].mean(0)
                moved[c] = mean / np.linalg.norm(mean)
            else:
                empty = True
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids, (x @ centroids.T).argmax(1), empty


def seed_of(trainer, epoch, head):
    return trainer.job.seed_for("k-means", epoch, head) % 2**32


@pytest.mark.parametrize("epoch", [0, 3])
def test_each_head_clusters_its_crop_of_the_bank(make, float64, epoch):
    trainer = make()
    embeddings = torch.randn(50, 2, D, generator=torch.Generator().manual_seed(1)).double()
    embeddings = embeddings / embeddings.norm(dim=-1, keepdim=True)
    labels = trainer.make_labels(epoch, embeddings)
    prototypes = trainer.module.prototypes.weight.detach().chunk(HEADS)
    assert labels.shape == (50, HEADS)
    for head in range(HEADS):
        x = embeddings[:, head % 2].numpy()
        centroids, expected, _ = lloyd(x, K, ITERATIONS, seed_of(trainer, epoch, head))
        np.testing.assert_allclose(prototypes[head].numpy(), centroids, rtol=0, atol=1e-6)
        assert labels[:, head].tolist() == expected.tolist()


def test_an_empty_cluster_keeps_its_centroid(make, float64):
    """Clusters hardly ever become empty: in one of some two hundred draws of many centroids of few dimensions."""
    trainer = make("method.heads=1", "method.kmeans_iterations=8", "method.prototypes=40")
    for draw in range(4000):
        x = np.zeros((60, D))
        x[:, :3] = np.random.default_rng(draw).normal(size=(60, 3))
        centroids, expected, empty = lloyd(x, 40, 8, seed_of(trainer, 0, 0))
        if empty:
            break
    assert empty
    labels = trainer.make_labels(0, torch.from_numpy(x).unsqueeze(1).expand(-1, 2, -1))
    np.testing.assert_allclose(trainer.module.prototypes.weight.detach().numpy(), centroids, rtol=0, atol=1e-6)
    assert labels[:, 0].tolist() == expected.tolist()


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


def test_steps_are_those_of_the_equations_and_no_step_moves_a_prototype(make, float64):
    """Four of them, of images that all have labels and of some that have none."""
    trainer = make()
    trainer.begin_epoch(0)
    trainer.network.train()
    centroids = trainer.module.prototypes.weight.detach().clone()
    reference, velocity, unlabelled = copy.deepcopy(trainer.module), {}, 0
    for step, batches in zip(range(4), trainer.steps(0, 0), strict=True):
        reference.load_state_dict(trainer.module.state_dict())  # so that the rounding of steps does not add up
        labels = trainer.labels.rows(batches[0].ids)
        unlabelled += int((labels == NO_LABEL).any(1).sum())
        loss = written_out(reference, trainer.crops(batches[0]), labels)
        reference.zero_grad()
        loss.backward()
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        scalars = take_step(trainer.job, trainer, scaler, batches, step, RATE)
        torch.testing.assert_close(scalars["loss"], loss.detach(), rtol=1e-9, atol=0)
        for name, p in reference.named_parameters():
            if not name.startswith("prototypes"):
                with torch.no_grad():
                    velocity[name] = MOMENTUM * velocity.get(name, 0) + p.grad + DECAY * p
                    p -= RATE * velocity[name]
        for name, p in trainer.module.named_parameters():
            torch.testing.assert_close(p.detach(), reference.get_parameter(name).detach(), rtol=1e-9, atol=1e-12)
        assert torch.equal(trainer.module.prototypes.weight, centroids)
    assert 0 < unlabelled < 2 * BATCH
