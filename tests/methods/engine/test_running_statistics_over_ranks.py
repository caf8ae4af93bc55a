"""Running batch statistics after a step are the same on all ranks: the mean over ranks and over their passes."""

from types import SimpleNamespace

import torch
from torch import nn

from methods.engine.running_statistics import RunningStatistics

RANKS, STEPS = 2, 3


def parts(rank, step, passes):
    """What a rank's passes of a step see: means and variances of their own."""
    generator = torch.Generator().manual_seed(100 * step + rank)
    return [torch.randn(8, 3, generator=generator) * (1 + rank + n) + 5 * rank + n for n in range(passes)]


def statistics(world, passes):
    """[running mean, running variance, counter] after each step."""
    job = SimpleNamespace(world=world, layout=SimpleNamespace(batch_norm_ranks=1))
    network, after = nn.BatchNorm1d(3), []
    for step in range(STEPS):
        gathered = RunningStatistics(job, [network], passes)
        for part in parts(world.rank, step, passes):
            network(part)
            gathered.after_pass()
        gathered.settle()
        after.append([network.running_mean.clone(), network.running_var.clone(), network.num_batches_tracked.clone()])
    return after


def test_they_are_the_mean_over_ranks_and_passes(ranks):
    for passes in (1, 3):
        mean, var = torch.zeros(3), torch.ones(3)
        first, second = ranks(RANKS, statistics, passes)
        for step in range(STEPS):
            seen = [part for rank in range(RANKS) for part in parts(rank, step, passes)]
            mean = 0.9 * mean + 0.1 * torch.stack([part.mean(0) for part in seen]).mean(0)
            var = 0.9 * var + 0.1 * torch.stack([part.var(0) for part in seen]).mean(0)
            for found in (first[step], second[step]):
                torch.testing.assert_close(found[0], mean)
                torch.testing.assert_close(found[1], var)
                assert found[2] == step + 1
            assert all(torch.equal(*pair) for pair in zip(first[step], second[step], strict=True))
