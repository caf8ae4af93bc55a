"""What the networks see: derivatives of the grey image, each turned by its group's angle."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from methods.augment.views import CentreView, TrainView
from methods.backbones.inputs import SobelInput
from methods.backbones.spec import GREY_STD
from methods.deepercluster.trainer import DeeperCluster

WEIGHT = 1 + 2 + 1  # of one side of a Sobel kernel


def ramp(step, channels=1):
    """uint8 [1, C, 8, 8], growing by `step` from column to column."""
    return (torch.arange(8, dtype=torch.uint8) * step).expand(1, channels, 8, 8).contiguous()


def inside(x):
    return x[..., 1:-1, 1:-1]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("step", [0, 3, 30])
def test_sobel_of_a_ramp_is_its_slope(step, channels):
    horizontal, vertical = inside(SobelInput()(ramp(step, channels)))[0]
    slope = -2 * WEIGHT * step / 255 / GREY_STD  # the kernel is left minus right, two columns apart
    torch.testing.assert_close(horizontal, torch.full((6, 6), slope), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(vertical, torch.zeros(6, 6), rtol=0, atol=1e-5)


def test_sobel_of_a_turned_ramp_is_the_other_derivative():
    down = ramp(9).transpose(2, 3).contiguous()
    filtered = SobelInput()(down)
    torch.testing.assert_close(inside(filtered[:, [1, 0]]), inside(SobelInput()(ramp(9))).transpose(2, 3))


def test_sobel_does_not_see_a_constant_shift_or_the_hue():
    image = ramp(9, channels=3)
    recoloured = image + torch.tensor([30, 0, 0], dtype=torch.uint8).view(3, 1, 1)
    torch.testing.assert_close(inside(SobelInput()(image)), inside(SobelInput()(recoloured)), rtol=0, atol=1e-4)


def test_sobel_has_nothing_to_train_or_to_save():
    assert not list(SobelInput().parameters()) and not SobelInput().state_dict()


def test_each_image_is_turned_by_its_groups_angle():
    images = torch.randint(0, 256, (40, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    hosted, sizes = [3, 4, 5, 6, 9], [7, 0, 13, 12, 8]  # s = 4 c + r of m = 3 super-clusters
    super_class = torch.tensor(hosted).repeat_interleave(torch.tensor(sizes))
    turned = DeeperCluster._turned(SimpleNamespace(hosted=hosted), images, sizes)
    for image, before, s in zip(turned.numpy(), images.numpy(), super_class.tolist(), strict=True):
        np.testing.assert_array_equal(image, np.rot90(before, s % 4, axes=(1, 2)))


def picture(side=40):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side), np.uint8))


def test_a_training_view_is_a_function_of_seed_epoch_and_sample():
    view = lambda seed, sample, epoch: TrainView(seed, 16, (0.3, 1.0))(picture(), sample, epoch).tobytes()  # noqa: E731
    assert view(0, 5, 2) == view(0, 5, 2)
    assert len({view(0, 5, 2), view(1, 5, 2), view(0, 6, 2), view(0, 5, 3)}) == 4


def test_the_centre_view_leaves_a_patch_of_its_size_alone():
    np.testing.assert_array_equal(CentreView(40, whole=True)(picture(), 0, 0)[0], np.asarray(picture()))


def test_the_centre_view_of_a_large_image_is_its_middle():
    white_border = np.full((320, 320), 255, np.uint8)
    white_border[18:302, 18:302] = 0  # 224 of 256 resized pixels are the middle 280
    assert CentreView(224)(Image.fromarray(white_border), 0, 0).max() == 0
