"""Pseudo-labels are the k-means of the images' features: on any number of ranks, and stopped or not."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from launcher.compose.training import resolve
from launcher.kmeans import fit, hierarchical
from launcher.plan import plan as planning
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.run.snapshot import Snapshot
from launcher.runtime.dist import World
from launcher.runtime.preempt import StopFlag, Stopped
from launcher.spec import registry
from launcher.spec.stored import read as read_spec
from methods import backbones, data
from methods.augment.views import CentreView
from methods.data.dataset import BrokenImage
from methods.data.sets.photos.spec import PhotosData
from methods.engine.features import BATCH
from methods.engine.job import Job
from methods.engine.pseudo_labels import PseudoLabels, cluster_labels, labels_of_all, labels_within

IMAGES, DAMAGED, EPOCH, ITERATIONS = 304, 7, 3, 4
SPEC = (
    "method=deepercluster", "recipe=tiny", "method.workers=0", f"data.images={IMAGES}", "data.max_broken=0.1",
    "method.backbone=small_resnet",
)  # fmt: skip
# (clusters, pca_dim): DeepCluster, ClusterFit, DeeperCluster, and two levels of features as they are
CASES = {"deepcluster": ((6,), 8), "clusterfit": ((6,), None), "deepercluster": ((3, 4), 8), "levels": ((3, 4), None)}
STOPPED = {"deepcluster": "k-means", "levels": "sub-clusters"}  # the case, and its last state that is kept
WORLDS = (1, 2, 4)
ALONE = World(0, 1, torch.device("cpu"))


class OneDamaged:
    """A data set of which an image cannot be decoded."""

    def __init__(self, whole):
        self.whole, self.channels, self.classes, self.labels = whole, whole.channels, whole.classes, whole.labels

    def __len__(self):
        return len(self.whole)

    def name_of(self, index):
        return self.whole.name_of(index)

    def image(self, index):
        if index == DAMAGED:
            raise BrokenImage(self.name_of(index), "it is damaged")
        return self.whole.image(index)


class StopAt(StopFlag):
    """Told to stop at the n-th question."""

    def __init__(self, count):
        super().__init__()
        self.left = count

    def __bool__(self):
        self.left -= 1
        return self.left < 0


def run_in(folder, spec, recipe):
    run = RunDir(folder)
    run.create(spec, planning.make(spec, recipe), lambda: Snapshot(Path("code"), "digest", ""))
    return run


@functools.cache
def photos():
    """Of every clustering in a process: cutting them out takes as long as one."""
    return OneDamaged(data.build(PhotosData(images=IMAGES), "train"))


def job_of(world, spec, run, stop=None, generation=1):
    layout = registry.method("deepercluster").layout(spec.method, world.size)
    stop = StopFlag() if stop is None else stop  # `or` would ask it
    return Job(run, spec, world, layout, Ledger(run.path, generation, f"rank{world.rank}"), stop, photos())


def network():
    torch.manual_seed(0)
    return backbones.build("small_resnet").train()


def made(job, case, keep=None):
    clusters, pca_dim = CASES[case]
    given = {"clusters": clusters, "pca_dim": pca_dim, "iterations": ITERATIONS, "keep_work_s": keep}
    return cluster_labels(job, network(), EPOCH, step=EPOCH * 4, **given)


# -- what they are -----------------------------------------------------------------------------------------------------


def in_a_world(world, stored, folder):
    """{case: the labels of this rank's block, in float64; "told": what it gets to know of those of others}"""
    from in_float64 import Float64

    with Float64():
        job = job_of(world, read_spec(stored), RunDir(folder))
        return {"told": told(world), **{case: made(job, case) for case in CASES}}


@pytest.fixture(scope="module")
def worlds(ranks, tmp_path_factory):
    """{world_size: [what each rank says]}"""
    spec, recipe = resolve([*SPEC])
    run = run_in(tmp_path_factory.mktemp("runs") / "run", spec, recipe)
    return ranks(WORLDS, in_a_world, spec.to_json(), run.path)


def whitened(features, dim):
    """The first components, of unit variance: by singular values, without a covariance."""
    centred = features - features.mean(dim=0)
    _, singular, components = torch.linalg.svd(centred, full_matrices=False)
    return centred @ components[:dim].T / singular[:dim] * (len(features) - 1) ** 0.5


def written_out(case, seed):
    """(ids, labels, super-labels or None) of all images, in float64."""
    spec, _ = resolve([*SPEC])
    dataset, view = photos(), CentreView(spec.method.image_size)
    ids = [index for index in range(IMAGES) if index != DAMAGED]
    images = torch.from_numpy(np.stack([view(dataset.image(index), index, 0) for index in ids]))
    backbone = network().eval()
    with torch.no_grad():
        features = torch.cat([backbone(some) for some in images.split(BATCH)])
    clusters, dim = CASES[case]
    features = features if dim is None else whitened(features, dim)
    features = features / features.norm(dim=1, keepdim=True)
    if len(clusters) == 1:
        return ids, fit(features, *clusters, iterations=ITERATIONS, seed=seed).assignments, None
    found = hierarchical(features, clusters, iterations=ITERATIONS, seed=seed)
    return ids, found.sub_assignments, found.super_clusters.assignments


@pytest.mark.parametrize("case", CASES)
def test_they_are_clusters_of_normalised_features_that_evaluations_see(worlds, case, float64, tmp_path):
    spec, recipe = resolve([*SPEC])
    seed = job_of(ALONE, spec, run_in(tmp_path / "run", spec, recipe)).seed_for("k-means", EPOCH) % 2**32
    ids, labels, super_labels = written_out(case, seed)
    found = worlds[1][0][case]
    assert found.ids.tolist() == ids
    assert torch.equal(found.labels, labels)
    assert found.super_labels is None if super_labels is None else torch.equal(found.super_labels, super_labels)
    assert len(found.labels.unique()) > 1


@pytest.mark.parametrize("case", CASES)
def test_they_are_the_same_on_any_number_of_ranks(worlds, case):
    alone = worlds[1][0][case]
    for size in WORLDS[1:]:
        blocks = [told[case] for told in worlds[size]]
        assert all(len(block.ids) for block in blocks)
        for name in ("ids", "labels", *(["super_labels"] if alone.super_labels is not None else [])):
            assert torch.equal(torch.cat([getattr(block, name) for block in blocks]), getattr(alone, name)), name


# -- stopped, and gone on ----------------------------------------------------------------------------------------------


def stopped_and_gone_on(world, stored, folder):
    """{case: (undisturbed labels, [(labels after a stop at some safe point, images restored, states resumed)])}"""
    return {case: lives(world, read_spec(stored), Path(folder) / f"{world.size}-{case}", case) for case in STOPPED}


def lives(world, spec, folder, case):
    questions = StopAt(10**9)
    undisturbed, after = made(job_of(world, spec, RunDir(folder / "0"), questions), case, keep=0.0), []
    points = 10**9 - questions.left
    for name, at in (("1", 2), ("2", points * 2 // 3), ("3", points - 2)):
        run = RunDir(folder / name)
        with pytest.raises(Stopped):
            made(job_of(world, spec, run, StopAt(at)), case, keep=0.0)
        found = made(job_of(world, spec, run, generation=2), case, keep=0.0)
        world.barrier()
        _, event = run.history().all("work")
        after.append((found, event["restored"], event["resumed"]))
    return undisturbed, after


@pytest.fixture(scope="module")
def stopped(ranks, tmp_path_factory):
    """{world_size: [what each rank's lives came to]}"""
    folder, (spec, recipe) = tmp_path_factory.mktemp("stopped"), resolve([*SPEC])
    for name in (f"{size}-{case}/{number}" for size in WORLDS[:2] for case in STOPPED for number in range(4)):
        run_in(folder / name, spec, recipe)
    return ranks(WORLDS[:2], stopped_and_gone_on, spec.to_json(), folder)


@pytest.mark.parametrize("case", STOPPED)
@pytest.mark.parametrize("size", WORLDS[:2])
def test_stopped_anywhere_they_go_on_to_the_same_labels(stopped, size, case):
    for undisturbed, after in (told[case] for told in stopped[size]):
        for found, restored, _ in after:
            assert restored > 0
            for name, value in vars(undisturbed).items():
                assert value is None or torch.equal(getattr(found, name), value)
        assert after[-1][1] == IMAGES and STOPPED[case] in after[-1][2]


# -- who learns which --------------------------------------------------------------------------------------------------


def truth(ids):
    """(super-label, label) of images, as a clustering might have found them."""
    return (ids * 7 + ids // 3) % 5, (ids * 5) % 11


def scattered(rank, size):
    """The images of a rank: not in order, and none of those that 9 divides."""
    mine = torch.arange(rank, IMAGES, size).flip(0)
    return mine[mine % 9 != 0]


def wanted(size):
    """Super-clusters that several ranks want, that one wants, and that nobody wants."""
    return [{rank % 4, (rank + 1) % 4} if rank != 1 else set() for rank in range(size)]


def told(world):
    """(of two levels, of one level, of all images): what this rank gets to know."""
    ids = scattered(world.rank, world.size)
    outer, labels = truth(ids)
    two = labels_within(world, PseudoLabels(ids, labels, outer), wanted(world.size))
    one = labels_within(world, PseudoLabels(ids, labels), wanted(world.size))
    return two, one, labels_of_all(world, ids, labels, IMAGES + 1)


@pytest.mark.parametrize("size", WORLDS)
def test_a_rank_learns_the_images_of_the_clusters_that_it_wants_and_no_others(worlds, size):
    everything = torch.cat([scattered(rank, size) for rank in range(size)])
    outer, labels = truth(everything)
    for few, answers in zip(wanted(size), worlds[size], strict=True):
        two, one, _ = answers["told"]
        here = torch.isin(outer, torch.tensor([*few], dtype=torch.int64))
        assert torch.equal(two.ids, everything[here])
        assert torch.equal(two.labels, labels[here]) and torch.equal(two.super_labels, outer[here])
        here = torch.isin(labels, torch.tensor([*few], dtype=torch.int64))
        assert torch.equal(one.ids, everything[here]) and torch.equal(one.labels, labels[here])
        assert one.super_labels is None


@pytest.mark.parametrize("size", WORLDS)
def test_every_rank_can_learn_the_label_of_any_image(worlds, size):
    everything = torch.arange(IMAGES + 1)
    known = (everything % 9 != 0) & (everything < IMAGES)
    for answers in worlds[size]:
        *_, whole = answers["told"]
        assert whole.dtype == torch.int32
        assert torch.equal(whole.long(), torch.where(known, truth(everything)[1], -1))
