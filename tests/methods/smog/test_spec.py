"""What SMoG's launcher side says: recipes that lie on the paper's worlds, one line for what cannot work."""

import dataclasses
import math

import pytest

from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.plan import cost, plan
from launcher.spec import registry
from methods.smog.spec import METHOD, paper, swin, tiny

layout, sizes, validate = METHOD.layout, METHOD.sizes, METHOD.validate

REFUSED = [
    ("global_batch", 1, "give 2 or more"),
    ("groups", 1, "give 2 or more"),
    ("hidden", 0, "give 1 or more"),
    ("cache", 0, "give 1 or more"),
    ("temperature", 0.0, "give a positive number"),
    ("temperature", math.nan, "give a positive number"),
    ("beta", 1.5, "give a number from 0 to 1"),
    ("final_beta", -0.1, "give a number from 0 to 1"),
    ("encoder_momentum", 1.01, "give a number from 0 to 1"),
    ("refit_every", -1, "or 0 for never"),
    ("reset_every", -300, "or 0 for never"),
    ("global_crops", 1, "give 2"),
    ("algorithm", "mean", "use momentum, average, latest or random"),
    ("activation", "selu", "use relu or gelu"),
    ("optimizer", "adam", "use lars, adamw or sgd"),
    ("backbone", "resnet", "did you mean resnet"),
    ("local_size", 16, "must be smaller than global ones"),
    ("local_size", 4, "too small for small_vgg"),
    ("augment", "none", "known: byol, "),
]


@pytest.mark.parametrize(("name", "value", "said"), REFUSED)
def test_bad_input_is_one_line_with_the_field_and_the_fix(name, value, said):
    config = dataclasses.replace(tiny().method, **{name: value})
    with pytest.raises(InputError) as refusal:
        validate(config, 304)
    assert str(refusal.value).startswith(f"method.{name}=") and said in str(refusal.value)


@pytest.mark.parametrize("field", ["cache", "refit_every"])
def test_k_means_finds_as_many_features_as_there_are_groups_or_is_refused(field):
    config = dataclasses.replace(tiny().method, **{"groups": 64, "cache": 9, "refit_every": 9, field: 1})
    with pytest.raises(InputError, match=f"method.{field}=1: .* 32 features for 64 groups; use at least 2"):
        validate(config, 304)
    validate(dataclasses.replace(config, **{field: 2}), 304)
    validate(dataclasses.replace(config, refit_every=0), 304)  # no k-means, no cache


def test_the_recipes_are_the_papers():
    """SMoG 3.4."""
    for config in (paper().method, swin().method):
        assert (config.image_size, config.crop_scale, config.local_crops, config.local_size, config.local_scale) == (
            224, [0.2, 1.0], 4, 96, [0.05, 0.2],
        )  # fmt: skip
        assert (config.groups, config.hidden, config.temperature) == (3000, 2048, 0.1)
        assert (config.beta, config.final_beta, config.encoder_momentum) == (1.0, 0.99, 0.999)
        assert (config.refit_every, config.reset_every, config.cache) == (300, 300, 300)
        assert (config.global_batch, config.warmup_epochs, config.schedule) == (4096, 10, "cosine")
        assert config.augment == "byol" and config.asymmetric
    large, transformer = paper().method, swin().method
    assert (large.optimizer, large.lr, large.weight_decay) == ("lars", pytest.approx(0.3 * 4096 / 256), 1e-6)
    assert (large.embedding, large.activation) == (128, "relu")
    assert (transformer.optimizer, transformer.lr) == ("adamw", pytest.approx(5e-4 * 4096 / 2048))
    assert (transformer.weight_decay, transformer.embedding, transformer.activation) == (0.05, 256, "gelu")


@pytest.mark.parametrize("recipe", ["paper", "swin"])
@pytest.mark.parametrize(("nodes", "images"), [(2, 256), (8, 64), (64, 8)])
def test_a_batch_is_one_pass_on_16_64_and_512_gpus(recipe, nodes, images):
    launch = ["method=smog", f"recipe={recipe}", f"nodes={nodes}", "cluster=generic"]
    made = plan.make(*resolve(launch, planning=True))
    assert (made.per_gpu_batch, made.accumulation) == (images, 1)
    assert (made.memory_gb < 32) == ((recipe, nodes) != ("swin", 2))
    config = {"paper": paper, "swin": swin}[recipe]().method
    cache_gb = 4 * 300 * 4096 * config.embedding / 1e9
    assert cache_gb < made.disk_gb < cache_gb + 0.6  # beside it the network, f-hat and the optimiser


def test_f_hat_is_counted_beside_network_and_momentum():
    """Scalars of a checkpoint without the cache, which the paper's numbers give: weights, momentum, f-hat."""
    config = dataclasses.replace(paper().method, refit_every=0)
    found = sizes(config, 64)
    online = 23_508_032 + 2048 * 2048 + 2 * 2048 + 2048 * 128 + 2 * 128 + 128 * 2048 + 2 * 2048 + 2048 * 128 + 128
    assert found.parameters == online and found.sharded_parameters == found.hosted_parameters == 0
    assert found.optimiser_slots == 1 and found.following_parameters == online - (
        128 * 2048 + 2 * 2048 + 2048 * 128 + 128
    )


def test_batches_are_never_split_because_the_loss_couples_them():
    with pytest.raises(InputError, match=r"nodes x tasks_per_node=4: .* use 8, 16, 32, 64, 128, 256, 512 ranks"):
        layout(paper().method, 4)  # 1024 images a rank, 512 of them sharing statistics


def test_a_batch_smaller_than_the_groups_is_legal_and_is_said():
    config = dataclasses.replace(tiny().method, groups=40)
    validate(config, 304)
    assert "moves at most as many of 40 groups" in layout(config, 2).waste
    assert layout(tiny().method, 2).waste is None


def test_the_rate_that_stands_in_is_swavs_share_of_the_peak_and_not_its_images():
    swav = registry.method("swav")
    theirs = cost.measured_efficiency(swav.recipes["paper"]().rate, swav.sizes(swav.recipes["paper"]().method, 64))
    made = paper()
    assert cost.measured_efficiency(made.rate, sizes(made.method, 64)) == pytest.approx(theirs, rel=0.01)
    assert made.rate.tflops == swav.recipes["paper"]().rate.tflops
