"""What a plan knows of the backbones without torch, against the modules themselves (on the meta device)."""

import pytest
import torch
from torch import nn

from methods import backbones
from methods.backbones.spec import BACKBONES


def build(name):
    with torch.device("meta"):
        return backbones.build(name, dropout=0.5)


def counted(backbone, image_size):
    """(multiply-adds, outputs of convolutions, features) of one image."""
    macs = convolved = 0

    def count(module, _, output):
        nonlocal macs, convolved
        each = module.weight[0].numel()  # inputs of one output
        macs += each * output.numel()
        convolved += output.numel() * isinstance(module, nn.Conv2d)

    for module in backbone.trunk.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    features = backbone(torch.empty(1, 3, image_size, image_size, dtype=torch.uint8, device="meta"))
    return macs, convolved, features.shape[1]


@pytest.mark.parametrize("name", BACKBONES)
def test_the_constants_are_those_of_the_module(name):
    size, backbone = BACKBONES[name], build(name)
    macs, convolved, features = counted(backbone, size.image_size)
    assert size.parameters == sum(p.numel() for p in backbone.parameters())
    assert size.feature_dim == features == backbone.feature_dim
    assert size.macs == pytest.approx(macs, rel=0.03)
    assert size.activations == pytest.approx(2 * convolved, rel=0.03)  # before and after normalisation


@pytest.mark.parametrize("name", BACKBONES)
def test_cost_grows_with_the_area_of_the_image(name):
    size = BACKBONES[name]
    assert size.at(size.image_size) == 1
    macs, _, _ = counted(build(name), 2 * size.image_size)
    assert size.macs * size.at(2 * size.image_size) == pytest.approx(macs, rel=0.2)
