"""What `sslrun plan` promises of DeeperCluster's published setting, on 1 to 512 GPUs."""

import re

import pytest

from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.plan import plan as planning
from launcher.spec import registry

METHODS = ("deepercluster", "rotnet")


def planned(*overrides):
    spec, recipe = resolve(["method=deepercluster", "cluster=generic", *overrides], planning=True)
    return planning.make(spec, recipe), spec


def laid_out(method, world_size):
    """The layout of a method's published recipe, or the refusal."""
    method = registry.method(method)
    try:
        return method.layout(method.recipe("paper").method, world_size)
    except InputError as refusal:
        return refusal


def test_eight_nodes_are_the_thesis_setting():
    plan, spec = planned("nodes=8")
    assert (plan.world_size, plan.groups.count, plan.groups.size) == (64, 16, 4)
    assert (plan.per_gpu_batch, plan.accumulation, plan.global_batch, plan.lr) == (48, 1, 3072, 0.1)
    assert (spec.method.super_clusters, spec.method.clusters) == (4, 80_000)
    assert "4 x 80,000" in plan.why["clusters"]
    assert plan.waste is None and plan.variant == ()


def test_sub_classifiers_are_most_of_a_checkpoint():
    plan, _ = planned("nodes=8")
    sub_classifiers = 16 * 80_000 * (4096 + 1) * 2 * 4 / 1e9  # with momentum, fp32
    assert plan.disk_gb == pytest.approx(43.0, abs=0.1)
    assert sub_classifiers / plan.disk_gb > 0.95
    assert "sub-classifiers" in plan.why["disk_gb"] and f"{sub_classifiers:.2f}" in plan.why["disk_gb"]


@pytest.mark.parametrize("nodes", [1, 8, 64])
def test_every_number_says_where_it_comes_from(nodes):
    plan, _ = planned(f"nodes={nodes}")
    numbers = (
        "world_size per_gpu_batch accumulation global_batch lr groups steps checkpoint_every memory_gb disk_gb hours"
    )
    for number in [*numbers.split(), "clusters"]:
        assert plan.why.get(number), f"{number} has no reason"


@pytest.mark.parametrize("method", ["byol", "rotnet", "supervised", "simclr"])
def test_what_ranks_have_in_common_is_one_sentence(method):
    plan, _ = planned(f"method={method}", "nodes=1")
    assert plan.why["groups"] and "group_size" not in plan.why
    assert (plan.groups.count, plan.groups.size) == (1, plan.world_size) and "no group" not in plan.why["groups"]


@pytest.mark.parametrize(
    "nodes, per_gpu, variant",
    [
        (32, 12, ("method.global_batch=12288", "method.lr=0.4")),
        (64, 6, ("method.global_batch=24576", "method.lr=0.8")),
    ],
)
def test_more_nodes_keep_the_global_batch_and_say_what_they_waste(nodes, per_gpu, variant):
    plan, _ = planned(f"nodes={nodes}")
    assert (plan.global_batch, plan.lr, plan.per_gpu_batch) == (3072, 0.1, per_gpu)
    assert plan.waste.startswith(f"{per_gpu} images a GPU waste")
    assert plan.variant == variant
    scaled, spec = planned(f"nodes={nodes}", *variant)
    assert scaled.per_gpu_batch == 48 and scaled.waste is None
    assert spec.identity != planned("nodes=8")[1].identity


@pytest.mark.parametrize(
    ("method", "recipes", "batch", "scaled"),
    [
        ("dino", 1024, 128, 0.00025),  # thesis 5.3.2: 0.0005 x batch / 256
        ("dino", 1024, 512, 0.001),
        ("smog", 4096, 2048, 2.4),  # SMoG 3.4: 0.3 x batch / 256
        ("deepercluster", 3072, 12288, 0.4),
    ],
)
def test_a_rate_that_was_for_another_batch_says_so_with_the_scaled_one(method, recipes, batch, scaled):
    changed = [f"method={method}", f"method.global_batch={batch}", "nodes=2"]
    why = planned(*changed)[0].why["lr"]
    assert f"for its global batch of {recipes} and not for {batch}" in why and f"method.lr={scaled:g};" in why
    given = planned(*changed, f"method.lr={scaled}")[0].why["lr"]
    assert given.startswith(f"given, for a global batch of {batch}; ")
    recipe = planned(f"method={method}", "nodes=8")[0].why["lr"]
    assert recipe.startswith(f"the recipe's, for a global batch of {recipes}; ")


def test_the_number_of_nodes_is_not_part_of_the_identity():
    ids = {planned(f"nodes={nodes}")[0].run for nodes in (1, 2, 4, 8, 32, 64)}
    assert len(ids) == 1


@pytest.mark.parametrize("method", METHODS)
def test_every_layout_keeps_the_global_batch_and_the_batch_norm_group(method):
    config = registry.method(method).recipe("paper").method
    layouts = {n: layout for n in range(1, 513) if not isinstance(layout := laid_out(method, n), InputError)}
    assert {1, 2, 4, 8, 16, 64, 256} <= set(layouts)
    for world_size, layout in layouts.items():
        assert layout.per_gpu_batch * layout.accumulation * world_size == config.global_batch
        shared = config.batch_norm_group or config.global_batch
        assert layout.per_gpu_batch * layout.batch_norm_ranks == shared
        assert world_size % layout.batch_norm_ranks == 0


@pytest.mark.parametrize("world_size", [8, 16, 64, 256, 512])
def test_deepercluster_has_its_statistics_over_all_ranks(world_size):
    """As the released main.py, which makes them SyncBatchNorm without a group of ranks."""
    layout = laid_out("deepercluster", world_size)
    assert (layout.batch_norm_ranks, layout.accumulation) == (world_size, 1)
    assert "super-class" not in (layout.waste or "")


@pytest.mark.parametrize(
    ("shared", "nodes", "said"),
    [(48, 8, True), (48, 64, True), (48, 1, True), (192, 8, True), (384, 8, False), (1536, 8, False), (0, 8, False)],
)
def test_statistics_of_one_super_class_are_said_with_the_fix(shared, nodes, said):
    """A group of 3.3.1 has 3072 / 16 = 192 images a step."""
    plan, _ = planned(f"method.batch_norm_group={shared}", f"nodes={nodes}")
    assert ("of one super-class at one angle" in (plan.waste or "")) == said
    assert ("method.batch_norm_group=0" in plan.variant) == said
    if nodes == 64:  # few images a GPU beside it
        assert plan.variant[1:] == ("method.global_batch=24576", "method.lr=0.8")
        assert "6 images a GPU waste most of it" in plan.waste
    mended, _ = planned(f"nodes={nodes}", *plan.variant)
    assert mended.waste is None or "super-class" not in mended.waste


def test_every_group_of_deepercluster_is_hosted_in_equal_shares():
    for world_size in range(1, 513):
        layout = laid_out("deepercluster", world_size)
        if not isinstance(layout, InputError):
            assert layout.groups == 16
            assert layout.group_size * 16 == world_size * layout.groups_per_rank


@pytest.mark.parametrize("method", METHODS)
def test_a_refusal_names_sizes_that_work(method):
    refusals = {n: laid_out(method, n) for n in (3, 24, 40, 100, 500)}
    assert all(isinstance(refusal, InputError) for refusal in refusals.values())
    for world_size, refusal in refusals.items():
        named = re.search(r"use ([\d, ]+) ranks", str(refusal))
        assert named, f"{world_size}: {refusal}"
        wrong = [n for n in map(int, named[1].split(",")) if isinstance(laid_out(method, n), InputError)]
        assert not wrong, f"{world_size} ranks are refused with {wrong}, which are refused too"


@pytest.mark.parametrize("nodes", [3, 5])
def test_a_world_that_does_not_fit_is_wrong_input(nodes):
    with pytest.raises(InputError, match="do not fit") as refused:
        planned(f"nodes={nodes}")
    assert refused.value.exit_code == 2
    assert str(nodes * 8) in str(refused.value) and "64" in str(refused.value)


def test_data_whose_size_is_not_known_may_be_larger_than_the_recipes(tmp_path):
    wanted = "method=deepercluster", "method.clusters=30000000", "nodes=8"
    with pytest.raises(InputError, match=r"^method\.clusters=30000000: "):
        planned(*wanted)
    planned(*wanted, f"data.path={tmp_path}")
