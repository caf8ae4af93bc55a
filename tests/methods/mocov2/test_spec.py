"""What MoCo-v2's launcher side says: the papers' numbers, the worlds that its groups of statistics leave it, and one
line for what cannot work."""

import dataclasses

import pytest

from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.plan import plan as planning
from methods.dino.spec import METHOD as DINO
from methods.dino.spec import paper as dino_paper
from methods.mocov2.spec import METHOD, paper, tiny, vit_small_16

layout, validate = METHOD.layout, METHOD.validate

REFUSED = [
    ("queue", 100, "no multiple of the global batch of 32; use 96 or 128"),
    ("queue", 31, "use at least 32"),
    ("queue", 0, "give 1 or more"),
    ("global_batch", 128, "there are only"),
    ("temperature", 0.0, "give a positive number"),
    ("encoder_momentum", 1.0, "give a number from 0 to below 1"),
    ("global_crops", 1, "give 2"),
    ("global_crops", 3, "give 2"),
    ("hidden", 0, "give 1 or more"),
    ("embedding", 0, "give 1 or more"),
    ("optimizer", "lars", "use sgd or adamw"),
    ("final_weight_decay", -0.1, "give 0 or more"),
    ("augment", "mocov3", "did you mean mocov2"),
    ("local_size", 16, "must be smaller than global ones"),
]


@pytest.mark.parametrize(("name", "value", "said"), REFUSED)
def test_bad_input_is_one_line_with_the_field_and_the_fix(name, value, said):
    config = dataclasses.replace(tiny().method, **{name: value})
    with pytest.raises(InputError) as refusal:
        validate(config, 127)
    assert str(refusal.value).startswith(f"method.{name}=") and said in str(refusal.value)


def test_a_queue_of_one_batch_is_legal():
    validate(dataclasses.replace(tiny().method, queue=32), None)


def test_a_queue_longer_than_the_data_is_refused_with_the_longest_one():
    for images in (96, 127, None):
        validate(tiny().method, images)
    with pytest.raises(InputError) as refusal:
        validate(tiny().method, 95)
    why = "of 95 images; most queries would meet an older key of their own image as a wrong answer"
    assert str(refusal.value) == f"method.queue=96: {why}; use at most 64"


def test_the_recipe_is_the_papers():
    """He et al. 2020, 3.3 and 4; Chen et al. 2020; released code."""
    config = paper().method
    assert (config.epochs, config.global_batch, config.lr, config.momentum, config.weight_decay) == (
        200, 256, 0.03, 0.9, 1e-4,
    )  # fmt: skip
    assert (config.schedule, config.final_lr, config.warmup_epochs, config.optimizer) == ("cosine", 0, 0, "sgd")
    assert (config.queue, config.temperature, config.encoder_momentum) == (65_536, 0.2, 0.999)
    assert (config.hidden, config.embedding, config.crop_scale, config.augment) == (2048, 128, [0.2, 1.0], "mocov2")
    assert (config.batch_norm_group, config.shuffle, config.local_crops, config.normalise) == (32, True, 0, "imagenet")


def test_the_head_is_two_layers_without_batch_normalisation():
    head = METHOD.outline(paper().method).heads["projection"]
    assert head.parameters == 2048 * 2048 + 2048 + 2048 * 128 + 128 and not head.normalised


def test_the_vits_optimiser_schedule_and_crops_are_dinos():
    ours, theirs = vit_small_16().method, dino_paper().method
    shared = (
        "backbone", "image_size", "epochs", "global_batch", "batch_norm_group", "optimizer", "lr", "warmup_lr",
        "final_lr", "warmup_epochs", "schedule", "weight_decay", "final_weight_decay", "augment", "crop_scale",
        "local_size", "local_scale", "precision",
    )  # fmt: skip
    assert {name: getattr(ours, name) for name in shared} == {name: getattr(theirs, name) for name in shared}
    assert ours.local_crops == 6


def test_the_vits_head_alone_is_normalised():
    """Thesis, Table 5.11, rows 5 and 6."""
    config = vit_small_16().method
    head = METHOD.outline(config).heads["projection"]
    assert head.normalised and head.parameters == 384 * 2048 + 2 * 2048 + 2048 * 128 + 128
    assert not paper().method.head_batch_norm and config.batch_norm_group == 0


@pytest.mark.parametrize(("world", "images", "ranks"), [(8, 32, 1), (16, 16, 2), (64, 4, 8)])
def test_a_batch_is_one_pass_and_its_groups_of_32_lie_on_the_world(world, images, ranks):
    found = layout(paper().method, world)
    assert (found.per_gpu_batch, found.accumulation, found.batch_norm_ranks) == (images, 1, ranks)


def test_fewer_ranks_would_have_to_split_the_batch():
    with pytest.raises(InputError, match=r"nodes x tasks_per_node=4: .* use 8, 16, 32, 64, 128, 256 ranks"):
        layout(paper().method, 4)


def test_a_transformer_lies_on_any_divisor_of_its_batch():
    assert layout(vit_small_16().method, 16).per_gpu_batch == 64
    plain = dataclasses.replace(vit_small_16().method, batch_norm_group=7, head_batch_norm=False)
    assert layout(plain, 3 + 1).batch_norm_ranks == 1


def test_the_vits_rate_is_the_share_of_the_peak_that_dino_reached():
    """Thesis, Table 5.14: 300 epochs with six local crops took 60.9 hours on 16 GPUs."""
    config, rate = vit_small_16().method, vit_small_16().rate
    dino = DINO.sizes(dataclasses.replace(dino_paper().method, local_crops=6), 16).flops_per_image
    theirs = 300 * 1_281_167 / (60.9 * 3600 * 16)
    ours = METHOD.sizes(config, 16).flops_per_image
    assert rate.images_per_s * ours == pytest.approx(theirs * dino, rel=0.01)


def test_the_plan_knows_the_hours_the_memory_the_queue_and_the_other_encoder():
    """Chen et al. 2020, Table 3: 53 hours and 5.0 GB on 8 V100."""
    plan = planning.make(*resolve(["method=mocov2", "nodes=1", "cluster=v100_32gb"], planning=True)).to_json()
    assert plan["world_size"] == 8 and plan["hours"] == pytest.approx(53, rel=0.05)
    assert plan["memory_gb"] == pytest.approx(5.0, rel=0.15)
    sizes = METHOD.sizes(paper().method, 8)
    assert sizes.following_parameters == sizes.parameters + 65_536 * 128
    assert sizes.why["disk"].endswith("the momentum encoder and the queue")
