"""What goes into a network: raw and normalised images, grey and colour, come to the same."""

import pytest
import torch

from methods.backbones.inputs import ColourInput, SobelInput
from methods.backbones.spec import GREY_MEAN, GREY_STD, RGB_MEAN, RGB_STD


def raw(channels):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, channels, 9, 7), dtype=torch.uint8, generator=generator)


def normalised(images):
    """As images leave the augmentation on the device."""
    mean, std = (RGB_MEAN, RGB_STD) if images.shape[1] == 3 else ([GREY_MEAN], [GREY_STD])
    return (images.float() / 255 - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


@pytest.mark.parametrize("kind", [SobelInput, ColourInput])
@pytest.mark.parametrize("channels", [1, 3])
def test_raw_and_normalised_images_are_the_same(kind, channels):
    filter = kind()
    torch.testing.assert_close(filter(raw(channels)), filter(normalised(raw(channels))), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [SobelInput, ColourInput])
def test_one_channel_stands_for_three_equal_ones(kind):
    filter, grey = kind(), raw(1)
    torch.testing.assert_close(filter(grey), filter(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_colour_is_normalised_channel_by_channel_and_passes_once_it_is():
    images = raw(3)
    torch.testing.assert_close(ColourInput()(images), normalised(images))
    ready = normalised(images)
    assert ColourInput()(ready) is ready


def test_a_filter_has_nothing_to_train_or_to_save():
    assert not list(ColourInput().parameters()) and not ColourInput().state_dict()


def test_grey_is_the_mean_of_the_colours():
    assert sum(RGB_MEAN) / 3 == pytest.approx(GREY_MEAN) and sum(RGB_STD) / 3 == pytest.approx(GREY_STD)
