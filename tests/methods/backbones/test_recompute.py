"""Blocks that are computed again for their gradient: the same training, with less in memory."""

import pytest
import torch

from methods import backbones
from methods.backbones.recompute import recompute_blocks
from methods.backbones.spec import BACKBONES


def one_step(name, *, again):
    torch.manual_seed(0)
    network = backbones.build(name).train()
    if again:
        recompute_blocks(name, network.trunk)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    kept = []
    for size in (32, 48):  # crops of two resolutions
        images = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8, generator=generator)
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
            loss = network(images).square().mean()
        loss.backward()
    optimizer.step()
    return network.state_dict(), sum(kept)


@pytest.mark.parametrize(
    "name", ["small_resnet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet18", "resnet50"))]
)
def test_a_step_is_the_same_and_keeps_less(name):
    (plain, much), (again, little) = one_step(name, again=False), one_step(name, again=True)
    assert list(plain) == list(again)
    for key, value in plain.items():
        if not key.endswith("num_batches_tracked"):  # the engine counts steps, not passes
            torch.testing.assert_close(again[key], value, rtol=0, atol=0, msg=key)
    assert little < 0.8 * much


def test_regnet_has_blocks_and_a_vgg_has_none():
    with torch.device("meta"):
        recompute_blocks("regnety_128gf", backbones.build("regnety_128gf").trunk)
        with pytest.raises(ValueError, match="no residual blocks"):
            recompute_blocks("small_vgg", backbones.build("small_vgg").trunk)


def test_the_plan_knows_which_can():
    for name, size in BACKBONES.items():
        assert (size.recomputed > 0) == name.startswith(("resnet", "resnext", "regnety", "small_resnet")), name
