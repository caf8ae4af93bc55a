"""What follows from an outline: refusals, layouts, sizes; each number for the idea that it comes from."""

from dataclasses import dataclass, replace

import pytest

from launcher.errors import InputError
from launcher.plan import cost
from launcher.spec.contract import Recipe
from launcher.spec.schema import TrainConfig
from methods.augment.patches import PatchesConfig
from methods.augment.spec import MultiCropConfig, ViewsConfig
from methods.backbones.spec import BACKBONES
from methods.engine.outline import Follower, Outline, method
from methods.parts.recipes import on_photos
from methods.parts.shapes import Classifier, Head, Once, Outside, Perceptron, UnitRows

VGG = BACKBONES["small_vgg"]
HEADS = {"projection": Perceptron((VGG.feature_dim, 32, 8))}
SIZES = {"backbone": "small_vgg", "image_size": 32, "global_batch": 64}


def made(config=TrainConfig, heads=None, recipes=(), **given):
    """A method with that outline."""
    said = {name: given.pop(name) for name in ("check", "layout", "advice", "extra") if name in given}
    outline = lambda _: Outline(HEADS if heads is None else heads, **given)  # noqa: E731
    named = {"name": "toy", "summary": "", "trainer": "toy:Toy"}
    return method(config=config, recipes=recipes, outline=outline, **said, **named)


def sizes(config=TrainConfig, heads=None, changes=None, **given):
    return made(config, heads, **given).sizes(config(**SIZES, **(changes or {})), 1)


def test_parameters_are_those_of_the_backbone_and_of_heads_that_are_part_of_the_network():
    heads = {**HEADS, "groups": Outside(UnitRows(8, 100))}
    assert sizes(heads=heads).parameters == VGG.parameters + HEADS["projection"].parameters
    assert sizes(heads=heads).flops_per_image - sizes().flops_per_image == 6 * 800


def test_a_head_is_met_by_every_view():
    one, three = sizes(), sizes(views=((3, 32),))
    assert three.flops_per_image == pytest.approx(3 * one.flops_per_image)
    assert three.activations == pytest.approx(3 * one.activations)


def test_crops_cost_by_their_size_and_are_floats():
    crops = {"global_crops": 2, "local_crops": 4, "local_size": 16, "local_scale": [0.05, 0.14]}
    found = sizes(MultiCropConfig, {}, crops)
    assert found.flops_per_image == pytest.approx(6 * (2 * VGG.macs_at(32) + 4 * VGG.macs_at(16)))
    whole = sizes(heads={}, views=((2, 32), (4, 16)))
    pixels = 4 * 3 * (2 * 32**2 + 4 * 16**2)
    assert found.unhalved - whole.unhalved == pixels
    fewer = {"heads": {}, "views": ((1, 32), (4, 16))}  # the other global crop is the follower's
    assert sizes(MultiCropConfig, changes=crops, **fewer).unhalved - sizes(**fewer).unhalved == pytest.approx(pixels)


def test_patches_cost_as_so_many_crops_of_their_size():
    patches = sizes(PatchesConfig, {}, {"grid": 3})
    crops = sizes(ViewsConfig, {}, {"global_crops": 9})
    assert vars(patches) == vars(crops)


def test_a_head_that_is_met_once_costs_so_however_many_patches_there_are():
    whole = {"order": Classifier(VGG.feature_dim, 100)}
    each, once = (sizes(PatchesConfig, heads, {}) for heads in (whole, {"order": Once(whole["order"])}))
    alone = sizes(PatchesConfig, {}, {})
    assert each.flops_per_image - alone.flops_per_image == pytest.approx(
        9 * (once.flops_per_image - alone.flops_per_image)
    )
    assert once.parameters == each.parameters and once.unhalved - alone.unhalved == 4 * 4 * 100


def test_a_queue_that_every_rank_has_whole_is_so_much_on_each_and_once_on_the_disk():
    config, shares, whole = TrainConfig(**SIZES), {"remembered": {"queue": 10**6}}, {"replicated": {"queue": 10**6}}
    layout = made(couples="all meet").layout(config, 4)
    plain, few, all_of_it = (made(couples="all meet", **kept).sizes(config, 4) for kept in ({}, shares, whole))
    held = [cost.memory(each, layout, "fp32").total for each in (plain, few, all_of_it)]
    assert held[1] - held[0] == pytest.approx(1e-3) and held[2] - held[0] == pytest.approx(4e-3)
    disk = [sum(cost.checkpoint_gb(each)) for each in (plain, few, all_of_it)]
    assert disk[1] == disk[2] == pytest.approx(disk[0] + 4e-3)
    assert all_of_it.why["disk"] == "the network, its momentum and the queue"


def test_a_frozen_network_is_held_and_runs_forward_alone_and_is_on_no_disk():
    frozen, plain = sizes(frozen="resnet18"), sizes()
    assert frozen.held == 4 * BACKBONES["resnet18"].parameters
    assert frozen.flops_per_image - plain.flops_per_image == pytest.approx(2 * BACKBONES["resnet18"].macs_at(32))
    assert cost.checkpoint_gb(frozen) == cost.checkpoint_gb(plain)


def test_a_column_that_there_is_not_is_noticed_when_the_method_is_made():
    given = {"name": "toy", "summary": "", "trainer": "toy:Toy", "config": TrainConfig, "recipes": ()}
    for columns in (("labels",), "label"):
        with pytest.raises(ValueError, match="choose from label, position, text"):
            method(**given, outline=Outline, columns=columns)


def test_a_follower_is_stored_and_runs_forward_alone():
    alone, both = sizes(), sizes(follower=Follower("the teacher", ("projection",), 2))
    scalars = VGG.parameters + HEADS["projection"].parameters
    assert both.following_parameters == scalars and both.parameters == alone.parameters
    assert both.flops_per_image - alone.flops_per_image == 4 * (VGG.macs_at(32) + HEADS["projection"].macs)
    assert both.why["disk"] == "the network, its momentum and the teacher"


def test_scores_targets_and_what_a_rank_holds_are_bytes_in_any_precision():
    heads = {"classifier": Classifier(VGG.feature_dim, 10)}
    assert sizes(heads=heads, target_scalars=7).unhalved - sizes(heads={}).unhalved == 4 * (4 * 10 + 7)
    without, held = sizes(), sizes(held=3e9)
    layout = made().layout(TrainConfig(**SIZES), 1)
    more = cost.memory(held, layout, "bf16").total - cost.memory(without, layout, "bf16").total
    assert more == pytest.approx(3.0)


def test_images_that_meet_in_the_mean_alone_may_be_several_passes_and_coupled_ones_are_one():
    config = TrainConfig(**SIZES, batch_norm_group=16)
    apart, coupled = made(), made(couples="all meet")
    assert (apart.layout(config, 2).per_gpu_batch, apart.layout(config, 2).accumulation) == (16, 2)
    with pytest.raises(InputError, match="use 4, 8, 16, 32, 64 ranks"):
        coupled.layout(config, 2)
    assert coupled.layout(config, 8).why["accumulation"] == "none: all meet"


def test_a_plan_says_how_many_inputs_an_image_gives():
    config = {**SIZES, "image_size": 32}
    assert "images; batch" in made().layout(TrainConfig(**config), 2).why["per_gpu_batch"]
    for toy, given in ((made(views=((9, 32),)), TrainConfig(**config)), (made(PatchesConfig), PatchesConfig(**config))):
        assert "images, each giving 9 inputs; batch" in toy.layout(given, 2).why["per_gpu_batch"]


def test_without_batch_statistics_no_group_of_them_refuses_a_world():
    config = TrainConfig(**{**SIZES, "backbone": "small_vit"}, batch_norm_group=48)
    plain = {"projection": Perceptron((32, 32, 8), batch_norm=False)}
    assert made(heads=plain, couples="all meet").layout(config, 2).batch_norm_ranks == 1
    with pytest.raises(InputError):
        made(couples="all meet").layout(config, 2)


def test_what_is_remembered_lies_on_ranks_that_share_its_parts():
    config = TrainConfig(**SIZES)
    with pytest.raises(InputError, match="a global batch of 64, its batch statistics or its queue do not divide by it"):
        made(couples="all meet", remembered={"queue": 640}).layout(config, 64)
    assert made(couples="all meet", remembered={"queue": 0}).layout(config, 64).per_gpu_batch == 1


def test_a_field_that_cannot_be_is_refused_before_the_methods_own_check():
    def check(config, images):
        raise AssertionError("too late")

    with pytest.raises(InputError, match=r"^method.lr=-1: "):
        made(check=check).validate(TrainConfig(**SIZES, lr=-1), None)
    with pytest.raises(InputError, match=r"^method.global_batch=1: the head's batch statistics need two images"):
        made().validate(TrainConfig(**{**SIZES, "global_batch": 1}), None)
    with pytest.raises(InputError, match=r"^method.augment=x: "):
        made(ViewsConfig).validate(ViewsConfig(**SIZES, augment="x"), None)
    with pytest.raises(InputError, match=r"^method.cell=200: "):
        made(PatchesConfig).validate(PatchesConfig(**SIZES, cell=200), None)


def test_views_without_local_crops_have_no_fields_of_local_crops():
    from launcher.spec import runspec

    science = runspec._science(ViewsConfig(**SIZES))
    assert "augment" in science and not [name for name in science if name.startswith("local")]


def demo() -> Recipe:
    local = {"local_size": 16, "local_scale": [0.1, 0.3]}
    return on_photos(MultiCropConfig, source="", expect="", **{**SIZES, **local, "name": "toy", "epochs": 9})


def test_tiny_follows_from_demo_unless_it_is_given():
    toy = made(MultiCropConfig, recipes=(demo,))
    found = toy.recipe("tiny")
    assert found.here and found.method.epochs == 2 and found.method.global_batch == 32
    toy.validate(found.method, found.images)

    def tiny() -> Recipe:
        return demo().but(epochs=3)

    assert made(MultiCropConfig, recipes=(demo, tiny)).recipe("tiny").method.epochs == 3


def test_advice_and_extra_have_the_last_word():
    given = {
        "advice": lambda config, world_size, layout: replace(layout, waste=f"{world_size} are too many"),
        "extra": lambda config, world_size, found: replace(found, sharded_parameters=world_size),
    }
    toy, config = made(**given), TrainConfig(**SIZES)
    assert toy.layout(config, 2).waste == "2 are too many" and toy.sizes(config, 4).sharded_parameters == 4


def test_what_is_so_until_after_the_training_is_said_behind_the_advice():
    config = TrainConfig(**SIZES, epochs=3, warmup_epochs=3)
    said = "the learning rate rises for the whole training, method.warmup_epochs=3 of method.epochs=3"
    assert made().layout(config, 1).waste == said
    more = made(until={"knn_neighbours": "nobody votes"}, advice=lambda *given: replace(given[-1], waste="too many"))
    others = ["too many", said, "nobody votes for the whole training, method.knn_neighbours=20 of method.epochs=3"]
    assert more.layout(config, 1).waste.split("; ") == others
    assert made().layout(replace(config, warmup_epochs=2.9), 1).waste is None


@dataclass(frozen=True)
class Attention(Head):
    """A head of one's own."""

    parameters: int = 1000
    kept: int = 50


def test_a_head_of_ones_own_says_what_differs():
    found = sizes(heads={"attention": Attention()})
    assert found.parameters == VGG.parameters + 1000
    assert found.flops_per_image == pytest.approx(6 * (VGG.macs_at(32) + 1000))
