"""What DINO's launcher side says: recipes that are the papers', sizes that are the networks', one line for what cannot
work."""

import dataclasses
import math

import pytest

from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.plan import cost
from launcher.plan import plan as planning
from launcher.spec import registry
from methods.backbones.spec import BACKBONES
from methods.dino.spec import METHOD, demo, paper, resnet50, tiny, vit_base_8

layout, sizes, validate = METHOD.layout, METHOD.sizes, METHOD.validate

REFUSED = [
    ("outputs", 1, "give 2 or more"),
    ("hidden", 0, "give 1 or more"),
    ("head_layers", 0, "give 1 or more"),
    ("bottleneck", -1, "give 0 or more"),
    ("bottleneck", 0, "the predictor sits on it"),
    ("temperature", 0.0, "give a positive number"),
    ("teacher_temperature", -0.04, "or 0 for the argmax"),
    ("warmup_teacher_temperature", math.nan, "or 0 for the argmax"),
    ("teacher_warmup_epochs", -1, "give 0 or more"),
    ("centre_momentum", 1.0, "from 0 to below 1"),
    ("teacher_momentum", 1.0, "from 0 to below 1"),
    ("teacher_momentum", -0.1, "from 0 to below 1"),
    ("final_teacher_momentum", 1.1, "from 0 to 1"),
    ("final_weight_decay", -0.4, "give 0 or more"),
    ("freeze_epochs", -1, "give 0 or more"),
    ("clip", 0.0, "or null for none"),
    ("drop_path", 1.0, "from 0 to below 1"),
    ("activation", "tanh", "use gelu or relu"),
    ("objective", "ce", "use cross_entropy or mse"),
    ("teacher", "ema", "use momentum or last_epoch or last_step or copy"),
    ("operation", "centering", "use centring or none or softmax or sinkhorn"),
    ("optimizer", "adam", "use adamw or sgd"),
    ("backbone", "vit_small", "did you mean"),
    ("image_size", 18, "whole patches of 4 pixels"),
    ("local_size", 6, "whole patches of 4 pixels"),
]
REFUSED_TOGETHER = {
    "drop_path": ({"backbone": "small_resnet"}, "small_resnet has no paths to drop; use 0"),
    "global_crops": ({"global_crops": 1, "local_crops": 0}, "give 2 or more"),
    "teacher_temperature": ({"operation": "sinkhorn", "teacher_temperature": 0.0}, "sinkhorn has no argmax"),
    "warmup_teacher_temperature": ({"operation": "softmax", "warmup_teacher_temperature": 0.0}, "has no argmax"),
    "operation": ({"operation": "sinkhorn", "objective": "mse"}, "use centring or none"),
}


@pytest.mark.parametrize(("name", "value", "said"), REFUSED)
def test_bad_input_is_one_line_with_the_field_and_the_fix(name, value, said):
    refused(name, {name: value}, said)


@pytest.mark.parametrize("name", REFUSED_TOGETHER)
def test_what_cannot_go_together_is_one_line(name):
    refused(name, *REFUSED_TOGETHER[name])


def refused(name, values, reason):
    with pytest.raises(InputError) as refusal:
        validate(dataclasses.replace(tiny().method, **values), 304)
    assert str(refusal.value).startswith(f"method.{name}=") and reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "values",
    [
        {"teacher_temperature": 0.0, "warmup_teacher_temperature": 0.0},  # Table 5.12
        {"centre_momentum": 0.0},  # Table 5.13
        {"bottleneck": 0, "predictor": False},
        {"clip": None},
        {"teacher": "copy", "operation": "sinkhorn"},
        {"objective": "mse", "operation": "none"},
        {"global_crops": 1, "local_crops": 1},
    ],
)
def test_the_rows_of_the_tables_are_legal(values):
    validate(dataclasses.replace(tiny().method, **values), 304)


def test_the_paper_is_the_papers():
    """Thesis 5.3.1, 5.3.2, 5.6.4 and 5.6.6."""
    config = paper().method
    assert (config.backbone, config.epochs, config.global_batch, config.lr) == ("vit_small_16", 300, 1024, 0.002)
    assert (config.warmup_epochs, config.schedule) == (10, "cosine")
    assert (config.weight_decay, config.final_weight_decay) == (0.04, 0.4)
    assert (config.temperature, config.centre_momentum) == (0.1, 0.9)
    assert (config.warmup_teacher_temperature, config.teacher_temperature, config.teacher_warmup_epochs) == (
        0.04, 0.07, 30,
    )  # fmt: skip
    assert (config.teacher_momentum, config.final_teacher_momentum) == (0.996, 1.0)
    assert (config.outputs, config.hidden, config.head_layers, config.bottleneck) == (65_536, 2048, 3, 256)
    assert (config.activation, config.head_batch_norm, config.predictor) == ("gelu", False, False)
    assert (config.global_crops, config.image_size, config.local_crops, config.local_size) == (2, 224, 10, 96)
    assert config.crop_scale[0] == config.local_scale[1] == 0.32 and config.augment == "byol"


@pytest.mark.parametrize("recipe", METHOD.recipes)
def test_every_recipe_is_legal(recipe):
    made = METHOD.recipe(recipe)
    validate(made.method, made.images)


# -- how it lies on a cluster, and what it takes -----------------------------------------------------------------------


@pytest.mark.parametrize(("recipe", "world", "images"), [(paper, 16, 64), (paper, 512, 2), (vit_base_8, 64, 16)])
def test_a_network_without_batch_statistics_lies_on_any_world_that_divides_the_batch(recipe, world, images):
    found = layout(recipe().method, world)
    assert (found.per_gpu_batch, found.accumulation, found.batch_norm_ranks) == (images, 1, 1)


def test_with_batch_statistics_their_group_is_kept():
    assert layout(resnet50().method, 8).batch_norm_ranks == 8
    config = dataclasses.replace(resnet50().method, batch_norm_group=64)
    assert layout(config, 16).batch_norm_ranks == 2
    with pytest.raises(InputError, match=r"nodes x tasks_per_node=4: .*; use 8, 16, 32, 64, 128, 256, 512 ranks"):
        layout(config, 4)


def test_a_batch_that_does_not_divide_is_refused_with_the_worlds_that_do():
    with pytest.raises(InputError, match="use 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024 ranks"):
        layout(paper().method, 24)


def test_few_images_a_gpu_are_said_with_the_linearly_scaled_variant():
    found = layout(paper().method, 512)
    assert "2 images a GPU" in found.waste
    assert found.variant == ("method.global_batch=32768", "method.lr=0.064")
    assert layout(paper().method, 16).waste is None


@pytest.mark.parametrize("backbone", ["vit_small_5", "vit_small_8", "vit_base_8", "vit_small_16", "vit_base_16"])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_fp16_with_patches_below_16_pixels_is_advised_against(backbone, precision):
    """As the released code does."""
    size = 220 if backbone == "vit_small_5" else 224
    small = {"backbone": backbone, "precision": precision, "image_size": size, "local_size": 95 if size == 220 else 96}
    found = layout(dataclasses.replace(paper().method, **small), 16)
    said = precision == "fp16" and BACKBONES[backbone].patch < 16
    assert ("fp16 with patches of" in (found.waste or "")) == said
    assert found.variant == (("method.precision=fp32",) if said else ())


def test_no_recipe_has_fp16_with_patches_below_16_pixels():
    assert vit_base_8().method.precision == "fp32"
    for recipe in METHOD.recipes:
        assert "fp16 with patches" not in (layout(METHOD.recipe(recipe).method, 16).waste or ""), recipe


def test_what_a_training_is_too_short_for_is_said():
    """The schedules of the released code end in an assertion then, or in an array of negative size."""
    short = dataclasses.replace(paper().method, epochs=1)
    assert layout(short, 16).waste.split("; ") == [
        "the learning rate rises for the whole training, method.warmup_epochs=10 of method.epochs=1",
        "the last layer keeps its first weights for the whole training, method.freeze_epochs=1 of method.epochs=1",
        "the teacher's temperature moves for the whole training, method.teacher_warmup_epochs=30 of method.epochs=1",
    ]
    alike = {"warmup_teacher_temperature": short.teacher_temperature, "warmup_epochs": 0.5, "freeze_epochs": 0.5}
    assert layout(dataclasses.replace(short, **alike), 16).waste is None
    assert layout(dataclasses.replace(paper().method, epochs=31), 16).waste is None


def test_only_sinkhorn_minds_a_batch_smaller_than_the_outputs():
    config = dataclasses.replace(tiny().method, outputs=300)
    assert layout(config, 2).waste is None
    assert "shared out alike" in layout(dataclasses.replace(config, operation="sinkhorn"), 2).waste


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"predictor": False, "head_batch_norm": False, "fixed_length": False},
        {"head_layers": 1, "predictor": False},
        {"bottleneck": 0, "predictor": False, "head_layers": 2, "activation": "relu"},
    ],
)
def test_the_scalars_of_student_and_teacher_are_those_of_the_networks(values):
    from methods import backbones
    from methods.parts.heads import Headed

    config = dataclasses.replace(tiny().method, **values)
    heads, said = METHOD.outline(config).heads, sizes(config, 1)
    student, teacher = (Headed(backbones.build(config.backbone), each) for each in (heads, {"head": heads["head"]}))
    assert said.parameters == sum(p.numel() for p in student.parameters())
    assert said.following_parameters == sum(p.numel() for p in teacher.parameters())


def test_a_teacher_takes_memory_and_disk_but_has_no_gradients():
    said = sizes(paper().method, 16)
    alone = dataclasses.replace(said, following_parameters=0)
    lies = layout(paper().method, 16)
    both, one = (cost.memory(each, lies, "fp16") for each in (said, alone))
    assert both.weights == pytest.approx(2 * one.weights)
    assert (both.gradients, both.optimiser) == (one.gradients, one.optimiser)
    assert cost.checkpoint_gb(said)[0] == pytest.approx(cost.checkpoint_gb(alone)[0] * 4 / 3)  # AdamW keeps two


@pytest.mark.parametrize(("nodes", "hours"), [(2, 72.6), (8, 72.6 / 4), (64, 72.6 / 32)])
def test_the_plan_of_the_paper_takes_the_thesis_hours_and_fits_its_gpus(nodes, hours):
    spec, recipe = resolve(["method=dino", f"nodes={nodes}", "cluster=v100_32gb"], planning=True)
    plan = planning.make(spec, recipe)
    assert plan.hours == pytest.approx(hours, rel=0.02)  # Table 5.14
    assert plan.memory_gb < 16 and plan.disk_gb == pytest.approx(0.70, abs=0.01)
    assert plan.warnings == ()


def test_resnet50_stands_in_with_swavs_share_of_the_peak():
    """A ResNet-50 makes less of a GPU than a ViT; SwAV's, of fewer operations an image, took 400 GPU-hours (4.4)."""
    swav, made = registry.method("swav"), resnet50()
    theirs = cost.measured_efficiency(swav.recipes["paper"]().rate, swav.sizes(swav.recipes["paper"]().method, 64))
    assert cost.measured_efficiency(made.rate, sizes(made.method, 8)) == pytest.approx(theirs, rel=0.01)
    plan = planning.make(*resolve(["method=dino", "recipe=resnet50", "cluster=v100_32gb"], planning=True))
    assert plan.gpu_hours == pytest.approx(400 * 103 / 76.3, rel=0.01)


def test_the_demo_trains_all_that_the_paper_has():
    small, large = demo().method, paper().method
    for name in ("objective", "teacher", "operation", "predictor", "head_layers", "activation", "optimizer", "clip"):
        assert getattr(small, name) == getattr(large, name)
