"""RankBatchNorm on several ranks is BatchNorm on the whole batch: forward, gradients and running statistics.

Run as a script, this file is the ranks.
"""

import copy
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from launcher.runtime import dist
from methods.batchnorm import RankBatchNorm, synchronise

RANKS, BATCH, STEPS = 4, 24, 3
CASES = {2: 2, 4: 4, "2 of 4": 2}  # world -> ranks that share statistics


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


def serve(rank, folder):
    results = {}
    for world_name, share in CASES.items():
        size = int(str(world_name).split()[-1])
        if rank >= size:
            continue
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(size))
        world = dist.init(f"file://{folder}/store-{share}-{size}")
        synchronised = synchronise(network(), world, share)
        kinds = [type(synchronised[i]) for i in (1, 3)]
        assert kinds == [RankBatchNorm, RankBatchNorm]
        part = BATCH // share
        images = [batch(step)[rank % share * part : (rank % share + 1) * part].clone() for step in range(STEPS)]
        results[world_name] = trained(synchronised, images)
        world.barrier()
        dist.shutdown()
    torch.save(results, f"{folder}/{rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.multiprocessing.start_processes(serve, args=(sys.argv[1],), nprocs=RANKS, start_method="fork")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """[{world: what this rank got}]"""
    folder = tmp_path_factory.mktemp("ranks")
    root = str(Path(__file__).parents[3])
    env = {**os.environ, "PYTHONPATH": root, "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, __file__, str(folder)], env=env, check=True, timeout=120)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.fixture(scope="module")
def alone():
    return trained(network(), [batch(step) for step in range(STEPS)])


def of_block(ranks, world):
    """What the ranks that share statistics got, block by block."""
    members = [r[world] for r in ranks if world in r]
    return [members[i : i + CASES[world]] for i in range(0, len(members), CASES[world])]


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("world", CASES)
def test_outputs_and_input_gradients_are_those_of_the_whole_batch(ranks, alone, world):
    for block in of_block(ranks, world):
        for step in range(STEPS):
            for which in (0, 1):
                close(torch.cat([outputs[step][which] for outputs, *_ in block]), alone[0][step][which])


@pytest.mark.parametrize("world", CASES)
def test_parameter_gradients_sum_to_those_of_the_whole_batch(ranks, alone, world):
    # Of the convolution's bias it is zero but for rounding, since normalisation takes any shift away: one scale for
    # all of them.
    scale = max(gradient.abs().max() for gradient in alone[1].values())
    for block in of_block(ranks, world):
        for name, expected in alone[1].items():
            total = sum(gradients[name] for _, gradients, *_ in block)
            torch.testing.assert_close(total / scale, expected / scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("world", CASES)
def test_running_statistics_are_those_of_the_whole_batch_on_every_rank(ranks, alone, world):
    for block in of_block(ranks, world):
        for _, _, buffers, evaluated in block:
            for name, expected in alone[2].items():
                torch.testing.assert_close(buffers[name], expected, rtol=1e-5, atol=1e-5)
            part = torch.cat([e for *_, e in block])
            close(part, alone[3])
            assert evaluated.shape[0] == BATCH // CASES[world]


def test_one_rank_is_left_as_it_is():
    before = network()
    after = synchronise(copy.deepcopy(before), dist.World(0, 1, torch.device("cpu")), 1)
    assert [type(m) for m in after.modules()] == [type(m) for m in before.modules()]


def test_a_kind_that_would_keep_its_statistics_to_itself_is_refused():
    class Fused(nn.BatchNorm2d):
        """With an activation of its own, say."""

    world = SimpleNamespace(size=2, device=torch.device("cpu"), group_of=lambda blocks: None)
    with pytest.raises(TypeError, match="Fused would keep its statistics to itself"):
        synchronise(nn.Sequential(Fused(3)), world, 2)
