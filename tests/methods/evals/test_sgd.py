"""A classifier by SGD on features takes the steps of torch's own, and ends the same whatever stops it."""

import shutil

import pytest
import torch
from torch import nn

from launcher.errors import Diverged
from methods.evals.sgd import protocol
from methods.evals.sgd.dense import Dense
from methods.evals.sgd.protocol import rate_at
from methods.evals.sgd.spec import Sgd

CPU = torch.device("cpu")
SHORT = ("sgd.epochs=10", "sgd.batch=48", "sgd.drops=[8,9]", "sgd.hidden=64", "sgd.rate=0.3", "sgd.l2=1e-4")


class Dropped(nn.Module):
    """Dropout whose choice is given."""

    factors = None

    def forward(self, hidden):
        return hidden if self.factors is None else hidden * self.factors.double()


def theirs(dense):
    """(torch's modules with the weights of `dense` in float64, their dropout)."""
    dropout, modules = Dropped(), []
    for number, layer in enumerate(dense.layers()):
        linear = nn.Linear(layer.shape[1] - 1, layer.shape[0]).double()
        linear.weight.data, linear.bias.data = layer[:, :-1].double().clone(), layer[:, -1].double().clone()
        modules += [nn.ReLU(), dropout, linear] if number else [linear]
    return nn.Sequential(*modules), dropout


@pytest.mark.parametrize(("widths", "share"), [((7, 5), 0.5), ((7, 6, 5), 0.0), ((7, 6, 5), 0.5)])
def test_steps_are_those_of_torch_s_sgd_with_the_penalty_in_the_loss(widths, share):
    generator, l2 = torch.Generator().manual_seed(0), 0.01
    dense = Dense(widths, CPU)
    dense.draw(3)
    network, dropout = theirs(dense)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for number in range(6):
        x, y = torch.randn(12, 7, generator=generator), torch.randint(5, (12,), generator=generator)
        factors = dropout.factors = dense.dropped(12, share, number)
        loss = nn.functional.cross_entropy(network(x.double()), y)
        penalty = sum(layer.weight.square().sum() for layer in network if isinstance(layer, nn.Linear))
        optimizer.zero_grad()
        (loss + l2 * penalty).backward()
        optimizer.step()
        parts = (slice(0, 5), slice(5, 12), slice(12, 12))  # as ranks have them, one of them nothing
        given = [(x[part], y[part], None if factors is None else factors[part]) for part in parts]
        sums = sum(dense.gradient(*each) for each in given) / 12
        assert float(sums[-1]) == pytest.approx(float(loss.detach()), rel=1e-5)
        dense.step(sums[:-1], rate=0.1, momentum=0.9, weight_decay=2 * l2)
    dropout.factors = None
    expected, _ = theirs(dense)
    for ours, their in zip(expected.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours, their, rtol=1e-4, atol=1e-5)
    x = torch.randn(3, 7, generator=generator)
    torch.testing.assert_close(dense(x), network(x.double()).float(), rtol=1e-4, atol=1e-5)


def test_weights_begin_within_torch_s_bounds_and_differ_by_the_seed():
    dense, other = Dense((400, 90, 10), CPU), Dense((400, 90, 10), CPU)
    dense.draw(1)
    other.draw(2)
    for layer, inputs in zip(dense.layers(), (400, 90), strict=True):
        assert 0.95 < float(layer.abs().max()) * inputs**0.5 <= 1
        assert float(layer.mean()) == pytest.approx(0, abs=0.1 * inputs**-0.5)
    assert not torch.equal(dense.values, other.values)


def test_dropout_is_a_function_of_the_seed_and_keeps_the_mean():
    dense = Dense((3, 200, 2), CPU)
    first = dense.dropped(50, 0.3, 5)
    assert torch.equal(first, dense.dropped(50, 0.3, 5)) and not torch.equal(first, dense.dropped(50, 0.3, 6))
    assert first.unique().tolist() == pytest.approx([0, 1 / 0.7]) and float(first.mean()) == pytest.approx(1, abs=0.03)
    assert Dense((3, 2), CPU).dropped(50, 0.3, 5) is None


def test_the_rate_is_a_tenth_from_each_drop_on():
    settings = Sgd(rate=0.5, drops=[3, 5])
    assert [rate_at(settings, epoch) for epoch in range(7)] == pytest.approx([0.5] * 3 + [0.05] * 2 + [0.005] * 2)


def test_an_epoch_sees_each_image_once_in_an_order_of_its_own_and_steps_at_its_rate(evaluated, monkeypatch):
    seen, rates, decays, gradient, step = [], [], set(), protocol._gradient, Dense.step

    def asked(subject, settings, dense, block, places, number):
        seen.append(places)
        return gradient(subject, settings, dense, block, places, number)

    def took(self, given, *, rate, momentum, weight_decay):
        rates.append(rate)
        decays.add((momentum, weight_decay))
        step(self, given, rate=rate, momentum=momentum, weight_decay=weight_decay)

    monkeypatch.setattr(protocol, "_gradient", asked)
    monkeypatch.setattr(Dense, "step", took)
    photos = "eval_data=photos", "eval_data.images=76"
    evaluated.scores("protocol=sgd", *photos, "sgd.epochs=4", "sgd.batch=19", "sgd.rate=0.1", "sgd.drops=[2,3]")
    epochs = [torch.tensor([*map(list, seen[4 * epoch : 4 * epoch + 4])]).flatten() for epoch in range(4)]
    assert len(seen) == 16 and all(sorted(epoch.tolist()) == list(range(76)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert rates == pytest.approx([0.1] * 8 + [0.01] * 4 + [0.001] * 4)
    width = evaluated.backbone(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape[1]
    assert decays == {(0.9, 2 * 100 / (width * 19))}  # the gradient of their penalty, 100 / (d classes) |W|^2


def test_what_was_stopped_ends_as_what_was_not(evaluated, monkeypatch):
    ends, judged = [], protocol.accuracy
    monkeypatch.setattr(protocol, "accuracy", lambda s, dense, *of: ends.append(dense.values) or judged(s, dense, *of))
    asked = evaluated.asked("protocol=sgd", *SHORT)
    undisturbed = evaluated.serve(asked)["sgd"]
    assert set(undisturbed) == {"top1", "top5", "train", "steps"} and undisturbed["train"] > 15
    shutil.rmtree(asked.path)
    again = evaluated.asked("protocol=sgd", *SHORT)
    assert evaluated.stopped(again, 40)
    assert evaluated.serve(again)["sgd"] == undisturbed
    steps = [event["resumed"]["sgd"] for event in again.history().all("work") if "sgd" in event.get("resumed", {})]
    assert steps and 0 < steps[0] < 60
    assert torch.equal(ends[0], ends[-1])
    assert not (again.path / "features").exists()


def test_a_linear_classifier_and_a_share_stand_under_names_of_their_own(evaluated):
    few = "sgd.epochs=2", "sgd.batch=19", "eval_data=photos", "eval_data.images=76"
    evaluated.scores("protocol=sgd", "sgd.hidden=null", "sgd.drops=[1]", *few)
    evaluated.scores("protocol=sgd", "sgd.share=0.5", *few)
    found = {name.partition(":")[0] for name in evaluated.run.summary()["evals"]}
    assert {"sgd(hidden=null,epochs=2,batch=19,drops=[1])", "sgd(share=0.5,epochs=2,batch=19)"} <= found


def test_weights_that_are_no_numbers_are_not_scored(evaluated):
    with pytest.raises(Diverged, match="sgd: after epoch 1 the weights are no numbers; give a rate below 1e"):
        evaluated.scores("protocol=sgd", "sgd.rate=1e30", "sgd.batch=19", "eval_data=photos", "eval_data.images=76")
