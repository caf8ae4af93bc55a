import subprocess
import sys

import pytest

from launcher.errors import InputError
from launcher.spec.runspec import freeze
from methods.augment import spec
from methods.augment.spec import AUGMENTATIONS, MultiCropConfig, check_views

REFUSED = {
    "augment=simclrr": ({"augment": "simclrr"}, "did you mean simclr?"),
    "normalise=none": ({"normalise": "none"}, "known: imagenet, swav"),
    "backbone=vit_smal": ({"backbone": "vit_smal"}, "no such name"),
    "global_crops=0": ({"global_crops": 0}, "give 1 or more"),
    "local_crops=-1": ({"local_crops": -1}, "negative; give 0 or more"),
    "crop_scale=[1.0, 0.14]": ({"crop_scale": [1.0, 0.14]}, "0 < smallest <= largest <= 1"),
    "crop_scale=[0.0, 1.0]": ({"crop_scale": [0.0, 1.0]}, "0 < smallest"),
    "local_scale=[0.14, 0.05]": ({"local_scale": [0.14, 0.05]}, "0 < smallest <= largest <= 1"),
    "local_scale=[0.05]": ({"local_scale": [0.05]}, "give [smallest, largest]"),
    "local_scale=[0.05, 0.5]": (
        {"local_scale": [0.05, 0.5], "crop_scale": [0.1, 0.4]}, "its largest share is above that of the global crops",
    ),
    "local_scale=[0.2, 0.3]": ({"local_scale": [0.2, 0.3]}, "its smallest share is above"),
    "local_size=224": ({"local_size": 224}, "must be smaller than global ones, method.image_size=224; use at most 223"),
    "local_size=300": ({"local_size": 300}, "use at most 223"),
    "local_size=4": ({"local_size": 4}, "too small for small_vgg; use at least 8"),
    "local_size=90": ({"local_size": 90, "backbone": "vit_small_16"}, "whole patches of 16 pixels; use 80 or 96"),
    "image_size=230": ({"image_size": 230, "backbone": "vit_small_16"}, "use 224 or 240"),
}  # fmt: skip


@pytest.mark.parametrize("value", REFUSED)
def test_bad_views_are_one_line_with_the_field_and_the_fix(value):
    fields, fix = REFUSED[value]
    with pytest.raises(InputError) as refusal:
        check_views(MultiCropConfig(**{"backbone": "small_vgg", **fields}), None)
    assert str(refusal.value).startswith(f"method.{value}: ") and fix in str(refusal.value)


@pytest.mark.parametrize("backbone", ["small_vgg", "vit_small_16"])
def test_the_papers_views_are_accepted_also_frozen(backbone):
    for fields in (
        {},  # SwAV
        {"crop_scale": [0.3, 1.0], "local_scale": [0.05, 0.3], "local_crops": 10, "augment": "byol"},  # DINO
        {"crop_scale": [0.2, 1.0], "local_scale": [0.05, 0.2], "local_crops": 4, "augment": "byol"},  # SMoG
        {"local_crops": 0, "local_size": 999, "local_scale": [5]},  # what is not used is not looked at
    ):
        check_views(freeze(MultiCropConfig(backbone=backbone, **fields)), None)


def test_the_recipes_are_the_papers():
    """SimCLR, Appendix A; BYOL, Appendix C; DINO's released configuration for local crops."""
    figures = ("flip", "jitter", "brightness", "contrast", "saturation", "hue", "grey", "blur", "sigma", "solarise")
    table = {
        "simclr": [(0.5, 0.8, 0.8, 0.8, 0.8, 0.2, 0.2, 0.5, (0.1, 2.0), 0.0)] * 2,
        "byol": [
            (0.5, 0.8, 0.4, 0.4, 0.2, 0.1, 0.2, 1.0, (0.1, 2.0), 0.0),
            (0.5, 0.8, 0.4, 0.4, 0.2, 0.1, 0.2, 0.1, (0.1, 2.0), 0.2),
            (0.5, 0.8, 0.4, 0.4, 0.2, 0.1, 0.2, 0.5, (0.1, 2.0), 0.0),
        ],
        "mocov2": [(0.5, 0.8, 0.4, 0.4, 0.4, 0.1, 0.2, 0.5, (0.1, 2.0), 0.0)] * 2,
    }
    for name, rows in table.items():
        made = AUGMENTATIONS[name]
        assert [tuple(getattr(each, f) for f in figures) for each in (*made.views, made.local)] == rows
    interpolations = {name: AUGMENTATIONS[name].interpolation for name in table}
    assert interpolations == {"simclr": "bilinear", "byol": "bicubic", "mocov2": "bilinear"}


def test_the_spec_is_read_without_torch_and_numpy():
    code = f"import {spec.__name__}, sys; print(*sys.modules)"
    path = ["-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"]
    loaded = subprocess.run([sys.executable, *path], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "PIL"}.intersection(loaded)
