import numpy as np
import pytest
from PIL import Image

from methods.augment.crops import centre_view, crop_box, train_view
from methods.augment.rng import view_rng

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def picture(mode="RGB", width=50, height=37):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.slow  # importing torchvision takes 8 s
@pytest.mark.parametrize("width, height", [(500, 375), (64, 64), (30, 200)])
def test_crop_boxes_are_distributed_as_torchvisions(width, height):
    import torch
    from scipy.stats import ks_2samp
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    blank, draws = torch.empty(3, height, width), 3000
    theirs = np.array([RandomResizedCrop.get_params(blank, SCALE, RATIO) for _ in range(draws)])  # top, left, h, w
    ours = np.array([crop_box(width, height, view_rng(0, 0, i), SCALE) for i in range(draws)])
    for name, mine, other in zip(("left", "top", "width", "height"), (0, 1, 2, 3), (1, 0, 3, 2), strict=True):
        assert ks_2samp(ours[:, mine], theirs[:, other]).pvalue > 1e-3, name
    assert ks_2samp(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]).pvalue > 1e-3, "area"


@pytest.mark.parametrize("width, height", [(1, 1), (1, 900), (900, 1), (3, 2), (50, 37)])
def test_every_crop_box_lies_inside_its_image(width, height):
    for sample in range(200):
        left, top, w, h = crop_box(width, height, view_rng(0, 0, sample), SCALE)
        assert 0 <= left < left + w <= width and 0 <= top < top + h <= height


@pytest.mark.parametrize("mode, channels", [("L", 1), ("RGB", 3)])
def test_views_are_contiguous_writable_planes(mode, channels):
    for view in (train_view(picture(mode), 24, view_rng(0, 0, 0)), centre_view(picture(mode), 24)):
        assert view.shape == (channels, 24, 24) and view.dtype == np.uint8
        assert view.flags.c_contiguous and view.flags.writeable


def test_a_train_view_is_the_resized_box_of_its_stream_mirrored_half_of_the_time():
    image, mirrored = picture(), 0
    for sample in range(200):
        left, top, w, h = crop_box(*image.size, view_rng(0, 0, sample), SCALE)
        box = image.resize((16, 16), Image.Resampling.BILINEAR, box=(left, top, left + w, top + h))
        straight = np.asarray(box).transpose(2, 0, 1)
        view = train_view(image, 16, view_rng(0, 0, sample))
        assert np.array_equal(view, straight) or np.array_equal(view, straight[:, :, ::-1])
        mirrored += not np.array_equal(view, straight)
    assert 70 < mirrored < 130


def test_the_centre_view_is_central_and_covers_seven_eighths():
    gradient = Image.fromarray(np.repeat(np.arange(256, dtype=np.uint8)[None], 128, 0))  # 128 x 256, grows to the right
    row = centre_view(gradient, 56)[0, 28].astype(float)  # resized to 64 x 128: columns 36 to 91, which were 72 to 183
    assert np.allclose(row, 72.5 + 2 * np.arange(56), atol=1)
    assert np.array_equal(centre_view(picture(), 28), centre_view(picture(), 28, 32))


def test_the_centre_view_at_full_size_returns_the_pixels():
    image = picture("L", 32, 32)
    assert np.array_equal(centre_view(image, 32, 32)[0], np.asarray(image))


def test_the_centre_view_takes_any_aspect_and_refuses_a_resize_below_its_size():
    for width, height in [(1, 700), (700, 1), (333, 77), (225, 224)]:
        assert centre_view(picture("L", width, height), 224).shape == (1, 224, 224)
    with pytest.raises(ValueError, match="resize=20: a square of 24 pixels does not fit"):
        centre_view(picture(), 24, 20)


def test_other_modes_are_refused_by_name():
    with pytest.raises(ValueError, match="mode='CMYK'"):
        train_view(picture("CMYK"), 8, view_rng(0, 0, 0))
