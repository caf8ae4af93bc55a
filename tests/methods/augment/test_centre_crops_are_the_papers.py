"""Centre crops, by which networks are judged and images clustered, are those of the papers' released evaluations:
Resize(256) and CenterCrop(224) of every image, bicubic for DINO; small images stay whole."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from launcher.compose import weights
from launcher.spec import registry
from methods.augment.spec import interpolation_of
from methods.augment.views import CentreView
from methods.data.photos import Photos
from methods.data.sets.cifar10.reader import Cifar10

FOLDER = SimpleNamespace()  # a data set of images of any size


def picture(width, height, mode="RGB"):
    smooth = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(smooth).convert(mode).resize((width, height), Image.Resampling.BICUBIC)


def config(size=224, **values):
    return SimpleNamespace(image_size=size, **values)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(500, 375), (375, 500), (333, 251), (253, 252), (224, 224), (100, 150), (60, 7)])
def test_every_image_is_resized_and_cropped_as_by_torchvision(size, interpolation):
    """Up to a level, because PIL holds the box of a resize in single precision."""
    view = CentreView.of(config(interpolation=interpolation), FOLDER)
    theirs = Compose([Resize(256, interpolation=InterpolationMode(interpolation)), CenterCrop(224)])
    for mode in ("RGB", "L"):
        image = picture(*size, mode)
        wanted = np.asarray(theirs(image)).reshape(224, 224, -1).transpose(2, 0, 1).astype(int)
        difference = np.abs(view(image, 0, 0).astype(int) - wanted)
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01
    both = [CentreView(224, each)(picture(*size), 0, 0) for each in ("bilinear", "bicubic")]
    assert not np.array_equal(*both)


@pytest.mark.parametrize(("size", "resized"), [(160, 183), (96, 110), (64, 73)])
def test_other_sizes_keep_the_same_share(size, resized):
    image = picture(500, 375)
    wanted = np.asarray(Compose([Resize(resized), CenterCrop(size)])(image)).transpose(2, 0, 1)
    assert np.abs(CentreView.of(config(size), FOLDER)(image, 0, 0).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize(
    ("size", "dataset", "side", "whole"),
    [
        (32, Photos, 32, True),
        (48, Photos, 32, True),
        (16, Photos, 32, False),  # twice as large
        (32, Cifar10, 32, True),
        (224, Cifar10, 32, True),
        (32, FOLDER, 32, True),  # CIFAR-100, as a folder
        (32, FOLDER, 37, False),
        (40, FOLDER, 40, False),
        (224, FOLDER, 32, False),
    ],
)
def test_small_images_stay_whole(size, dataset, side, whole):
    image = picture(side, side)
    found = CentreView.of(config(size), dataset)(image, 0, 0).transpose(1, 2, 0)
    kept = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    assert np.array_equal(found, kept) == whole


@pytest.mark.parametrize(
    ("method", "recipe", "interpolation"),
    [
        ("dino", "paper", "bicubic"),
        ("dino", "vit_base_8", "bicubic"),
        ("dino", "resnet50", "bicubic"),
        ("swav", "paper", "bilinear"),
        ("deepercluster", "paper", "bilinear"),
        ("rotnet", "paper", "bilinear"),
        ("dino", "demo", "bilinear"),  # as its crops
    ],
)
def test_networks_are_judged_with_the_filter_of_their_released_evaluation(method, recipe, interpolation):
    assert interpolation_of(registry.method(method).recipe(recipe).method) == interpolation


@pytest.mark.parametrize(
    ("backbone", "given", "interpolation"),
    [
        ("vit_small_16", [], "bicubic"),
        ("swin_tiny", [], "bicubic"),
        ("resnet50", [], "bilinear"),
        ("resnet50", ["interpolation=bicubic"], "bicubic"),  # DINO's
        ("vit_small_16", ["interpolation=bilinear"], "bilinear"),
    ],
)
def test_published_weights_are_judged_so_too(tmp_path, backbone, given, interpolation):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"0")
    words = [f"weights={file}", f"backbone={backbone}", "data=photos", "protocol=knn", "cluster=local", *given]
    spec = weights.want([*words, f"runs={tmp_path}"])
    assert interpolation_of(spec.method) == interpolation
