"""What somebody measured of a recipe tells how long its variations take: by their operations, at the same share of the
peak."""

import dataclasses

import pytest

from launcher.compose.training import resolve
from launcher.plan import cost
from launcher.plan import plan as planning
from launcher.spec import registry


def planned(*overrides, cluster="v100_32gb"):
    return planning.make(*resolve([*overrides, f"cluster={cluster}"], planning=True))


def operations(method, **values):
    config = registry.method(method).recipe("paper").method
    return registry.method(method).sizes(type(config)(**{**vars(config), **values}), 64).flops_per_image


@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("dino", {"backbone": "vit_small_8"}),
        ("dino", {"backbone": "vit_base_16", "local_crops": 2}),
        ("dino", {"local_crops": 0}),
        ("swav", {"backbone": "resnet50_w4"}),
        ("swav", {"image_size": 160, "local_crops": 4}),
    ],
)
def test_another_backbone_or_other_crops_take_time_as_they_take_operations(method, values):
    given = [f"method.{name}={value}" for name, value in values.items()]
    plain, varied = planned(f"method={method}"), planned(f"method={method}", *given)
    ratio = operations(method, **values) / operations(method)
    assert ratio < 0.7 or ratio > 1.5
    assert varied.gpu_hours / plain.gpu_hours == pytest.approx(ratio, rel=0.01)
    if "backbone" in values:
        share = {"dino": "9.0% of the peak that recipe=paper reached with vit_small_16 (thesis, Table 5.14"}
        share["swav"] = "5.4% of the peak that recipe=paper reached with resnet50 (thesis 4.4"
        assert f"from the operations, at the {share[method]}" in varied.why["hours"]


def test_a_recipe_without_a_rate_has_the_papers_share():
    half = "method.precision=fp16"  # of which the paper's rate is
    large, small = planned("method=dino", "recipe=vit_base_8", "nodes=16", half), planned("method=dino", "nodes=2")
    ratio = operations("dino", backbone="vit_base_8") / operations("dino")
    assert large.gpu_hours / small.gpu_hours == pytest.approx(ratio, rel=0.01) and ratio > 16
    assert "recipe=paper" in large.why["hours"]


def test_its_own_recipe_comes_before_the_paper():
    own = registry.method("swav").recipe("regnety_256gf")
    share = cost.measured_efficiency(own.rate, registry.method("swav").sizes(own.method, 512))
    other = ["method.backbone=regnety_128gf", "nodes=64"]
    said = planned("method=swav", "recipe=regnety_256gf", *other).why["hours"]
    assert f"{share:.1%} of the peak that recipe=regnety_256gf reached" in said and share > 0.1


@pytest.mark.parametrize("recipe", ["paper", "swin"])
def test_no_published_recipe_of_a_method_with_a_measured_rate_rests_on_an_assumption(recipe):
    plan = planned("method=smog", f"recipe={recipe}", "nodes=8")
    assert not plan.hours_assumed and "assumed" not in plan.why["hours"]


def test_the_share_of_another_peak_says_nothing():
    """fp32 has a peak of its own, and so has a CPU."""
    assert "35% of the peak, assumed" in planned("method=dino", "method.precision=fp32").why["hours"]
    assert "50% of the peak, assumed" in planned("method=dino", "recipe=demo", cluster="local").why["hours"]
    halves = [planned("method=dino", f"method.precision={p}", cluster="a100_80gb").hours for p in ("bf16", "fp16")]
    assert halves[0] == halves[1]


# Thesis 4.4: 100 epochs in 6 h 15 min on 64 V100; 4.5.1: 6125 ms an iteration of 8704 images on 512 V100. SwAV's page:
# an epoch of DeepCluster-v2 with 2x160 + 4x96 in 193 s on 64.
CONVOLUTIONS = (
    ("swav", "paper", {}, 100 * 1_281_167 / (6.25 * 3600 * 64)),
    ("swav", "regnety_256gf", {}, 8704 / 512 / 6.125),
    ("deepclusterv2", "paper", {"image_size": 160, "local_crops": 4}, 1_281_167 / (193 * 64)),
)


def test_an_assumed_time_says_so_with_the_range_of_published_rates():
    shares = []
    for name, recipe, crops, rate in CONVOLUTIONS:
        method = registry.method(name)
        config = dataclasses.replace(method.recipe(recipe).method, **crops)
        shares.append(rate * method.sizes(config, 64).flops_per_image / 125e12)
    shares = [min(shares), max(shares)]
    plan = planned("method=rotnet", "nodes=8")
    assert plan.hours_assumed and f"reach {min(shares):.1%} to {max(shares):.1%} of it" in plan.why["hours"]
    wanted = [plan.hours * 0.35 / share for share in sorted(shares, reverse=True)]
    assert plan.hours_published == pytest.approx(wanted, rel=0.01)


def test_published_rates_that_give_the_same_time_are_no_range():
    """Of MoCo-v2 alone, in fp32: what it reached is made that of the cluster, or nearly."""
    wanted = ["method=deepercluster", "nodes=8", "method.precision=fp32"]
    apart = planned(*wanted, "cluster.efficiency=0.5", cluster="h100")
    assert apart.hours_assumed and "would make the whole run" in apart.why["hours"]
    share = 0.5 * apart.hours / apart.hours_published[1]
    near = planned(*wanted, f"cluster.efficiency={share:.3f}", cluster="h100")
    assert near.hours_assumed and near.hours_published and "would make" not in near.why["hours"]


@pytest.mark.parametrize(
    ("given", "cluster", "published"),
    [
        (["method=dino", "nodes=2"], "v100_32gb", None),  # measured
        (["method=deepercluster", "nodes=8"], "h100", True),
        (["method=deepercluster", "nodes=8", "method.precision=fp32"], "h100", True),  # that of MoCo-v2
        (["method=dino", "recipe=vit_base_8", "nodes=16"], "v100_32gb", False),  # fp32
        (["method=swav", "recipe=demo"], "local", True),  # that of DeeperCluster's demo
        (["method=dino", "recipe=tiny"], "local", False),  # a transformer
    ],
)
def test_only_rates_of_such_networks_on_such_devices_make_the_range(given, cluster, published):
    plan = planned(*given, cluster=cluster)
    assert plan.hours_assumed == (published is not None)
    assert bool(plan.hours_published) == bool(published)
    assert ("is published)" in plan.why["hours"]) == (published is False)
    if published:
        assert plan.hours_published[0] <= plan.hours_published[1]


def test_a_rate_of_a_cpu_tells_of_other_networks_there():
    wanted = ["method=deepercluster", "recipe=demo", "method.backbone=small_resnet"]
    assert "of the peak that recipe=demo reached with small_vgg" in planned(*wanted, cluster="local").why["hours"]
    assert "assumed" in planned(*wanted, cluster="h100").why["hours"]
