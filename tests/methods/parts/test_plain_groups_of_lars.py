"""A group of parameters that LARS leaves plain is torch's SGD, weight decay included."""

import copy

import pytest
import torch
from torch import nn

from methods.parts.optim import LARS


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_a_plain_group_is_torchs_sgd(decay):
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    other = copy.deepcopy(model)
    group = {"params": list(model.parameters()), "weight_decay": decay, "adapts": False}
    ours = LARS([group], lr=0.1, momentum=0.9)
    theirs = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9, weight_decay=decay)
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        for mine, its in zip(model.parameters(), other.parameters(), strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            its.grad = mine.grad.clone()
        ours.step()
        theirs.step()
    for mine, its in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, its)
