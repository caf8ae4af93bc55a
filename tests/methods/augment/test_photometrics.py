"""The photometric stage by itself: no torchvision, which takes seconds to import."""

import numpy as np
import pytest
import torch

from methods.augment import draws, operators
from methods.augment.spec import AUGMENTATIONS, MultiCropConfig
from methods.augment.stage import Photometrics
from methods.data.loader import Crops

CONFIG = MultiCropConfig(backbone="small_vgg")
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def pixels(count=6, views=2, size=24, channels=3):
    """uint8 [count, views, channels, size, size] that lie channels last, as a worker leaves them."""
    made = np.random.default_rng(0).integers(0, 256, (count, views, size, size, channels), np.uint8)
    return torch.from_numpy(made).permute(0, 1, 4, 2, 3)


def rows(count, views, recipe="simclr", seed=0):
    """float32 [count, views, P]."""
    rng, views_of = np.random.default_rng(seed), AUGMENTATIONS[recipe].views
    made = [[draws.draw(views_of[view % len(views_of)], rng) for view in range(views)] for _ in range(count)]
    return torch.from_numpy(np.array(made))


def unchanged(count, views, **columns):
    made = np.tile(draws.UNCHANGED, (count, views, 1))
    for name, value in columns.items():
        made[..., getattr(draws, name.upper())] = value
    return torch.from_numpy(made)


def test_what_draws_nothing_is_only_normalised_and_lies_view_after_view():
    whole, local = pixels(5, 2), pixels(5, 3, size=16)
    made = Photometrics(CONFIG)(Crops((whole, local), unchanged(5, 5)))
    assert [tuple(each.shape) for each in made] == [(10, 3, 24, 24), (15, 3, 16, 16)]
    for given, each in zip((whole, local), made, strict=True):
        assert each.dtype == torch.float32 and each.is_contiguous()
        for view in range(given.shape[1]):
            expected = (given[:, view] / 255 - MEAN) / STD
            torch.testing.assert_close(each[5 * view : 5 * view + 5], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [24, 97])
@pytest.mark.parametrize("recipe", AUGMENTATIONS)
def test_an_image_depends_neither_on_the_others_of_its_batch_nor_on_threads(threads, recipe, size):
    stage, images, drawn = Photometrics(CONFIG), pixels(64, 3, size), rows(64, 3, recipe)
    (together,) = stage(Crops((images,), drawn))
    together = together.unflatten(0, (3, 64))
    for count, part in ((1, slice(0, 1)), (1, slice(1, 40)), (2, slice(40, 41)), (2, slice(41, 64))):
        threads(count)
        (alone,) = stage(Crops((images[part],), drawn[part]))
        assert torch.equal(alone.unflatten(0, (3, -1)), together[:, part])


def test_each_view_gets_its_own_draws():
    given = pixels(4, 2)
    drawn = unchanged(4, 2)
    drawn[2, 1, draws.FLIP] = drawn[3, 0, draws.SOLARISE] = 1
    (made,) = Photometrics(CONFIG)(Crops((given,), drawn))
    expected = given.transpose(0, 1) / 255
    expected[1, 2] = expected[1, 2].flip(-1)
    expected[0, 3] = torch.where(expected[0, 3] < 0.5, expected[0, 3], 1 - expected[0, 3])
    torch.testing.assert_close(made, ((expected - MEAN) / STD).flatten(0, 1), rtol=1e-5, atol=1e-5)


def test_the_order_of_a_jitter_matters_and_is_kept():
    image = torch.full((1, 1, 3, 4, 4), 153, dtype=torch.uint8)  # 0.6
    image[..., :2] = 51  # 0.2
    made = {}
    for number, order in enumerate(draws.ORDERS):
        drawn = unchanged(1, 1, order=number, brightness=1.5, contrast=0.5)
        (normalised,) = Photometrics(CONFIG)(Crops((image,), drawn))
        first = "brightness" if order.index(draws.BRIGHTNESS) < order.index(draws.CONTRAST) else "contrast"
        made.setdefault(first, []).append((normalised[0] * STD + MEAN)[0, 0])
    mean = 0.4 * (0.2989 + 0.587 + 0.114)
    bright_first = torch.tensor([0.15 + 0.75 * mean, 0.15 + 0.75 * mean, 0.45 + 0.75 * mean, 0.45 + 0.75 * mean])
    for first, values in made.items():
        assert len(values) == 12 and all(torch.allclose(value, values[0], atol=1e-6) for value in values), first
    assert torch.allclose(made["brightness"][0], bright_first, atol=1e-5)
    assert torch.allclose(made["contrast"][0], bright_first, atol=1e-5), "both are affine while nothing is cut off"
    cut = unchanged(1, 1, order=0, brightness=1.8, contrast=0.5), unchanged(1, 1, order=6, brightness=1.8, contrast=0.5)
    (brightness_first,), (contrast_first,) = (Photometrics(CONFIG)(Crops((image,), drawn)) for drawn in cut)
    assert not torch.allclose(brightness_first, contrast_first, atol=1e-3), "0.6 x 1.8 is cut off before the mean"


def test_grey_images_get_brightness_contrast_blur_and_solarisation_and_are_spared_the_rest():
    given, stage = pixels(3, 2, channels=1), Photometrics(CONFIG)
    (plain,) = stage(Crops((given,), unchanged(3, 2)))
    assert plain.shape == (6, 1, 24, 24)
    torch.testing.assert_close(plain, (given.transpose(0, 1).flatten(0, 1) / 255 - 0.449) / 0.226, rtol=1e-5, atol=1e-5)
    (coloured,) = stage(Crops((given,), unchanged(3, 2, saturation=1.7, hue=0.2, grey=1)))
    torch.testing.assert_close(coloured, plain, rtol=0, atol=1e-5)
    for change in ({"brightness": 0.5}, {"contrast": 0.5}, {"sigma": 1.0}, {"solarise": 1}, {"flip": 1}):
        (changed,) = stage(Crops((given,), unchanged(3, 2, **change)))
        assert (changed - plain).abs().amax((1, 2, 3)).min() > 0.05, change
    (drawn,) = stage(Crops((given,), rows(3, 2)))
    assert torch.isfinite(drawn).all()


def test_a_blur_is_cut_where_the_image_is_smaller_than_its_kernel():
    given = pixels(2, 1, size=5)
    (made,) = Photometrics(CONFIG)(Crops((given,), unchanged(2, 1, sigma=2.0)))
    flat = made * STD + MEAN
    assert (flat.amax((2, 3)) - flat.amin((2, 3)) < 0.5).all() and 0.2 < flat.mean() < 0.8


def test_operators_leave_colours_between_zero_and_one_and_grey_pixels_grey():
    grey = torch.linspace(0, 1, 9).expand(4, 3, 9, 9).contiguous()
    turned = operators.shift_hue(grey, torch.tensor([-0.5, -0.1, 0.3, 0.5]))
    torch.testing.assert_close(turned, grey, rtol=0, atol=1e-6)
    images = torch.rand(8, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    factors = torch.linspace(0.0, 2.0, 8)
    for made in (
        operators.blend_(images.clone(), factors, 1 - factors, torch.zeros(8)),
        operators.blend_(images.clone(), factors, torch.zeros(8), 1 - factors),
        operators.shift_hue(images, factors / 2),
    ):
        assert made.min() >= 0 and made.max() <= 1


def test_swavs_own_deviation_is_a_choice():
    given = Crops((pixels(1, 1),), unchanged(1, 1))
    (imagenet,), (swav,) = (Photometrics(MultiCropConfig(normalise=name))(given) for name in ("imagenet", "swav"))
    torch.testing.assert_close(swav[:, 0] * 0.228, imagenet[:, 0] * 0.229, rtol=1e-5, atol=1e-5)
    assert torch.equal(swav[:, 1:], imagenet[:, 1:])


def test_the_arithmetic_of_a_trainer_does_not_reach_the_stage():
    given = Crops((pixels(4, 2),), rows(4, 2))
    (plain,) = Photometrics(CONFIG)(given)
    with torch.autocast("cpu", torch.bfloat16):
        (within,) = Photometrics(CONFIG)(given)
    assert torch.equal(plain, within)


def test_an_empty_batch_has_the_shapes_of_a_full_one():
    made = Photometrics(CONFIG)(Crops((pixels(1, 2)[:0],), unchanged(0, 2)))
    assert [tuple(each.shape) for each in made] == [(0, 3, 24, 24)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("recipe", AUGMENTATIONS)
def test_a_gpu_makes_the_same_and_never_waits_for_the_host(recipe):
    stage, crops = Photometrics(CONFIG), Crops((pixels(16, 2), pixels(16, 3, size=16)), rows(16, 5, recipe))
    expected, there = stage(crops), crops.to(torch.device("cuda"))
    stage(there)  # the first use of a kernel loads it
    torch.cuda.set_sync_debug_mode("error")
    try:
        made = stage(there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for ours, theirs in zip(made, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-4, atol=1e-4)
