"""Training, clustering and judging weights: each has a plan, and all say what a start needs."""

import dataclasses
import json

import pytest

from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.plan import evaluation, kinds
from launcher.plan.clustering import ClusteringPlan
from launcher.plan.plan import Plan
from launcher.spec import registry
from launcher.spec.runspec import freeze


@pytest.fixture(scope="module")
def training():
    return resolve(["method=rotnet", "recipe=tiny", "cluster=generic"], planning=True)[0]


def of(work, training, **given):
    config = registry.method(work).config(**given)
    return dataclasses.replace(training, method=freeze(config), recipe=next(iter(registry.method(work).recipes)))


def test_a_method_has_that_of_sslrun_plan(training):
    plan = kinds.make(training)
    assert isinstance(plan, Plan) and plan.sbatch.startswith("#!/bin/bash")


def test_a_clustering_holds_its_centroids_twice(training):
    plan = kinds.make(of("kmeans", training, k=50, iterations=7, rows=10**6, dim=10**3))
    assert isinstance(plan, ClusteringPlan) and (plan.steps, plan.clusters, plan.features) == (7, 50, 10**6)
    assert plan.disk_gb == pytest.approx((2 * 4 * 50 * 10**3 + 8 * 10**6) / 1e9, abs=5e-4)


def test_a_clustering_says_what_a_spare_costs_as_a_training_does(training):
    given = {"k": 50_000, "iterations": 100, "rows": 10**8, "dim": 10**3}
    with_spare = freeze(training.cluster_but(spare_nodes=1))
    alone = kinds.make(dataclasses.replace(of("kmeans", training, **given), nodes=4))
    spare = kinds.make(dataclasses.replace(of("kmeans", training, **given), nodes=4, least_nodes=2, cluster=with_spare))
    assert (alone.spare_nodes, alone.spare_gpu_hours, "spare_nodes" in alone.why) == (0, 0, False)
    assert (spare.spare_nodes, spare.gpu_hours) == (1, alone.gpu_hours)
    assert spare.spare_gpu_hours == pytest.approx(alone.gpu_hours / 4, rel=1e-3) and spare.spare_gpu_hours > 0
    assert "1 of 5 nodes" in spare.why["spare_nodes"] and "20.0% of the bill" in spare.why["spare_nodes"]


def test_weights_are_judged_as_a_checkpoint_is(training):
    spec = of("weights", training, backbone=training.method.backbone)
    assert kinds.make(spec) == evaluation.make(training)
    assert (evaluation.make(training).steps, evaluation.make(training).disk_gb) == (0, 0)


def test_all_say_what_a_start_needs_and_are_json(training):
    for work in (training, of("kmeans", training, k=2, rows=4, dim=2), of("weights", training)):
        plan = kinds.make(work)
        said = json.loads(json.dumps(plan.to_json()))
        assert {"steps", "disk_gb", "signal_delay_s", "waste", "warnings"} <= set(said)
        assert plan.signal_delay_s > 0 and plan.remarks == ()


def test_what_is_wasteful_is_remarked(training):
    plan = dataclasses.replace(kinds.make(training), waste="6 images a GPU", warnings=("slow",))
    assert plan.remarks == ("wasteful: 6 images a GPU", "slow")


def test_only_methods_train(training):
    assert all(registry.method(name).trains for name in registry.names())
    assert not any(registry.method(name).trains for name in registry.jobs())
    with pytest.raises(InputError, match="did you mean rotnet"):
        registry.method("rotnett")
