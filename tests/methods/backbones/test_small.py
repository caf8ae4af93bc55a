"""The backbones of demo and tiny: patches of 16 to 48 pixels, and no library that takes seconds to import."""

import sys

import pytest
import torch

from methods import backbones
from methods.backbones.dropout import DropPath
from methods.backbones.spec import BACKBONES

SMALL = ("small_vgg", "small_resnet", "small_vit")
LARGE = {"torchvision", "timm"}


def images(size, channels=1):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, channels, size, size), dtype=torch.uint8, generator=generator)


def loaded_for_small_ones(world):
    """Which of the large libraries they bring along, in a process that has not imported them."""
    for module in list(sys.modules):
        if module.partition(".")[0] in {*LARGE, "methods"}:
            del sys.modules[module]
    from methods import backbones

    for name in SMALL:
        backbones.build(name)
    return LARGE & sys.modules.keys()


def test_they_need_neither_torchvision_nor_timm(ranks):
    assert ranks(1, loaded_for_small_ones) == [set()]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [16, 24, 48])
def test_they_take_small_patches_grey_or_in_colour_and_every_parameter_learns(name, size):
    torch.manual_seed(0)
    backbone = backbones.build(name).train()
    for channels in (1, 3):
        features = backbone(images(size, channels))
        assert features.shape == (4, BACKBONES[name].feature_dim) and features.std() > 0
    features.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in backbone.parameters())


def test_weights_follow_from_the_seed():
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(backbones.build("small_resnet").trunk.conv1.weight)
    assert torch.equal(*states[:2]) and not torch.equal(*states[1:])


def test_a_small_resnet_begins_as_the_identity_when_asked():
    block = backbones.build("small_resnet", zero_init_residual=True).trunk.blocks[0].eval()
    maps = torch.rand(2, 16, 8, 8)
    torch.testing.assert_close(block(maps), maps)


def test_a_small_transformer_drops_more_paths_the_deeper_it_is():
    rates = [m.p for m in backbones.build("small_vit", drop_path=0.2).modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0, 0, 0.1, 0.1, 0.2, 0.2])


def test_position_embeddings_of_another_size_keep_their_corners_order_and_class_token():
    trunk = backbones.build("small_vit").trunk
    with torch.no_grad():
        rows = torch.arange(8.0).view(8, 1, 1).expand(8, 8, 64)
        trunk.pos_embed.copy_(torch.cat([torch.full((1, 64), -5.0), rows.flatten(0, 1)])[None])
        assert trunk.positions(8, 8) is trunk.pos_embed
        for side in (3, 12):
            positions = trunk.positions(side, side)
            assert positions.shape == (1, 1 + side**2, 64) and (positions[:, 0] == -5).all()
            grid = positions[0, 1:, 0].view(side, side)
            assert (grid.diff(dim=0) > 0).all() and grid.diff(dim=1).abs().max() < 1e-5


def test_an_unknown_name_is_a_key_error():
    with pytest.raises(KeyError):
        backbones.build("resnet51")
