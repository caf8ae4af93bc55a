"""Running batch statistics of a step are the mean over its forward passes, whatever their order."""

from types import SimpleNamespace

import torch
from torch import nn

from launcher.runtime.dist import World
from methods.engine.running_statistics import RunningStatistics

JOB = SimpleNamespace(world=World(0, 1, torch.device("cpu")), layout=SimpleNamespace(batch_norm_ranks=1))


def after_a_step(parts):
    network = nn.BatchNorm1d(3)
    statistics = RunningStatistics(JOB, [network], len(parts))
    for part in parts:
        network(part)
        statistics.after_pass()
    statistics.settle()
    return network.running_mean, network.running_var, network.num_batches_tracked


def test_the_order_of_the_passes_does_not_matter():
    parts = [torch.randn(8, 3, generator=torch.Generator().manual_seed(i)) + i for i in range(4)]
    forth, back = after_a_step(parts), after_a_step(parts[::-1])
    for one, other in zip(forth, back, strict=True):
        torch.testing.assert_close(one, other)
    assert forth[2] == 1
    torch.testing.assert_close(forth[0], 0.1 * torch.stack(parts).mean((0, 1)))


def test_one_pass_is_left_to_batch_normalisation():
    part = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    network = nn.BatchNorm1d(3)
    network(part)
    for one, other in zip(
        after_a_step([part]), (network.running_mean, network.running_var, torch.tensor(1)), strict=True
    ):
        assert torch.equal(one, other)
