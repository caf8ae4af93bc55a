"""What BYOL's launcher side says: recipes that are the papers', sizes that are the networks', one line for what cannot
work."""

import dataclasses
import math

import pytest

from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.plan import cost
from launcher.plan import plan as planning
from launcher.spec import registry
from methods.byol.spec import METHOD, epochs_300, paper, tiny, vit_small_16


@pytest.mark.parametrize(
    ("values", "field", "said"),
    [
        ({"hidden": 0}, "hidden", "give 1 or more"),
        ({"embedding": 0}, "embedding", "give 1 or more"),
        ({"target_momentum": 1.01}, "target_momentum", "from 0 to 1"),
        ({"target_momentum": math.nan}, "target_momentum", "from 0 to 1"),
        ({"final_weight_decay": -0.1}, "final_weight_decay", "give 0 or more"),
        ({"clip": 0.0}, "clip", "give a positive number"),
        ({"optimizer": "adam"}, "optimizer", "use lars, adamw or sgd"),
        ({"local_crops": -1}, "local_crops", "it is negative"),
        ({"global_crops": 1, "local_crops": 0}, "global_crops", "give 2 or more"),
        ({"drop_path": 0.1}, "drop_path", "small_vgg has no paths to drop; use 0"),
        ({"batch_norm_group": 1}, "batch_norm_group", "two images"),
    ],
)
def test_bad_input_is_one_line_with_the_field_and_the_fix(values, field, said):
    with pytest.raises(InputError) as refusal:
        METHOD.validate(dataclasses.replace(tiny().method, **values), 304)
    assert str(refusal.value).startswith(f"method.{field}=") and said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_recipes_are_the_papers():
    """Appendix A and the ablations: rates of 256 images, decay, base of the target's rate."""
    for recipe, epochs, rate, decay, tau in ((paper, 1000, 0.2, 1.5e-6, 0.996), (epochs_300, 300, 0.3, 1e-6, 0.99)):
        config = recipe().method
        assert config.lr == pytest.approx(rate * config.global_batch / 256) and config.global_batch == 4096
        assert (config.epochs, config.weight_decay, config.target_momentum) == (epochs, decay, tau)
        assert (config.optimizer, config.warmup_epochs, config.schedule) == ("lars", 10, "cosine")
        assert (config.hidden, config.embedding, config.predictor) == (4096, 256, True)
        assert (config.global_crops, config.local_crops, config.crop_scale, config.augment) == (2, 0, [0.08, 1], "byol")


def test_the_transformers_recipe_is_dinos_but_for_what_the_thesis_names():
    ours, theirs = vit_small_16().method, registry.method("dino").recipe("paper").method
    for name in (
        *("backbone", "epochs", "global_batch", "optimizer", "lr", "warmup_lr", "final_lr", "warmup_epochs"),
        *("weight_decay", "final_weight_decay", "clip", "drop_path", "augment", "precision", "schedule"),
    ):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.target_momentum == theirs.teacher_momentum and ours.local_crops == 0


def test_the_heads_have_the_papers_scalars():
    """2048-4096-256 and 256-4096-256, normalised after the hidden layer alone (Appendix A)."""
    heads = METHOD.outline(paper().method).heads
    hidden = 2 * 4096  # scale and shift
    assert heads["projection"].parameters == 2048 * 4096 + hidden + 4096 * 256
    assert heads["predictor"].parameters == 256 * 4096 + hidden + 4096 * 256
    without = METHOD.sizes(dataclasses.replace(paper().method, predictor=False), 64)
    whole = METHOD.sizes(paper().method, 64)
    assert whole.parameters - without.parameters == heads["predictor"].parameters
    assert whole.following_parameters == without.following_parameters == without.parameters


def test_batch_statistics_alone_say_how_many_passes_there_are():
    whole = METHOD.layout(paper().method, 64)
    assert (whole.per_gpu_batch, whole.accumulation, whole.batch_norm_ranks) == (64, 1, 64)
    grouped = METHOD.layout(dataclasses.replace(paper().method, batch_norm_group=512), 4)
    assert (grouped.per_gpu_batch, grouped.accumulation, grouped.batch_norm_ranks) == (512, 2, 1)


@pytest.mark.parametrize("recipe", ["paper", "vit_small_16"])
def test_64_gpus_of_32_gb_hold_it(recipe):
    planned = resolve(["method=byol", f"recipe={recipe}", "nodes=8", "cluster=v100_32gb"], planning=True)
    assert 0 < planning.make(*planned).memory_gb < 32


def test_a_resnet50_has_swavs_share_of_the_peak():
    swav, made = registry.method("swav"), paper()
    theirs = cost.measured_efficiency(swav.recipe("paper").rate, swav.sizes(swav.recipe("paper").method, 64))
    assert cost.measured_efficiency(made.rate, METHOD.sizes(made.method, 64)) == pytest.approx(theirs, rel=0.01)
