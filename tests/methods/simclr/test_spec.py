"""What SimCLR's launcher side says: recipes that lie on the papers' worlds, the thesis' memory, one line for
what cannot work."""

import dataclasses

import pytest

from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.plan import plan as planning
from methods.backbones.spec import BACKBONES
from methods.simclr.spec import METHOD, demo, multicrop, paper, small_batch, thesis, tiny

REFUSED = [
    ({"temperature": 0.0}, "temperature=0.0: cosines are divided by it; give a positive number"),
    ({"global_crops": 1, "local_crops": 0}, "global_crops=1: a crop is to find another one of its image; give 2"),
    ({"global_crops": 0}, "global_crops=0: an image needs a global crop; give 1 or more"),
    ({"local_crops": -1}, "local_crops=-1: it is negative"),
    ({"directions": "both"}, "directions=both: no such choice; use mean or sum"),
    ({"optimizer": "adam"}, "optimizer=adam: no such choice; use lars or sgd"),
    ({"embedding": 0}, "embedding=0: too few; give 1 or more"),
    # One image alone has neither statistics nor negatives.
    ({"global_batch": 1}, "global_batch=1: the head's batch statistics need two images; give 2 or more"),
    ({"global_batch": 1, "batch_norm_group": 2}, "global_batch=1: no other image is there to be a negative; give 2"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED)
def test_what_cannot_work_is_one_line(changes, said):
    with pytest.raises(InputError) as refused:
        METHOD.validate(dataclasses.replace(tiny().method, **changes), 304)
    assert f"method.{said}" in str(refused.value) and "\n" not in str(refused.value)


def test_local_crops_alone_can_be_found_by_one_global_crop():
    METHOD.validate(dataclasses.replace(tiny().method, global_crops=1, local_crops=1), 304)


@pytest.mark.parametrize(
    ("recipe", "world", "images", "ranks_with_one_statistics"),
    [(paper, 64, 64, 64), (paper, 512, 8, 512), (thesis, 64, 64, 8), (multicrop, 64, 64, 8), (small_batch, 4, 64, 4)],
)
def test_a_batch_is_one_pass_and_its_statistics_are_the_recipes(recipe, world, images, ranks_with_one_statistics):
    layout = METHOD.layout(recipe().method, world)
    assert (layout.per_gpu_batch, layout.accumulation) == (images, 1)
    assert layout.batch_norm_ranks == ranks_with_one_statistics
    assert "negatives" in layout.why["accumulation"] and layout.waste is None


def test_rates_follow_the_papers_rule_and_batches_the_thesis():
    for recipe in (paper, thesis, multicrop, small_batch):
        config = recipe().method
        assert config.lr == pytest.approx(0.3 * config.global_batch / 256)
        assert (config.weight_decay, config.temperature, config.schedule) == (1e-6, 0.1, "cosine")
        assert (config.warmup_epochs, config.directions, config.optimizer) == (10, "mean", "lars")
    found = [(r().method.epochs, r().method.global_batch, r().method.local_crops) for r in (thesis, multicrop)]
    assert found == [(400, 4096, 0), (400, 4096, 4)]
    assert (small_batch().method.epochs, small_batch().method.global_batch) == (200, 256)


def test_memory_is_that_of_thesis_table_4_4():
    """2x224 crops, 64 V100: 8.6 GB. Hours are held in tests/launcher/plan, from SwAV's row of that table."""
    plan = planning.make(*resolve(["method=simclr", "nodes=8", "cluster=v100_16gb"], planning=True))
    assert plan.memory_gb == pytest.approx(8.6, rel=0.15)


@pytest.mark.parametrize(("local", "crops"), [(0, 2), (2, 4)])
def test_each_crop_of_an_image_has_a_cosine_with_each_crop_of_a_batch(local, crops):
    config = dataclasses.replace(demo().method, local_crops=local)
    more = METHOD.sizes(dataclasses.replace(config, global_batch=2 * config.global_batch), 1)
    cosines = crops * crops * config.global_batch
    kept = 4  # fp32 tensors of all cosines, until the backward pass is over
    assert more.unhalved - METHOD.sizes(config, 1).unhalved == pytest.approx(4 * kept * cosines)


def test_the_head_is_2048_2048_128_with_two_normalisations():
    found = METHOD.sizes(paper().method, 64).parameters - BACKBONES["resnet50"].parameters
    assert found == 2048 * 2048 + 2 * 2048 + 2048 * 128 + 2 * 128
