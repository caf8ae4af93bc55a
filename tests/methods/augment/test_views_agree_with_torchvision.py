"""Acceptance of the views: the distributions, and the pixels, of torchvision's reference operators."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest, chisquare, ks_2samp
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference

from methods.augment import draws, operators
from methods.augment.crops import RATIO
from methods.augment.resize import decoded, resized
from methods.augment.spec import AUGMENTATIONS, NORMALISATIONS, MultiCropConfig
from methods.augment.stage import Photometrics
from methods.augment.views import MultiCropView
from methods.data import photos
from methods.data.loader import Crops

SAMPLES = 13_000  # x 2 views of each kind; 8 of 10 are jittered: 10^4 draws of each factor a view
SUSPICIOUS = 1e-3  # p-value; seeds are fixed, so that this is no matter of luck
CLOSE = 2 / 255
WIDTH, HEIGHT = 500, 375
CONFIGS = {
    "simclr": MultiCropConfig(backbone="vgg16_bn", augment="simclr", local_crops=2),
    "byol": MultiCropConfig(
        backbone="vgg16_bn", augment="byol", crop_scale=[0.3, 1.0], local_scale=[0.05, 0.3], local_crops=2
    ),
}


@pytest.fixture(scope="module", params=[pytest.param("simclr", marks=pytest.mark.slow), "byol"])
def drawn(request):
    """(config, boxes int [2 samples, left top width height] of both kinds, rows float32 [samples, 4, P])."""
    config, blank = CONFIGS[request.param], Image.new("RGB", (WIDTH, HEIGHT))
    view = MultiCropView.of(config, seed=3)
    made = [view.draws(blank, sample, epoch=1) for sample in range(SAMPLES)]
    boxes = [np.array([row[kind] for row, _ in made]).reshape(-1, 4) for kind in (0, 1)]
    return config, boxes, np.stack([rows for _, rows in made])


def recipes(config):
    """(recipe, view) of the four views."""
    augmentation = AUGMENTATIONS[config.augment]
    whole = [augmentation.views[view % len(augmentation.views)] for view in (0, 1)]
    return [*zip(whole, (0, 1), strict=True), (augmentation.local, 2), (augmentation.local, 3)]


def same(ours, theirs):
    return ks_2samp(ours, theirs).pvalue > SUSPICIOUS


def test_crops_have_the_areas_ratios_and_places_of_random_resized_crop(drawn):
    config, ours, _ = drawn
    torch.manual_seed(0)
    blank = torch.empty(3, HEIGHT, WIDTH)
    for boxes, scale in zip(ours, (config.crop_scale, config.local_scale), strict=True):
        crop = transforms.RandomResizedCrop
        theirs = np.array([crop.get_params(blank, scale, list(RATIO)) for _ in range(len(boxes))])[:, [1, 0, 3, 2]]
        assert same(boxes[:, 2] * boxes[:, 3], theirs[:, 2] * theirs[:, 3]), "area"
        assert same(boxes[:, 2] / boxes[:, 3], theirs[:, 2] / theirs[:, 3]), "ratio"
        assert same(boxes[:, 0], theirs[:, 0]) and same(boxes[:, 1], theirs[:, 1]), "place"


def test_jitters_have_the_factors_and_orders_of_color_jitter(drawn):
    config, _, rows = drawn
    torch.manual_seed(1)
    for recipe, view in recipes(config):
        mine = rows[:, view]
        mine = mine[(mine[:, draws.JITTERS] != draws.UNCHANGED[list(draws.JITTERS)]).any(1)]
        jitter = transforms.ColorJitter(recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue)
        limits = jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue
        theirs = [transforms.ColorJitter.get_params(*limits) for _ in range(SAMPLES)]
        for number, column in enumerate(draws.JITTERS):
            assert same(mine[:, column], np.array([each[1 + number] for each in theirs])), (view, column)
        for orders in (mine[:, draws.ORDER].astype(int), np.array([_place(each[0]) for each in theirs])):
            counts = np.bincount(orders, minlength=len(draws.ORDERS))
            assert len(counts) == 24 and chisquare(counts).pvalue > SUSPICIOUS


def _place(order):
    return draws.ORDERS.index(tuple(draws.JITTERS[i] for i in order.tolist()))


def test_blurs_have_the_sigmas_of_gaussian_blur(drawn):
    config, _, rows = drawn
    torch.manual_seed(2)
    theirs = np.array([transforms.GaussianBlur.get_params(0.1, 2.0) for _ in range(SAMPLES)])
    for _, view in recipes(config):
        sigma = rows[:, view, draws.SIGMA]
        assert same(sigma[sigma > 0], theirs)


def test_everything_happens_as_often_as_the_papers_say(drawn):
    config, _, rows = drawn
    for recipe, view in recipes(config):
        mine = rows[:, view]
        happened = {
            "flip": mine[:, draws.FLIP] > 0,
            "jitter": (mine[:, draws.JITTERS] != draws.UNCHANGED[list(draws.JITTERS)]).any(1),
            "grey": mine[:, draws.GREY] > 0,
            "blur": mine[:, draws.SIGMA] > 0,
            "solarise": mine[:, draws.SOLARISE] > 0,
        }
        for name, times in happened.items():
            share = getattr(recipe, name)
            assert binomtest(int(times.sum()), SAMPLES, share).pvalue > SUSPICIOUS, (view, name, times.mean(), share)


def test_what_is_drawn_for_one_thing_says_nothing_of_another(drawn):
    _, boxes, rows = drawn
    left = np.stack(boxes).reshape(2, SAMPLES, 2, 4).transpose(1, 0, 2, 3).reshape(SAMPLES, 4, 4)[:, :, 0]
    for view in range(4):
        mine = np.concatenate([rows[:, view], left[:, [view, view - 1]], rows[:, view - 1]], 1)
        correlation = np.corrcoef(mine[:, mine.std(0) > 0].T)
        assert np.abs(correlation - np.eye(len(correlation))).max() < 0.07  # five times 1 / sqrt(5000)


@pytest.fixture(scope="module")
def pictures():
    """uint8 [12, 3, 64, 64]: coloured, with black, white and grey pixels among them."""
    names = ("astronaut", "coffee", "flower", "hubble_deep_field")
    cuts = [photos.load(name).convert("RGB").crop((x, x, x + 64, x + 64)) for name in names for x in (60, 130, 200)]
    made = np.stack([np.asarray(cut) for cut in cuts]).transpose(0, 3, 1, 2).copy()
    made[:, :, :2, :9] = np.array([0, 1, 60, 127, 128, 129, 200, 254, 255], np.uint8)
    return torch.from_numpy(made)


FACTORS = {"brightness": (0.2, 1.8), "contrast": (0.2, 1.8), "saturation": (0.2, 1.8), "hue": (-0.5, 0.5)}


@pytest.mark.parametrize("name", FACTORS)
def test_each_jitter_changes_pixels_as_torchvisions(pictures, name):
    images, factors = pictures / 255, torch.linspace(*FACTORS[name], len(pictures))
    none, one = torch.zeros_like(factors), torch.ones_like(factors)
    made = {
        "brightness": lambda: operators.blend_(images.clone(), factors, none, none),
        "contrast": lambda: operators.blend_(images.clone(), factors, none, one - factors),
        "saturation": lambda: operators.blend_(images.clone(), factors, one - factors, none),
        "hue": lambda: operators.shift_hue(images, factors),
    }[name]()
    adjust = getattr(reference, f"adjust_{name}")
    for image, factor, ours in zip(images, factors.tolist(), made, strict=True):
        torch.testing.assert_close(ours, adjust(image, factor), rtol=0, atol=1e-4)


def test_blur_grey_and_solarise_change_pixels_as_torchvisions(pictures):
    images, sigma = pictures / 255, torch.linspace(0.1, 2.0, len(pictures))
    blurred = operators.blur(images, sigma, radius=8)
    for image, one, ours in zip(images, sigma.tolist(), blurred, strict=True):
        theirs = reference.gaussian_blur(image, [23, 23], [one, one])  # BYOL's kernel; ours ends at 4 sigma
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.1 / 255)
    torch.testing.assert_close(operators.grey(images), reference.rgb_to_grayscale(images), rtol=0, atol=1e-5)
    torch.testing.assert_close(operators.solarise(images), reference.solarize(images, 0.5), rtol=0, atol=0)


@pytest.mark.parametrize("augment", CONFIGS)
def test_the_stage_makes_of_a_view_what_torchvision_makes_in_the_same_order(pictures, augment):
    config = CONFIGS[augment]
    rng, recipe = np.random.default_rng(0), AUGMENTATIONS[augment]
    views = [recipe.views[-1], *[recipe.local] * 5]
    rows = np.stack([[draws.draw(view, rng) for view in views] for _ in pictures])
    crops = Crops((pictures[:, None].expand(-1, len(views), -1, -1, -1),), torch.from_numpy(rows))
    (made,) = Photometrics(config)(crops)
    made = made.unflatten(0, (len(views), len(pictures)))
    worst = 0.0
    for image, of_image, number in zip(pictures, rows, range(len(pictures)), strict=True):
        for row, view in zip(of_image, range(len(views)), strict=True):
            ours = made[view, number] * torch.tensor(NORMALISATIONS["imagenet"][1]).view(3, 1, 1)
            ours += torch.tensor(NORMALISATIONS["imagenet"][0]).view(3, 1, 1)
            worst = max(worst, float((ours - by_torchvision(image / 255, row)).abs().max()))
    assert 0 < worst <= CLOSE


def by_torchvision(image, row):
    row = row.tolist()
    if row[draws.FLIP]:
        image = reference.hflip(image)
    adjust = {
        draws.BRIGHTNESS: reference.adjust_brightness, draws.CONTRAST: reference.adjust_contrast,
        draws.SATURATION: reference.adjust_saturation, draws.HUE: reference.adjust_hue,
    }  # fmt: skip
    for column in draws.ORDERS[int(row[draws.ORDER])]:
        image = adjust[column](image, row[column])
    if row[draws.GREY]:
        image = reference.rgb_to_grayscale(image, num_output_channels=3)
    if row[draws.SIGMA]:
        image = reference.gaussian_blur(image, [23, 23], [row[draws.SIGMA]] * 2)
    return reference.solarize(image, 0.5) if row[draws.SOLARISE] else image


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("kind", ["RGB", "L"])
def test_crops_are_resized_as_torchvision_resizes_pil_images(mode, kind):
    image = photos.load("coffee").convert(kind)
    boxes = [(0, 0, 500, 375), (31, 17, 200, 222), (300, 200, 90, 77), (0, 0, 64, 64), (5, 6, 300, 30)]
    made = resized(decoded(image), boxes, 64, mode)
    assert made.shape == (5, 3 if kind == "RGB" else 1, 64, 64) and made.dtype == np.uint8
    for (left, top, width, height), ours in zip(boxes, made, strict=True):
        theirs = reference.resized_crop(image, top, left, height, width, [64, 64], InterpolationMode(mode))
        theirs = np.atleast_3d(np.asarray(theirs)).transpose(2, 0, 1)
        assert np.abs(ours.astype(int) - theirs).max() <= 1
