"""A backbone's last map averaged over cells keeps places, and over one cell is the usual feature."""

import pytest
import torch

from methods import backbones
from methods.evals.pooled import encoder


def test_resnet50_has_8192_numbers_in_two_by_two_cells():
    with torch.device("meta"):
        network = backbones.build("resnet50").eval()
    with torch.no_grad(), encoder("resnet50", network, 2) as encode:
        assert encode(torch.empty(2, 3, 224, 224, dtype=torch.uint8, device="meta")).shape == (2, 8192)


def built(name):
    torch.manual_seed(0)
    return backbones.build(name).eval(), torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)


@torch.no_grad()
def test_cells_are_the_means_of_the_quarters_of_the_last_map():
    network, images = built("small_resnet")
    maps = []
    hook = network.trunk.blocks[-1].register_forward_hook(lambda _module, _given, output: maps.append(output.clone()))
    with encoder("small_resnet", network, 2) as encode:
        found = encode(images).view(3, 128, 2, 2)
    hook.remove()
    assert maps[0].shape == (3, 128, 2, 2)  # a map of the very cells
    torch.testing.assert_close(found, maps[0].contiguous())
    with encoder("small_resnet", network, 100) as encode:
        assert torch.equal(encode(images).view(3, 128, 2, 2), found)
    with encoder("small_resnet", network, 1) as encode:
        torch.testing.assert_close(encode(images), network(images))
    assert not any(module._forward_hooks for module in network.modules())


@torch.no_grad()
@pytest.mark.parametrize(("name", "width"), [("small_vgg", 128 * 4), ("small_vit", 64), ("swin_tiny", 768)])
def test_linear_layers_behind_the_map_and_transformers_are_known(name, width):
    network, images = built(name)
    images = images if name.startswith("small") else torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    with encoder(name, network, 2) as encode:
        found = encode(images)
    assert found.shape == (3, width) and found.dtype == torch.float32
    if width != 128 * 4:
        assert torch.equal(found, network(images))
