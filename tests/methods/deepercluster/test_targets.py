"""Who hosts which group, what a group draws, and what reaches it from the other ranks."""

from collections import Counter

import numpy as np
import pytest
import torch

from launcher.compose.training import resolve
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.preempt import StopFlag
from launcher.spec import registry
from launcher.spec.stored import read as read_spec
from methods import data
from methods.deepercluster.targets import Targets, hosted_groups, ranks_of_group
from methods.deepercluster.trainer import DeeperCluster
from methods.engine.job import Job
from methods.engine.pseudo_labels import PseudoLabels

WORLDS = [(1, 1), (2, 1), (8, 1), (1, 2), (4, 2)]  # (ranks, m); m = 1 has four groups, which 8 ranks share in pairs
CLUSTERS, IMAGES = 5, 304
OVERRIDES = ["method=deepercluster", "recipe=tiny", f"method.clusters={CLUSTERS}", f"data.images={IMAGES}"]


# -- hosts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [4, 8, 16])
def test_hosts_and_hosted_are_each_others_inverse(groups):
    worlds = [n for n in range(1, 513) if n % groups == 0 or groups % n == 0]
    for world_size in worlds:
        pairs = {(rank, s) for rank in range(world_size) for s in hosted_groups(rank, world_size, groups)}
        assert pairs == {(rank, s) for s in range(groups) for rank in ranks_of_group(s, world_size, groups)}
        assert {s for _, s in pairs} == set(range(groups))
        assert {rank for rank, _ in pairs} == set(range(world_size))
        assert len(pairs) == max(world_size, groups)  # no rank does more than another


# -- draws -------------------------------------------------------------------------------------------------------------


def targets(sizes):
    """A super-cluster whose sub-class j holds sizes[j] samples; sample ids are scattered."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    ids = np.random.default_rng(1).permutation(10 * len(labels))[: len(labels)]
    made = Targets()
    made.set(torch.from_numpy(np.stack([ids, labels], axis=1)))
    return made, dict(zip(ids.tolist(), labels.tolist(), strict=True))


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("count", [1, 7, 100, 1000])
def test_every_drawn_sample_comes_with_its_own_label(uniform, count):
    made, truth = targets([1, 50, 3])
    ids, labels = made.draw(count, np.random.default_rng(0), uniform=uniform)
    assert len(ids) == len(labels) == count
    assert [truth[i] for i in ids.tolist()] == labels.tolist()


def test_uniform_draws_take_every_sub_class_equally_often_and_its_samples_in_turn():
    made, truth = targets([1, 50, 3, 8])
    ids, labels = made.draw(4 * 100, np.random.default_rng(0), uniform=True)
    assert Counter(labels.tolist()) == dict.fromkeys(range(4), 100)
    counts = Counter(ids.tolist())
    for label, size in enumerate([1, 50, 3, 8]):
        of_label = [counts[i] for i, each in truth.items() if each == label]
        assert sum(of_label) == 100 and len(of_label) == size
        assert max(of_label) - min(of_label) <= 1
    for begin in range(0, 400, 4):  # also within any stretch of a round
        assert set(labels[begin : begin + 4]) == {0, 1, 2, 3}


def test_a_permutation_takes_every_image_equally_often():
    made, truth = targets([1, 50, 3])
    ids, _ = made.draw(54 * 3 + 20, np.random.default_rng(0), uniform=False)
    assert set(Counter(ids.tolist()).values()) == {3, 4}
    assert set(ids[:54].tolist()) == set(truth)


@pytest.mark.parametrize("uniform", [True, False])
def test_a_draw_depends_on_the_stream_and_not_on_the_order_of_arrival(uniform):
    rows = torch.tensor([[7, 1], [3, 0], [9, 1], [1, 0], [4, 2]])
    draws = []
    for order, seed in (([0, 1, 2, 3, 4], 0), ([4, 2, 0, 1, 3], 0), ([0, 1, 2, 3, 4], 1)):
        made = Targets()
        made.set(rows[order])
        draws.append(np.stack(made.draw(50, np.random.default_rng(seed), uniform=uniform)))
    assert np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[0], draws[2])


def test_targets_come_back_from_their_state():
    made, _ = targets([4, 2])
    back = Targets()
    back.load_state(made.state())
    draws = [each.draw(9, np.random.default_rng(0), uniform=True) for each in (made, back)]
    np.testing.assert_array_equal(*draws)


# -- the exchange and the heads, over ranks ----------------------------------------------------------------------------


def truth(ids, super_clusters):
    """(super-cluster, sub-class) of samples, as a clustering might have found them."""
    return (ids * 7 + ids // 3) % super_clusters, (ids * 5) % CLUSTERS


def exchanged(world, super_clusters, spec, dataset, folder):
    """What a trainer holds after an exchange and new heads."""
    run = RunDir(folder)
    layout = registry.method("deepercluster").layout(spec.method, world.size)
    job = Job(run, spec, world, layout, Ledger(run.path, 1, f"rank{world.rank}"), StopFlag(), dataset)
    trainer = DeeperCluster(job)
    mine = torch.arange(world.rank, IMAGES, world.size)  # sample i lies on rank i mod world_size
    clusters, labels = truth(mine, super_clusters)
    found = PseudoLabels(mine, labels, clusters)
    trainer._take_over(found)
    trainer._remember(found)
    trainer._reset_heads(6)
    trainer.assigned_epoch = 6
    return {
        "targets": {c: dict(targets.state()) for c, targets in trainer.targets.items()},
        "assignments": trainer.assignments,
        "V": {k: v.clone() for k, v in trainer.module.super_classifier.state_dict().items()},
        "W": {s: trainer.sub.weight[slot].detach().clone() for slot, s in enumerate(trainer.hosted)},
        "drawn": {s: trainer._order(7, s) for s in trainer.hosted},
        "steps": [[b.ids for b in step] for step in trainer.steps(7, 0)],
    }


def in_a_world(world, specs, dataset, folder):
    """{m: what the trainer of this rank holds}"""
    here = [m for size, m in WORLDS if size == world.size]
    return {m: exchanged(world, m, read_spec(specs[m]), dataset, folder) for m in here}


@pytest.fixture(scope="module")
def worlds(ranks, tmp_path_factory):
    """{(world_size, m): [what rank 0 holds, what rank 1 holds, ...]}"""
    folder = tmp_path_factory.mktemp("run")
    (folder / "events").mkdir()
    specs = {m: resolve([*OVERRIDES, f"method.super_clusters={m}"])[0] for m in (1, 2)}
    stored = {m: spec.to_json() for m, spec in specs.items()}
    dataset = data.build(specs[1].data, "train")
    answers = ranks(sorted({size for size, _ in WORLDS}), in_a_world, stored, dataset, folder)
    return {(size, m): [told[m] for told in answers[size]] for size, m in WORLDS}


def test_each_rank_learns_the_labels_of_the_groups_it_hosts_and_no_others(worlds):
    everything = torch.arange(IMAGES)
    for (size, m), world in worlds.items():
        clusters, labels = truth(everything, m)
        for rank, told in enumerate(world):
            assert set(told["targets"]) == {s // 4 for s in hosted_groups(rank, size, 4 * m)}
            for c, found in told["targets"].items():
                pairs = sorted(zip(found["ids"].tolist(), found["labels"].tolist(), strict=True))
                here = everything[clusters == c]
                assert pairs == list(zip(here.tolist(), labels[here].tolist(), strict=True))


def test_rank_0_remembers_all_assignments(worlds):
    for (_, m), world in worlds.items():
        clusters, labels = truth(np.arange(IMAGES), m)
        np.testing.assert_array_equal(world[0]["assignments"], clusters * CLUSTERS + labels)


def test_new_heads_do_not_depend_on_the_world(worlds):
    for (_, m), world in worlds.items():
        alone = worlds[1, m][0]
        assert len({tuple(w.flatten()[:9].tolist()) for w in alone["W"].values()}) == 4 * m  # each its own
        for told in world:
            assert all(torch.equal(told["V"][name], value) for name, value in alone["V"].items())
            assert all(torch.equal(weight, alone["W"][s]) for s, weight in told["W"].items())


def test_a_step_is_of_the_same_images_in_every_world(worlds):
    for (_, m), world in worlds.items():
        alone = worlds[1, m][0]
        for told in world:
            for s, drawn in told["drawn"].items():
                np.testing.assert_array_equal(drawn, alone["drawn"][s])
        for step, batches in enumerate(alone["steps"]):
            together = torch.cat([ids for told in world for ids in told["steps"][step]])
            assert torch.equal(together.sort().values, torch.cat(batches).sort().values)
