"""RankBatchNorm on several ranks is BatchNorm on the whole batch: forward, gradients and running statistics."""

import copy
from types import SimpleNamespace

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from launcher.runtime import dist
from methods.parts.batchnorm import RankBatchNorm, synchronise

BATCH, STEPS = 24, 3
CASES = [(2, 2), (4, 4), (4, 2)]  # ranks of the world, ranks that share statistics


def network():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5, momentum=0.3), nn.Flatten(), nn.BatchNorm1d(180))
    for layer in (made[1], made[3]):
        nn.init.uniform_(layer.weight, 0.5, 2)
        nn.init.uniform_(layer.bias, -1, 1)
    return made


def batch(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(BATCH, 2, 8, 8, generator=generator) * 3 + 10


def trained(network, images):
    """[output, gradient of the input] of each step, then all parameters' gradients and the running statistics."""
    outputs = []
    for part in images:
        part.requires_grad_()
        output = network(part)
        (output * torch.linspace(-1, 1, output.shape[1])).square().sum().backward()
        outputs.append([output.detach(), part.grad])
    gradients = {name: p.grad for name, p in network.named_parameters()}
    network.eval()
    return outputs, gradients, dict(network.named_buffers()), network(images[0].detach()).detach()


def in_a_world(world):
    """{ranks that share statistics: what this rank got}"""
    return {share: synchronised(world, share) for size, share in CASES if size == world.size}


def synchronised(world, share):
    made = synchronise(network(), world, share)
    assert [type(made[i]) for i in (1, 3)] == [RankBatchNorm, RankBatchNorm]
    mine = world.rank % share
    return trained(made, [batch(step).chunk(share)[mine].clone() for step in range(STEPS)])


@pytest.fixture(scope="module")
def worlds(ranks):
    """{world_size: [{ranks that share statistics: what this rank got}]}"""
    return ranks(sorted({size for size, _ in CASES}), in_a_world)


@pytest.fixture(scope="module")
def alone():
    return trained(network(), [batch(step) for step in range(STEPS)])


def blocks(worlds, size, share):
    """What the ranks that share statistics got, block by block."""
    members = [told[share] for told in worlds[size]]
    return [members[first : first + share] for first in range(0, size, share)]


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "share"), CASES)
def test_outputs_and_input_gradients_are_those_of_the_whole_batch(worlds, alone, size, share):
    for block in blocks(worlds, size, share):
        for step in range(STEPS):
            for which in (0, 1):
                close(torch.cat([outputs[step][which] for outputs, *_ in block]), alone[0][step][which])


@pytest.mark.parametrize(("size", "share"), CASES)
def test_parameter_gradients_sum_to_those_of_the_whole_batch(worlds, alone, size, share):
    # Of the convolution's bias it is zero but for rounding, since normalisation takes any shift away: one scale for
    # all of them.
    scale = max(gradient.abs().max() for gradient in alone[1].values())
    for block in blocks(worlds, size, share):
        for name, expected in alone[1].items():
            total = sum(gradients[name] for _, gradients, *_ in block)
            torch.testing.assert_close(total / scale, expected / scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "share"), CASES)
def test_running_statistics_are_those_of_the_whole_batch_on_every_rank(worlds, alone, size, share):
    for block in blocks(worlds, size, share):
        for _, _, buffers, evaluated in block:
            for name, expected in alone[2].items():
                torch.testing.assert_close(buffers[name], expected, rtol=1e-5, atol=1e-5)
            part = torch.cat([e for *_, e in block])
            close(part, alone[3])
            assert evaluated.shape[0] == BATCH // share


def test_one_rank_is_left_as_it_is():
    before = network()
    after = synchronise(copy.deepcopy(before), dist.World(0, 1, torch.device("cpu")), 1)
    assert [type(m) for m in after.modules()] == [type(m) for m in before.modules()]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("kind", [BatchNormAct2d, nn.BatchNorm3d])
def test_another_kind_is_refused_on_any_device(device, kind):
    """On GPUs torch makes a SyncBatchNorm of any, without the activation of timm's (pytorch-image-models#1254)."""
    world = SimpleNamespace(size=2, device=torch.device(device), group_of=lambda blocks: None)
    with pytest.raises(TypeError, match=f"{kind.__name__} is not plain batch normalisation"):
        synchronise(nn.Sequential(nn.BatchNorm1d(3), nn.Sequential(kind(3))), world, 2)


def test_normalisation_of_single_images_stays_as_it_is():
    world = SimpleNamespace(size=2, device=torch.device("cpu"), group_of=lambda blocks: None)
    found = synchronise(nn.Sequential(nn.InstanceNorm2d(3, affine=True), nn.GroupNorm(1, 3)), world, 2)
    assert [type(layer) for layer in found] == [nn.InstanceNorm2d, nn.GroupNorm]
