"""RandAugment and random erasing are timm's, and functions of (seed, epoch, sample, view)."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform

from methods import data
from methods.augment.views import MultiCropView
from methods.data.loader import Request, batches
from methods.data.sets.photos.spec import PhotosData
from methods.supervised.spec import SupervisedConfig
from methods.supervised.views import distorted

SIZES = {"image_size": 32, "local_size": 16, "local_scale": [0.1, 0.3], "crop_scale": [0.3, 1.0]}


def view_of(seed=5, colour=True, **given):
    config = SupervisedConfig(**{**SIZES, "global_crops": 2, "local_crops": 2, **given})
    return distorted(MultiCropView.of(config, seed), config)


@pytest.fixture(scope="module")
def photograph():
    return data.build(PhotosData(colour=True, images=76), "train").image(3)


def test_with_neither_a_view_is_its_crops(photograph):
    assert isinstance(view_of(), MultiCropView)
    for plain, made in zip(view_of()(photograph, 1, 2), view_of(rand_augment=9)(photograph, 1, 2), strict=True):
        assert plain.shape == made.shape and plain.dtype == made.dtype
    assert np.array_equal(plain, made)  # what the photometric stage does is drawn as without


def test_its_operations_are_deits_as_strong_and_as_often(photograph):
    """Two of rand-m9-mstd0.5-inc1 a crop: how many crops stay as they are, and how far the others go."""
    count, view = 800, view_of(rand_augment=9, crop_scale=[1.0, 1.0], global_crops=1, local_crops=0)
    draws = np.random.default_rng(0).integers(0, 256, (count, 1, 1, 3), np.uint8)
    images = [Image.fromarray(np.asarray(photograph) // 2 + each // 2) for each in draws]
    published = rand_augment_transform(
        "rand-m9-mstd0.5-inc1", {"translate_const": 14, "img_mean": (124, 116, 104), "interpolation": Image.BILINEAR}
    )
    published.ops = [op for op in published.ops if op.name != "PosterizeIncreasing"]  # may fail: see below
    plain = view_of(crop_scale=[1.0, 1.0], global_crops=1, local_crops=0)
    random.seed(2), np.random.seed(2)
    moved = {"ours": [], "theirs": []}
    for sample, image in enumerate(images):
        crop, made = (each(image, sample, 0)[0][0].transpose(1, 2, 0).astype(int) for each in (plain, view))
        theirs = np.asarray(published(Image.fromarray(crop.astype(np.uint8)))).astype(int)
        moved["ours"].append(np.abs(made - crop).mean())
        moved["theirs"].append(np.abs(theirs - crop).mean())
    ours, theirs = (np.array(moved[name]) for name in ("ours", "theirs"))
    assert abs((ours == 0).mean() - (theirs == 0).mean()) < 5 * np.sqrt(2 * 0.25 / count)
    assert abs(ours.mean() - theirs.mean()) < 5 * np.hypot(ours.std(), theirs.std()) / np.sqrt(count)
    assert ours.std() == pytest.approx(theirs.std(), rel=0.2)


@pytest.mark.parametrize("strength", [1, 10])
def test_no_strength_of_any_operation_is_more_than_pillow_takes(photograph, strength):
    """timm's posterising keeps no bit at 10, which Pillow refuses."""
    view = view_of(rand_augment=strength, global_crops=1, local_crops=0)
    assert all(len(view(photograph, sample, 0)) == 2 for sample in range(300))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_batch_is_the_same_whatever_the_number_of_workers(workers):
    dataset = data.build(PhotosData(images=76), "train")
    requests = [Request(np.arange(first, first + 6), 1, {}) for first in range(0, 36, 6)]
    view = view_of(rand_augment=9, erasing=0.5)
    for one, other in zip(
        batches(dataset, view, requests), batches(dataset, view, requests, workers=workers), strict=True
    ):
        assert all(torch.equal(a, b) for a, b in zip(one.images.pixels, other.images.pixels, strict=True))


def test_another_seed_epoch_sample_or_view_is_another_draw():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    whole = {"crop_scale": [1.0, 1.0], "local_crops": 0, "erasing": 1.0}
    made = [view_of(seed, **whole)(image, sample, epoch)[0] for seed, sample, epoch in np.eye(3, dtype=int).tolist()]
    made += [view_of(0, **whole)(image, 0, 0)[0]]
    assert len({crop.tobytes() for crops in made for crop in crops}) == 8
    assert np.array_equal(made[-1], view_of(0, **whole)(image, 0, 0)[0])


def test_what_others_draw_is_not_moved(photograph):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    wanted = random.random(), np.random.random(), torch.rand(1)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    view_of(rand_augment=9, erasing=1.0)(photograph, 0, 0)
    assert (random.random(), np.random.random(), torch.rand(1)) == wanted


def test_a_grey_image_stays_grey():
    image = data.build(PhotosData(images=76), "train").image(0)
    made = view_of(rand_augment=9, erasing=0.5)(image, 0, 0)
    assert [each.shape for each in made[:-1]] == [(2, 1, 32, 32), (2, 1, 16, 16)]


def test_erased_is_one_rectangle_of_normal_noise_and_of_the_published_size():
    """timm's: 2 % to a third of the area, sides 0.3 to 3.3 of one another; mean 0 and variance 1 once normalised."""
    image = Image.fromarray(np.full((32, 32, 3), 77, np.uint8))
    view = view_of(erasing=0.25, crop_scale=[1.0, 1.0], global_crops=1, local_crops=0)
    erased, noise = 0, []
    for sample in range(1200):
        (crop,) = view(image, sample, 0)[0]
        rows, columns = np.nonzero((crop != 77).any(0))
        if not len(rows):
            continue
        erased += 1
        box = crop[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        height, width = box.shape[1:]
        assert (box != 77).any(0).mean() > 0.95, "it has holes"
        assert 0.015 < height * width / 32**2 < 0.36 and 0.2 < height / width < 5
        noise.append(box.reshape(3, -1))
    assert abs(erased - 300) < 5 * np.sqrt(1200 * 0.25 * 0.75)
    noise = np.concatenate(noise, 1) / 255
    mean, std = noise.mean(1), noise.std(1)
    np.testing.assert_allclose(mean, [0.485, 0.456, 0.406], atol=0.02)
    np.testing.assert_allclose(std, [0.229, 0.224, 0.225], atol=0.02)
