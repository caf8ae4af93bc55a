"""What SwAV's launcher side says: recipes that lie on the papers' worlds, one line for what cannot work."""

import dataclasses

import pytest

from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.plan import plan as planning
from methods.backbones.spec import BACKBONES
from methods.swav.spec import METHOD, paper, regnety_256gf, small_batch, tiny

layout, validate = METHOD.layout, METHOD.validate

REFUSED = [
    ("prototypes", 1, "give 2 or more"),
    ("temperature", 0.0, "give a positive number"),
    ("epsilon", -0.05, "give a positive number"),
    ("sinkhorn_iterations", 0, "give 1 or more"),
    ("global_crops", 1, "give 2 or more"),
    ("head_layers", 0, "give 1 or more"),
    ("global_batch", 1, "give 2 or more"),
    ("batch_norm_group", 1, "give 2 or more"),
    ("queue", 20, "use at least 32, or 0 for none"),
    ("queue_epoch", -1, "give 0 or more"),
    ("assignment", "hard", "use soft or rounded"),
    ("optimizer", "adam", "use lars or sgd"),
    ("backbone", "resnet", "did you mean resnet"),
    ("checkpoint_activations", True, "or use resnet18"),
    ("local_size", 16, "must be smaller than global ones"),
]


@pytest.mark.parametrize(("name", "value", "said"), REFUSED)
def test_bad_input_is_one_line_with_the_field_and_the_fix(name, value, said):
    config = dataclasses.replace(tiny().method, **{name: value})
    with pytest.raises(InputError) as refusal:
        validate(config, 304)
    assert str(refusal.value).startswith(f"method.{name}=") and said in str(refusal.value)


def test_the_recipes_are_the_papers():
    """Thesis 4.2.5, 4.2.3 and Table 4.3; warm-up and final rates, and the queue's first epoch: released code."""
    large, small = paper().method, small_batch().method
    views = (2, 224, [0.14, 1.0], 6, 96, [0.05, 0.14])
    for config in (large, small):
        assert (
            config.global_crops, config.image_size, config.crop_scale,
            config.local_crops, config.local_size, config.local_scale,
        ) == views  # fmt: skip
        assert (config.prototypes, config.temperature, config.epsilon, config.sinkhorn_iterations) == (
            3000,
            0.1,
            0.05,
            3,
        )
        assert (config.hidden, config.embedding, config.weight_decay) == (2048, 128, 1e-6)
    assert (large.global_batch, large.lr, large.warmup_lr, large.final_lr, large.warmup_epochs) == (
        4096, 4.8, 0.3, 0.0048, 10,
    )  # fmt: skip
    assert (small.global_batch, small.lr, small.final_lr, small.warmup_epochs) == (256, 0.6, 0.0006, 0)
    assert (large.queue, small.queue, small.queue_epoch) == (0, 3840, 15)


def test_the_largest_network_fits_the_papers_gpus_only_with_activation_checkpointing():
    """Thesis 4.5: 1.3 billion parameters, a billion images once, on 512 V100 of 32 GB in 8 days."""
    wanted = ["method=swav", "recipe=regnety_256gf", "nodes=64", "cluster=v100_32gb"]
    plan = planning.make(*resolve(wanted, planning=True)).to_json()
    assert (plan["world_size"], plan["per_gpu_batch"], plan["steps"]) == (512, 17, 114_889)
    assert plan["memory_gb"] < 32 and plan["hours"] == pytest.approx(8 * 24, rel=0.03)
    without = planning.make(*resolve([*wanted, "method.checkpoint_activations=false"], planning=True)).to_json()
    assert without["memory_gb"] > 32 and without["hours"] < plan["hours"]


def test_the_largest_network_has_the_statistics_and_the_warm_up_of_the_released_models_name():
    """Synchronised over 64 GPUs, 8,000 iterations of 114,890."""
    config = regnety_256gf().method
    found = layout(config, 512)
    assert (found.batch_norm_ranks, found.per_gpu_batch, found.accumulation) == (64, 17, 1)
    assert config.warmup_epochs * 114_890 == pytest.approx(8000)


@pytest.mark.parametrize(("recipe", "world", "images"), [(paper, 64, 64), (paper, 512, 8), (small_batch, 4, 64)])
def test_a_batch_is_one_pass_on_the_papers_worlds(recipe, world, images):
    found = layout(recipe().method, world)
    assert (found.per_gpu_batch, found.accumulation) == (images, 1)
    assert found.per_gpu_batch * found.batch_norm_ranks == (recipe().method.batch_norm_group or 256)


def test_batches_are_never_split_because_the_loss_couples_them():
    with pytest.raises(InputError, match=r"nodes x tasks_per_node=4: .* use 8, 16, 32, 64, 128, 256, 512, 1024"):
        layout(paper().method, 4)  # 1024 images a rank, 512 of them sharing statistics


@pytest.mark.parametrize(
    ("recipe", "world", "changes"),
    [(tiny, 2, {"queue": 0, "prototypes": 600}), (regnety_256gf, 512, {}), (paper, 64, {"prototypes": 10_000})],
)
def test_a_batch_smaller_than_the_prototypes_is_legal_and_gets_advice_that_works(recipe, world, changes):
    config = dataclasses.replace(recipe().method, **changes)
    said = layout(config, world).waste
    assert "a queue helps" in said
    fix = dict(word.removeprefix("method.").split("=") for word in said.partition("(thesis 4.2.3): ")[2].split())
    helped = dataclasses.replace(config, **{name: int(value) for name, value in fix.items()})
    validate(helped, None)
    assert layout(helped, world).waste is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 15}, "the queue is empty for the whole training, method.queue_epoch=15 of method.epochs=15"),
        ({"epochs": 16}, None),
        ({"epochs": 15, "queue": 0, "prototypes": 200}, None),
        ({"freeze_epochs": 200}, "the prototypes keep their first values for the whole training, method.freeze_epochs"),
        ({"warmup_epochs": 300}, "the learning rate rises for the whole training, method.warmup_epochs=300 of"),
    ],
)
def test_what_a_training_is_too_short_for_is_said(changes, said):
    found = layout(dataclasses.replace(small_batch().method, **changes), 4).waste
    assert found is None if said is None else found.startswith(said)


def test_where_no_queue_fits_the_world_none_is_advised():
    config = dataclasses.replace(tiny().method, queue=0, prototypes=300)
    assert layout(config, 16).waste.endswith("on fewer ranks")  # 2 images a rank
    assert METHOD.layout(tiny().method, 2).waste is None


def test_the_head_of_the_largest_network_is_the_released_ones():
    """10444, 8192, 8192, 256 without batch normalisation, and 16,000 prototypes."""
    trunk = BACKBONES["regnety_256gf"]
    found = METHOD.sizes(regnety_256gf().method, 512).parameters - trunk.parameters
    assert found == 10_444 * 8192 + 8192 + 8192 * 8192 + 8192 + 8192 * 256 + 256 + 256 * 16_000
