"""What every method's fields must be: the line that refuses them names the field, the reason and what would do."""

import dataclasses

import pytest

from launcher.errors import InputError
from methods.backbones.spec import BACKBONES
from methods.parts.layout import check_size, check_training, memory_parts
from methods.rotnet.spec import tiny

REFUSED = {
    ("backbone", "vit_small16"): "did you mean vit_small_16?",
    ("backbone", "resnet_50"): "did you mean resnet50?",
    ("backbone", "x"): "known: alexnet_bn, regnety_128gf",
    ("warmup_lr", -0.1): "give 0 or more",
    ("warmup_lr", float("nan")): "give 0 or more",
    ("final_lr", float("inf")): "give 0 or more",
}


@pytest.mark.parametrize("field, value", REFUSED)
def test_a_field_that_cannot_be_is_refused_with_what_would_do(field, value):
    config = dataclasses.replace(tiny().method, **{field: value})
    with pytest.raises(InputError) as refused:
        check_training(config, None)
    assert str(refused.value).startswith(f"method.{field}={value}: ") and REFUSED[field, value] in str(refused.value)


@pytest.mark.parametrize("warmup_lr", [None, 0.0, 0.3])
def test_a_warm_up_may_start_anywhere_from_nothing_on(warmup_lr):
    check_training(dataclasses.replace(tiny().method, warmup_lr=warmup_lr, final_lr=0.0), None)


@pytest.mark.parametrize(
    "backbone, size, fix",
    [
        ("vit_small_16", 100, "use 96 or 112"),
        ("vit_small_5", 224, "use 220 or 225"),
        ("small_vit", 2, "use at least 4"),
        ("swin_tiny", 98, "use 96 or 100"),
        ("resnet50", 16, "use at least 32"),
        ("alexnet_bn", 62, "use at least 63"),
    ],
)
def test_images_that_a_backbone_cannot_take_are_refused_with_sizes_that_it_can(backbone, size, fix):
    with pytest.raises(InputError, match=f"^method.local_size={size}: .*{backbone}.*; {fix}$"):
        check_size(backbone, "method.local_size", size)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_its_own_size_and_its_smallest_suit_every_backbone(backbone):
    for size in (BACKBONES[backbone].image_size, BACKBONES[backbone].smallest):
        check_size(backbone, "method.image_size", size)


@pytest.mark.parametrize(
    ("batch", "expected"), [(4096, 512), (8704, 512), (256, 64), (96, 16), (8, 2), (10, 2), (7, 1)]
)
def test_a_memory_lies_in_parts_of_four_images_or_more(batch, expected):
    assert memory_parts(batch) == expected
