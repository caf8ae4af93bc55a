"""LARS against its formula in double precision, groups without decay, clipping; and that a stop changes nothing."""

import copy
import json

import pytest
import torch
from torch import nn

from launcher.runtime.stateful import OptimizerState
from methods.parts.optim import LARS, clip_each, drop_gradients, parameter_groups, set_weight_decay

MOMENTUM, DECAY, TRUST = 0.9, 0.01, 0.001


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 4))


def gradients(model, seed):
    """Some for every parameter, as a function of `seed`."""
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator)


def by_formula(model, lrs, *, adapts=lambda p: True, decays=lambda p: True, inside=False):
    """The parameters after a step a rate, one parameter at a time in float64."""
    weights = [p.detach().double() for p in model.parameters()]
    moving = [torch.zeros_like(w) for w in weights]
    for step, lr in enumerate(lrs):
        gradients(model, step)
        for w, v, p in zip(weights, moving, model.parameters(), strict=True):
            g, decay = p.grad.double(), DECAY if decays(p) else 0.0
            norms = w.norm().item(), g.norm().item()
            if not adapts(p):
                g = g + decay * w
            elif min(norms) > 0:
                g = TRUST * norms[0] / (norms[1] + decay * norms[0] + 1e-8) * (g + decay * w)
            v.mul_(MOMENTUM).add_(lr * g if inside else g)
            w.sub_(v if inside else lr * v)
    return weights


def stepped(model, optimizer, lrs, first=0):
    for step, lr in enumerate(lrs, first):
        for group in optimizer.param_groups:
            group["lr"] = lr
        gradients(model, step)
        optimizer.step()
    return [p.detach() for p in model.parameters()]


def close(found, expected):
    for mine, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.double(), wanted, rtol=1e-5, atol=1e-6)


RATES = [0.3, 4.8, 2.0, 0.5]


@pytest.mark.parametrize("inside", [False, True])
def test_lars_is_its_formula(inside):
    model = network()
    expected = by_formula(copy.deepcopy(model), RATES, inside=inside)
    optimizer = LARS(model.parameters(), lr=0.0, weight_decay=DECAY, lr_in_momentum=inside)
    close(stepped(model, optimizer, RATES), expected)


def test_lars_leaves_what_is_excluded_to_plain_sgd():
    model, other = network(), network()
    big = lambda p: p.ndim > 1  # noqa: E731
    expected = by_formula(copy.deepcopy(model), RATES, adapts=big, decays=big)
    close(stepped(model, LARS(parameter_groups([model], weight_decay=DECAY), lr=0.0), RATES), expected)
    sgd = torch.optim.SGD(other.parameters(), lr=0.0, momentum=MOMENTUM)
    for mine, theirs in zip(model.parameters(), stepped(other, sgd, RATES), strict=True):
        assert (mine.ndim > 1) or torch.allclose(mine, theirs)


@pytest.mark.parametrize("which", ["weight", "gradient"])
def test_where_a_norm_is_zero_the_gradient_stays_as_it_is(which):
    p = nn.Parameter(torch.zeros(3) if which == "weight" else torch.ones(3))
    p.grad = torch.zeros(3) if which == "gradient" else torch.tensor([1.0, -2.0, 0.5])
    expected = p.detach() - 0.5 * p.grad  # neither scaled nor decayed
    LARS([p], lr=0.5, weight_decay=DECAY).step()
    assert torch.equal(p.detach(), expected) and torch.isfinite(p).all()


def test_lars_passes_over_what_has_no_gradient():
    model = network()
    before = copy.deepcopy(model.state_dict())
    gradients(model, 0)
    drop_gradients(model[2].parameters())
    optimizer = LARS(model.parameters(), lr=1.0, weight_decay=DECAY)
    optimizer.step()
    assert torch.equal(before["2.weight"], model[2].weight) and model[2].weight not in optimizer.state
    assert not torch.equal(before["0.weight"], model[0].weight)


def makers():
    sgd = lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=MOMENTUM)  # noqa: E731
    adamw = lambda m: torch.optim.AdamW(parameter_groups([m], weight_decay=DECAY), lr=0.01)  # noqa: E731
    lars = lambda m: LARS(parameter_groups([m], weight_decay=DECAY), lr=0.1)  # noqa: E731
    return {"sgd": sgd, "adamw": adamw, "lars": lars}


@pytest.mark.parametrize("name", makers())
def test_a_state_that_went_and_came_back_takes_the_same_steps(name):
    make, model = makers()[name], network()
    optimizer = make(model)
    stepped(model, optimizer, [0.1] * 3)
    saved = OptimizerState(optimizer, dict(model.named_parameters())).state()
    assert saved and all(isinstance(v, torch.Tensor) or json.dumps(v) for v in saved.values())
    resumed = network(seed=1)
    resumed.load_state_dict(model.state_dict())
    other = make(resumed)
    # As a checkpoint holds it: bytes of its own, contiguous.
    written = {key: value.detach().clone().contiguous() for key, value in saved.items()}
    OptimizerState(other, dict(resumed.named_parameters())).load_state(written)
    went_on = stepped(model, optimizer, [0.2] * 3, first=3), stepped(resumed, other, [0.2] * 3, first=3)
    assert all(torch.equal(*pair) for pair in zip(*went_on, strict=True))
    again = OptimizerState(other, dict(resumed.named_parameters())).state()
    now = OptimizerState(optimizer, dict(model.named_parameters())).state()
    assert now.keys() == again.keys() and all(torch.equal(now[key], again[key]) for key in now)


def test_what_has_one_dimension_does_not_decay():
    model = network()
    model[0].weight.requires_grad_(False)
    decaying, plain = parameter_groups([model], weight_decay=0.04)
    assert [p.shape for p in decaying["params"]] == [(4, 8)]
    assert [p.shape for p in plain["params"]] == [(8,), (8,), (8,), (4,)]
    optimizer = torch.optim.AdamW([decaying, plain], lr=0.1)
    set_weight_decay(optimizer, 0.4)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.4, 0.0]


def test_what_is_exempt_by_name_does_not_decay_either():
    model = network()
    model.add_module("named", nn.ParameterDict({"pos_embed": torch.zeros(1, 2, 3), "pos": torch.zeros(2, 3)}))
    decaying, plain = parameter_groups([model], weight_decay=0.04, exempt=("pos_embed",))
    assert any(p is model.named["pos_embed"] for p in plain["params"]) and len(plain["params"]) == 5
    assert any(p is model.named["pos"] for p in decaying["params"])


def test_each_gradient_is_clipped_by_its_own_norm():
    p, q, none = (nn.Parameter(torch.zeros(4)) for _ in range(3))
    p.grad, q.grad = torch.tensor([30.0, 40.0, 0.0, 0.0]), torch.tensor([0.3, 0.4, 0.0, 0.0])
    clip_each([p, q, none], 3.0)
    torch.testing.assert_close(p.grad, torch.tensor([1.8, 2.4, 0.0, 0.0]))
    assert torch.equal(q.grad, torch.tensor([0.3, 0.4, 0.0, 0.0])) and none.grad is None
    clip_each([none], 3.0)  # nothing to clip is no error
