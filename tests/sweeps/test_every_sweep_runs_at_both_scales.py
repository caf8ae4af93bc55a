"""Every YAML of sweeps/ composes, validates and plans at the paper's scale and at the demo's, with its own commands."""

import dataclasses
import shlex

import pytest

from launcher.compose import protocols
from launcher.plan import plan as planning
from launcher.spec import registry
from launcher.sweep import ablation, asked
from methods.augment.spec import MultiCropConfig
from methods.data.spec import DATA
from methods.evals.spec import PROTOCOLS

FILES = ablation.names()
# What tables need besides what is here: another name is a slip, and its points would never run.
LATER_METHODS = {"deepcluster"}
# Of the papers' comparisons: not to be built.
OTHERS = {
    "barlowtwins", "ct", "detr", "distillation", "fixmatch", "from_scratch", "infomin", "instance_discrimination",
    "jft300m", "knn_of_several_labels", "masked_patch_prediction", "mast", "moco", "multigrain", "nnclr", "obow",
    "pcl",
    "pirl", "resnet101", "resnet200_w2", "rmac", "simclrv2", "ssl_hsic", "stc", "stm", "supervised_on_few_labels",
    "uda",
    "vit_recipe_of_dosovitskiy",
}  # fmt: skip
# Of fewer images than a plan knows.
OF_OTHER_DATA = {"deepercluster/clusters", "deepercluster/data", "deepercluster/transfer", "swav/transfer"}


@pytest.mark.parametrize("name", FILES)
def test_it_opens_with_its_own_commands_and_what_they_take(name):
    (paper, gpu_hours), (demo, minutes), (report, _) = _opening(name)
    scales = ablation.load(name).scales
    assert paper[:3] == ["sslrun", "--multirun", f"sweep={name}"]
    assert demo == ["sslrun", "--multirun", f"sweep={name}", "recipe=demo"]
    assert report == ["sslrun", "report", f"sweep={name}", "recipe=demo"]
    assert gpu_hours.startswith(f"{scales['paper'].gpu_hours:,.0f} GPU-hours on ")
    assert minutes.startswith(f"{scales['demo'].minutes:.0f} minutes a seed, on two CPU cores")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("scale", ["paper", "demo"])
def test_its_points_are_runs_of_their_own_that_can_be_planned(name, scale, monkeypatch):
    table = ablation.load(name)
    chosen = table.scale(scale)
    chosen.seeds = chosen.seeds[:1]
    monkeypatch.setattr(ablation, "load", lambda *_: table)
    words = _opening(name)[0][0] + ["cluster=generic"] if scale == "paper" else _opening(name)[1][0]
    members, absent = asked.members(asked.read(words[2:]), planning=True)
    assert len(members) + len(absent) == len(table.points)
    judged = {(member.point.spec.identity, member.row.judged.get(scale)) for member in members}
    assert len(judged) == len(members)
    assert {lacking for _, lacks in absent for lacking in lacks} <= LATER_METHODS | OTHERS
    once = {member.point.spec.identity: member.point for member in members}
    plans = [planning.make(point.spec, point.recipe) for point in once.values()]
    if scale == "paper" and members and name not in OF_OTHER_DATA:
        hours = sum(plan.reckoned_gpu_hours for plan in plans)
        assert chosen.gpu_hours == pytest.approx(hours, rel=0.1), "python benchmarks/sweep_costs.py has the figure"


@pytest.mark.parametrize("name", [name for name in FILES if any(point.judged for point in ablation.load(name).points)])
def test_its_columns_are_evaluations_that_can_be_asked_for(name):
    for scale in ("paper", "demo"):
        wanted = asked.read([f"sweep={name}", f"recipe={scale}", "cluster=generic"])
        members, _ = asked.members(wanted, planning=True)
        if scale == "demo":
            assert any(asked.columns(wanted, members).values())
        for member in members:
            judged = wanted.judged(member.row)
            _, rest = protocols.taken(
                judged.asked or [f"protocol={judged.protocol}"], member.point.spec.method.backbone
            )
            assert {key.partition("=")[0].partition(".")[0] for key in rest} <= {"eval_data"}
            protocols.fit(judged.protocol, DATA[judged.data]() if judged.data else None, "metric")
            assert judged.score in {*PROTOCOLS[judged.protocol].scores, "ap50"}, judged


@pytest.mark.parametrize("name", FILES)
def test_a_point_of_another_method_sets_only_what_all_methods_of_views_have(name):
    table = ablation.load(name)
    shared = {f"method.{field.name}" for field in dataclasses.fields(MultiCropConfig)}
    for scale in table.scales:
        for point in table.points:
            words = dict(word.partition("=")[::2] for word in table.overrides(point, scale))
            if words["method"] not in (table.method, *registry.names()):
                assert {key for key in words if key.startswith("method.")} <= shared


@pytest.mark.parametrize("name", FILES)
def test_methods_of_one_table_have_the_network_the_augmentation_and_the_batch_of_one_another_in_the_demo(name):
    """What each demo has for itself would be told for a difference of the methods."""
    table = ablation.load(name)
    words = [_set(table, point, "demo") for point in table.points]
    if len({each["method"] for each in words}) > 1:
        for each in words:
            here = each["method"] in registry.names()
            fields = dataclasses.fields(registry.method(each["method"]).config) if here else ()
            own = {f"method.{field.name}" for field in fields}
            assert {"method.backbone", "method.augment", "method.global_batch"} & own <= each.keys(), each


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("scale", ["paper", "demo"])
def test_a_point_without_local_crops_says_the_scale_of_its_global_ones(name, scale):
    """The recipe's is that of multi-crop, above which local crops begin."""
    table = ablation.load(name)
    sets = {f"{point.series} {point.value}": _set(table, point, scale) for point in table.points}
    without = {point: words for point, words in sets.items() if words.get("method.local_crops") == "0"}
    assert [point for point, words in without.items() if "method.crop_scale" not in words] == []


@pytest.mark.parametrize(
    ("name", "scales"),
    [
        # SwAV's released script of 2x224; VISSL's configuration.
        ("swav/multicrop", {"[0.08,1.0]"}),
        # The author's configuration of DINO's runs without local crops.
        ("dino/multicrop", {"[0.14,1.0]"}),
        ("dino/multicrop_methods", {"[0.14,1.0]"}),
        ("dino/components", {"[0.14,1.0]"}),
        ("dino/byol_and_moco", {"[0.14,1.0]"}),
        ("dino/batch_size", {"[0.14,1.0]"}),
        # SimCLR, Appendix A, and BYOL, Appendix C; MoCo-v2's released code; on ViT-S as DINO's.
        ("dino/frameworks", {"[0.08,1.0]", "[0.2,1.0]", "[0.14,1.0]"}),
        # SMoG 3.4, of multi-crop.
        ("smog/groups", {"[0.2,1.0]"}),
        ("smog/tricks", {"[0.2,1.0]"}),
        ("smog/entropy", {"[0.2,1.0]", "[0.08,1.0]"}),
    ],
)
def test_without_local_crops_the_scales_are_those_of_the_released_configurations(name, scales):
    table = ablation.load(name)
    sets = [_set(table, point, "paper") for point in table.points]
    assert {words["method.crop_scale"] for words in sets if words.get("method.local_crops") == "0"} == scales


def _set(table, point, scale):
    """Each key that a point sets at a scale, with its value."""
    return dict(word.partition("=")[::2] for word in table.overrides(point, scale))


def _opening(name):
    """[(words, cost)] of the comment that the file begins with: at the paper's scale, at the demo's, and the report."""
    lines = FILES[name].read_text().split("\n\n")[0].splitlines()
    assert all(line.startswith("# ") for line in lines)
    parts = (line[2:].partition("  #") for line in lines)
    return [(shlex.split(command), cost.strip()) for command, _, cost in parts]
