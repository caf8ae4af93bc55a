"""In fp16 a gradient that overflows on one rank makes all of them skip the step, and halve the scale alike."""

from types import SimpleNamespace

import torch
from torch import nn

from methods.engine.loop import _agree_on_overflow

SCALE, RATE = 64.0, 0.5


def steps(world):
    """[(weight, its scale)] after each step; one weight, whose gradient each rank has for itself."""
    inf, nan = float("inf"), float("nan")
    gradients = [1.0, 1.0, nan, 1.0] if world.rank == 0 else [1.0, inf, 1.0, 1.0]
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=RATE)
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
    job, trainer = SimpleNamespace(world=world), SimpleNamespace(optimizers=[optimizer])
    found = []
    for gradient in gradients:
        optimizer.zero_grad()
        scaler.scale((weight * torch.tensor([gradient, 1.0])).sum()).backward()
        _agree_on_overflow(job, trainer, scaler)
        scaler.step(optimizer)
        scaler.update()
        found.append((weight.tolist(), scaler.get_scale()))
    return found


def test_a_step_that_overflows_on_one_rank_is_taken_by_none(ranks):
    zeroth, first = ranks(2, steps)
    assert zeroth == [([0.5, 0.5], SCALE), ([0.5, 0.5], SCALE / 2), ([0.5, 0.5], SCALE / 4), ([0.0, 0.0], SCALE / 4)]
    assert first == zeroth
