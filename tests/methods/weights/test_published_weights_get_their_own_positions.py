"""Positions of a vision transformer at another size than 224 pixels: published weights get what they were trained
with, which is without antialiasing; what `sslrun export` wrote, and all training, gets ours."""

import copy
import hashlib

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from methods import backbones
from methods.weights.job import network_of
from methods.weights.spec import WeightsConfig

EXPORT = {"run": "dino-paper-0", "digest": "0", "backbone": "vit_tiny_16", "method": "dino"}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = backbones.build("vit_tiny_16").eval()
    with torch.no_grad():
        made.trunk.pos_embed.copy_(torch.randn(made.trunk.pos_embed.shape))  # rough: filters differ most
    return made


def of_size(network, size, *, antialias):
    """timm's network of images of `size` pixels, with the positions that torch makes of those at 224."""
    trunk = network.trunk
    grid = trunk.pos_embed[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)
    grid = interpolate(grid, (size // 16, size // 16), mode="bicubic", align_corners=False, antialias=antialias)
    positions = torch.cat([trunk.pos_embed[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
    made = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=size)
    made.load_state_dict({**trunk.state_dict(), "pos_embed": positions})
    return made.eval()


def judged(tmp_path, network, metadata=None):
    """The network that an evaluation of the file makes."""
    path = tmp_path / "weights.safetensors"
    save_file(network.trunk.state_dict(), path, metadata=metadata)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return network_of(WeightsConfig(weights=str(path), backbone="vit_tiny_16", content=digest))[0].eval()


@pytest.mark.parametrize("size", [96, 256])
@pytest.mark.parametrize(("metadata", "antialias"), [(None, False), ({"format": "pt"}, False), (EXPORT, True)])
@torch.no_grad()
def test_positions_are_interpolated_as_where_the_weights_come_from(tmp_path, network, size, metadata, antialias):
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1)).double()
    found = judged(tmp_path, network, metadata).double()(images)
    right, wrong = (of_size(network, size, antialias=each).double()(images) for each in (antialias, not antialias))
    torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(right, wrong, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_training_keeps_ours(network):
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(network(images), of_size(network, 96, antialias=True)(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("grid", [(7, 28), (61, 1), (1, 115), (122, 2)])
@torch.no_grad()
def test_each_patch_of_an_image_that_is_not_square_has_its_position(network, grid, antialias):
    """(7, 28) has as many patches as 224 pixels (huggingface/pytorch-image-models#2737); where code computed a scale,
    61, 115 and 122 lost a row (facebookresearch/dinov2#378)."""
    made = copy.deepcopy(network)
    if not antialias:
        backbones.as_published(made, "vit_tiny_16")
    found = made.trunk._pos_embed(torch.zeros(1, *grid, 192))[:, 1:].unflatten(1, grid)
    own = network.trunk.pos_embed[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)
    right = interpolate(own, grid, mode="bicubic", align_corners=False, antialias=antialias).permute(0, 2, 3, 1)
    torch.testing.assert_close(found, right)


def test_a_network_without_positions_is_left_as_it_is():
    made = backbones.build("small_resnet")
    before = {**vars(made.trunk)}
    backbones.as_published(made, "small_resnet")
    assert vars(made.trunk) == before
